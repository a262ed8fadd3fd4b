"""Hydra's config groups: the files under ``conf/`` that ``defaults`` lists of specs name.

They come from the same commit as the specs, and are read only when a spec needs them.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from mtf.errors import SpecError
from mtf.spec.schema.error_messages import shown
from mtf.spec.yaml.reader import read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mtf.spec.yaml.positions import Positions

FOLDER = "conf"  # at the root of the repository
_ENDING = ".yaml"  # the only one that Hydra knows
_NOT_IN_NAMES = frozenset("${}\\")  # Hydra would take such a name for an interpolation


class Groups:
    """All config groups of one commit, each file read once. Configurations are ``group/option``."""

    def __init__(self, files: Callable[[], Mapping[str, bytes]], folder: str = FOLDER) -> None:
        """Take a function that returns all files below the folder by path; called when needed."""
        self._read_files = files
        self.folder = folder
        self._read: dict[str, tuple[dict[str, Any], Positions]] = {}

    @cached_property
    def _files(self) -> Mapping[str, bytes]:
        inside = f"{self.folder}/"
        return {
            path.removeprefix(inside).removesuffix(_ENDING): raw
            for path, raw in self._read_files().items()
            if path.startswith(inside) and path.endswith(_ENDING)
            if _NOT_IN_NAMES.isdisjoint(path)
        }

    @property
    def texts(self) -> Mapping[str, bytes]:
        """Return the contents of all configurations, by the paths of their files."""
        return {self.path(name): raw for name, raw in self._files.items()}

    def is_group(self, name: str) -> bool:
        """Return True if there is a configuration below ``name``."""
        below = f"{name.strip('/')}/".removeprefix("/")
        return any(path.startswith(below) for path in self._files)

    def is_option(self, name: str) -> bool:
        """Return True if the configuration exists."""
        return _bare(name) in self._files

    def options(self, group: str) -> list[str]:
        """Return the options of a group."""
        below = f"{group.strip('/')}/".removeprefix("/")
        names = (path.removeprefix(below) for path in self._files if path.startswith(below))
        return sorted(name for name in names if "/" not in name)

    def path(self, name: str) -> str:
        """Return the path of a configuration's file, whether it exists or not."""
        return f"{self.folder}/{_bare(name)}{_ENDING}"

    def value(self, name: str) -> dict[str, Any]:
        """Return the content of a configuration's file.

        Raises:
            SpecError: with every error in it.
        """
        return self._document(name)[0]

    def positions(self, name: str) -> Positions:
        """Return the positions of a configuration's values."""
        return self._document(name)[1]

    def _document(self, name: str) -> tuple[dict[str, Any], Positions]:
        bare = _bare(name)
        if bare not in self._read:
            document = read(self._files[bare], self.path(bare))
            problems = list(document.problems)
            value = {} if document.value is None else document.value
            if not problems and not isinstance(value, dict):
                message = f"expected a mapping of keys, got {shown(value)}"
                problems = [document.positions.problem_at((), message)]
            if problems:
                raise SpecError(problems)
            self._read[bare] = value, document.positions
        return self._read[bare]

    def header(self, name: str) -> dict[str, str | None]:
        """Return the directives in the comments at a file's head: ``# @package _global_``."""
        found: dict[str, str | None] = {"package": None}
        for line in self._files[_bare(name)].decode("utf-8", "replace").splitlines():
            text = line.strip()
            if text and not text.startswith("#"):
                break
            words = text.lstrip("# ").split()
            if len(words) == 2 and words[0].startswith("@"):
                found[words[0][1:]] = words[1]
        return found


NO_GROUPS = Groups(dict)


def _bare(name: str) -> str:
    return name.strip("/").removesuffix(_ENDING)
