"""`SpecTree`: all specs of a commit, the index or the disk, with their settings and config groups.

It is the only reader of specs. Git is passed in as a repository, so that `mtf validate` on disk
imports none of it.
"""

from __future__ import annotations

import os
import posixpath
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.git_tree_ids import GITLINK, SYMLINK
from mtf.core.vocabulary.ids import timestamp
from mtf.errors import CONFIGURATION, Problem, SpecError
from mtf.project.code_files.source_trees import files_at, files_in_index, files_on_disk
from mtf.project.settings_file import (
    SETTINGS,
    first_bytes,
    project_root,
    settings_on_disk,
    settings_or_defaults,
    shown,
)
from mtf.spec.compose.config_groups import FOLDER, NO_GROUPS, Groups
from mtf.spec.load import is_spec, load_some, load_specs
from mtf.spec.named_code.source_files import no_files
from mtf.spec.yaml.block_style import in_block_style
from mtf.spec.yaml.reader import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo
    from mtf.git.wire import Entry
    from mtf.spec.load import Loaded
    from mtf.spec.named_code.source_files import SourceFiles
    from mtf.spec.schema.settings import Settings

_LONG = 4_000  # characters of JSON; the lines of what is shorter are found again
VALUE = CONFIGURATION  # the path of a spec that a program passes in
_REGULAR = ("100644", "100755")


class _Files(NamedTuple):
    """The files that a tree has read."""

    texts: Mapping[str, bytes]  # by path
    problems: tuple[Problem, ...] = ()  # files that are not regular
    by_id: Mapping[str, bytes] = {}  # the same texts by git object id


