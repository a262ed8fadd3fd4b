"""Finds a project's folder in its repository: the top, or a folder of a larger repository.

The folder is the nearest one, upwards from where a command runs, that has ``mtf.yaml``. Hooks run
at the top of the repository, and a server has no folders at all: they look for projects in a commit
or in the index. Within a project (``GitRepo.within``), all paths are relative to its folder.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mtf.errors import RepositoryError
from mtf.project.settings_file import SETTINGS, outside
from mtf.spec.schema.settings import Settings
from mtf.spec.yaml.reader import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo
    from mtf.git.wire import Entry

_ENDINGS = (".yaml", ".yml")  # as in mtf/spec/load.py, which takes long to import
_KIND = re.compile(rb"""["']?\bkind["']?\s*:\s*["']?(?:experiment|grid|base)\b""")
_SPECS = f"{Settings.model_fields['experiments'].default}/"  # of a project without settings


def of_clone(repo: GitRepo) -> GitRepo:
    """Return a repository within the project that it was opened in, on disk or at HEAD.

    A repository without settings is a project with the default ones.

    Raises:
        RepositoryError: the repository was opened outside of its projects.
    """
    for prefix in _upwards(repo.opened_in):
        if (repo.root / prefix / SETTINGS).is_file():
            return repo.within(prefix)
    head = repo.find_commit("HEAD")
    for prefix in _upwards(repo.opened_in):
        if head is not None and repo.within(prefix).read(head, SETTINGS, 1) is not None:
            return repo.within(prefix)  # not checked out, as in a sparse checkout
    others = [prefix for prefix in repo.indexed_folders(SETTINGS) if prefix]
    if others and head is not None and not _has_specs(repo, repo.whole.files(head, _SPECS)):
        raise RepositoryError(outside([prefix.rstrip("/") for prefix in others]))
    return repo.whole


def _upwards(folder: str) -> Iterator[str]:
    """Yield a folder and those above it, up to the top: ``a/b/``, ``a/``, ""."""
    while folder:
        yield folder
        folder = folder.rstrip("/").rpartition("/")[0]
        folder += "/" if folder else ""
    yield ""


def at_commit(repo: GitRepo, commit: CommitId) -> GitRepo:
    """Return a project's repository within the folder that the project had at a commit.

    A project may have moved since.
    """
    if repo.read(commit, SETTINGS, 1) is not None:
        return repo
    found = projects_at(repo, commit)
    return found[0] if len(found) == 1 else repo


def check_only_project(repo: GitRepo, commit: CommitId, folders: Collection[str]) -> None:
    """Refuse a second project in a repository, which would share the ledger of the first.

    Args:
        repo: within the project.
        commit: of the tracked branch.
        folders: of the projects that the ledger has runs of, each "" or like ``lab``.

    Raises:
        RepositoryError: one of them is another project, and still exists.
    """
    here = repo.prefix.rstrip("/")
    for folder in sorted({*folders} - {here}):
        prefix = f"{folder}/" if folder else ""
        if repo.within(prefix).read(commit, SETTINGS, 1) is not None:
            raise RepositoryError(
                f"this repository has a project {_where([folder])}, whose runs are in its ledger. A"
                f" second one {_where([here])} would share the ledger and the names of experiments."
                f" {_CURE}"
            )


def beside(repo: GitRepo, projects: Iterable[GitRepo]) -> str | None:
    """Return a warning if a repository has other projects than the one that is opened.

    Args:
        repo: within the project.
        projects: all of the repository, see ``projects_at``.
    """
    prefixes = [other.prefix for other in projects]
    return beside_folders(repo.prefix.rstrip("/"), [prefix.rstrip("/") for prefix in prefixes])


def beside_folders(here: str, folders: Iterable[str]) -> str | None:
    """Return a warning if there are projects in other folders of a repository than in ``here``."""
    if others := sorted({*folders} - {here}):
        return (
            f"this repository has another project {_where(others)}. They would share one ledger, so"
            f" only the first that has runs can be used. {_CURE}"
        )
    return None


_CURE = "Put each into a repository of its own"


def _where(folders: Iterable[str]) -> str:
    return ", ".join(f"in {folder}" if folder else "at its top" for folder in folders)


def projects_at(repo: GitRepo, commit: CommitId) -> list[GitRepo]:
    """Return the repository within each project of a commit.

    If the top has settings, it is the only project: settings below are those of examples.
    """
    whole = repo.whole
    if whole.read(commit, SETTINGS, 1) is not None:
        return [whole]
    files = whole.files(commit)
    found = [path.removesuffix(SETTINGS) for path in files if path.endswith(f"/{SETTINGS}")]
    return _with_top(whole, found, files) if found else [whole]


def projects_in_index(repo: GitRepo) -> list[GitRepo]:
    """Return the repository within each project of the index; see ``projects_at``."""
    whole = repo.whole
    prefixes = whole.indexed_folders(SETTINGS)
    if not prefixes or "" in prefixes:
        return [whole]
    return _with_top(whole, prefixes, whole.index(_SPECS))


def _with_top(whole: GitRepo, prefixes: Iterable[str], files: Mapping[str, Entry]) -> list[GitRepo]:
    """Return the projects at these prefixes, and the top if it has specs: with default settings."""
    top = [""] if _has_specs(whole, files) else []
    return [whole.within(prefix) for prefix in (*top, *prefixes)]


def _has_specs(repo: GitRepo, files: Mapping[str, Entry]) -> bool:
    """Return True if the top has specs; other tools call a folder `experiments` as well."""
    found = [e.oid for p, e in files.items() if p.startswith(_SPECS) and p.endswith(_ENDINGS)]
    return any(map(looks_like_spec, repo.blobs(found, MAX_BYTES).values()))


def looks_like_spec(text: bytes) -> bool:
    """Return True if a YAML file says that it is one of mtf's."""
    return _KIND.search(text) is not None