@dataclass(frozen=True, eq=False)
class SpecTree:
    """The specs of one commit, index or folder, and everything that resolving them depends on.

    Settings are read at once, specs and config groups when first used: the pre-commit hook ends
    before it reads 1,000 specs when none of them is staged.
    """

    settings: Settings  # the defaults if the settings contain mistakes
    settings_problems: tuple[Problem, ...]
    groups: Groups
    time: str  # the submission's timestamp, for grids with ``naming: timestamp``
    _read: Callable[[], _Files] = field(repr=False)
    code: SourceFiles = field(default_factory=no_files, repr=False)  # that specs name
    is_draft: bool = False  # of a program that has not asked to run it

    @classmethod
    def at(
        cls,
        repo: GitRepo,
        commit: CommitId,
        *,
        now: datetime | None = None,
        like: SpecTree | None = None,
    ) -> SpecTree:
        """Return the specs at a commit; the work tree is never looked at.

        Args:
            repo: has the commit.
            commit: to read.
            now: the submission's time.
            like: a tree of another commit: its time is used, and blobs that it has read are not
                read again.
        """
        settings, problems = settings_or_defaults(repo.read(commit, SETTINGS, MAX_BYTES + 1))

        def read() -> _Files:
            known = like.blobs if like else {}
            return _regular(repo, repo.files(commit, settings.experiments), known)

        groups = Groups(lambda: _regular(repo, repo.files(commit, FOLDER)).texts)
        time = like.time if like else _time(now)
        return cls(settings, problems, groups, time, read, files_at(repo, commit))

    @classmethod
    def of_index(cls, repo: GitRepo) -> SpecTree:
        """Return the specs as they are staged."""
        staged = repo.index(SETTINGS).get(SETTINGS)
        raw = repo.blobs([staged.oid], MAX_BYTES + 1)[staged.oid] if staged else None
        settings, problems = settings_or_defaults(raw)

        def read() -> _Files:
            return _regular(repo, repo.index(settings.experiments))

        groups = Groups(lambda: _regular(repo, repo.index(FOLDER)).texts)
        return cls(settings, problems, groups, _time(), read, files_in_index(repo))

    @classmethod
    def on_disk(cls, where: Path, also: Iterable[Path] = ()) -> SpecTree:
        """Return the specs in the work tree, with paths relative to ``where``; needs no git.

        ``also`` names further folders with specs.
        """
        root = project_root(where)
        settings, problems = settings_on_disk(root, where)
        folder, groups = root / settings.experiments, root / FOLDER

        def read() -> _Files:
            own, *others = (_in_folder(other, where) for other in (folder, *also))
            texts = [own.texts, *(other.texts for other in others)]
            return _Files({path: raw for part in texts for path, raw in part.items()}, own.problems)

        found = Groups(lambda: _in_folder(groups, where).texts, shown(groups, where))
        return cls(settings, problems, found, _time(), read, files_on_disk(root))

    @classmethod
    def of_value(
        cls,
        value: Mapping[str, Any],
        settings: Settings,
        groups: Groups = NO_GROUPS,
        code: SourceFiles | None = None,
    ) -> SpecTree:
        """Return one spec that a program passes in as a mapping of JSON values; it names ``code``.

        Without code, the spec is a draft: whether it can run as it is depends on where it runs.
        """
        text = json_text.dumps(value, indent=1)  # JSON is YAML 1.2, but read fast in block style
        texts = {VALUE: (text if len(text) < _LONG else in_block_style(value)).encode()}
        return cls(
            settings,
            (),
            groups,
            _time(),
            lambda: _Files(texts),
            code or no_files(),
            is_draft=code is None,
        )

    def checked(self) -> SpecTree:
        """Return the tree itself.

        Raises:
            SpecError: its settings contain mistakes.
        """
        if self.settings_problems:
            raise SpecError(list(self.settings_problems))
        return self

    @cached_property
    def _files(self) -> _Files:
        return self._read()

    @property
    def texts(self) -> Mapping[str, bytes]:
        """Return the contents of all regular files in the folder of specs, by path."""
        return self._files.texts

    @cached_property
    def specs(self) -> Mapping[str, bytes]:
        """Return the contents of all specs, by path."""
        return {path: text for path, text in self.texts.items() if is_spec(path)}

    @property
    def naming(self) -> Mapping[str, bytes]:
        """Return the files that may name code: the specs and the config groups they are made of."""
        has_groups = any(b"defaults" in text for text in self.specs.values())
        return {**self.specs, **self.groups.texts} if has_groups else self.specs

    @property
    def blobs(self) -> Mapping[str, bytes]:
        """Return the contents of ``texts`` by git's object id; empty for files on disk."""
        return self._files.by_id

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Return the mistakes in the settings, and specs that are not regular files."""
        return *self.settings_problems, *self._files.problems

    def load(self, paths: Collection[str]) -> Loaded:
        """Resolve the specs at these paths, if they exist; others are read only as their bases."""
        existing = [path for path in paths if path in self.texts]
        return load_some(
            existing,
            self.texts,
            self.settings,
            self.time,
            groups=self.groups,
            code=self.code,
            is_draft=self.is_draft,
        )

    def load_all(self) -> Loaded:
        """Resolve all specs."""
        return load_specs(self.texts, self.settings, self.time, self.groups, self.code)


def _time(now: datetime | None = None) -> str:
    return timestamp(now or datetime.now(UTC))


def _regular(
    repo: GitRepo, entries: Mapping[str, Entry], known: Mapping[str, bytes] | None = None
) -> _Files:
    """Read regular files; each YAML file that is not regular is a problem.

    ``known`` has contents by object id that need not be read again.
    """
    kinds = {SYMLINK: "a symbolic link", GITLINK: "a submodule"}
    problems = tuple(
        Problem(path, 1, 1, f"{kinds.get(e.mode, 'not a regular file')}: a spec must be a file")
        for path, e in entries.items()
        if e.mode not in _REGULAR and is_spec(path)
    )
    ids = {path: e.oid for path, e in entries.items() if e.mode in _REGULAR}
    known = known or {}
    wanted = (oid for oid in ids.values() if oid not in known)
    contents = {**known, **repo.blobs(wanted, MAX_BYTES + 1)}  # the reader refuses more
    texts = {path: contents[oid] for path, oid in ids.items()}
    return _Files(texts, problems, {oid: contents[oid] for oid in ids.values()})


def _in_folder(folder: Path, where: Path) -> _Files:
    """Read the specs in a folder and below it; each symbolic link is a problem."""
    if not folder.is_dir():
        return _Files({})
    prefix, start = shown(folder, where), len(str(folder))
    is_above = prefix.startswith("..")  # a path in it may lead down to the user's folder again
    texts: dict[str, bytes] = {}
    problems: list[Problem] = []
    for entry in _specs_under(str(folder)):
        inside = entry.path[start:].lstrip("/")
        path = shown(entry, where) if is_above else posixpath.join(prefix, inside)
        path = path.removeprefix("./")
        if entry.is_symlink():
            problems.append(Problem(path, 1, 1, "a symbolic link: a spec must be a file"))
        elif entry.is_file():
            texts[path] = first_bytes(entry)
    return _Files(texts, tuple(problems))


def _specs_under(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder that are named like specs; links are not followed."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_spec(entry.name):
                yield entry
            if entry.is_dir(follow_symlinks=False):
                yield from _specs_under(entry.path)
