"""Finds a project's folder in its repository: the top, or a folder of a larger repository.

The folder is the nearest one, upwards from where a command runs, that has ``mtf.yaml``. Hooks run
at the top of the repository, and a server has no folders at all: they look for projects in a commit
or in the index. Within a project (``GitRepo.within``), all paths are relative to its folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.errors import RepositoryError
from mtf.project.settings_file import SETTINGS, outside
from mtf.spec.schema.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo

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
    if others and head is not None and not repo.whole.files(head, _SPECS):
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
    return [whole.within(prefix) for prefix in _projects_among(whole.files(commit))]


def projects_in_index(repo: GitRepo) -> list[GitRepo]:
    """Return the repository within each project of the index; see ``projects_at``."""
    whole = repo.whole
    prefixes = whole.indexed_folders(SETTINGS)
    if not prefixes or "" in prefixes:
        return [whole]
    top = [""] if whole.index(_SPECS) else []
    return [whole.within(prefix) for prefix in (*top, *prefixes)]


def _projects_among(paths: Iterable[str]) -> list[str]:
    """Return the prefixes of the projects among the files of a commit without settings on top."""
    paths = list(paths)
    found = [p.removesuffix(SETTINGS) for p in paths if p.endswith(f"/{SETTINGS}")]
    has_specs = any(path.startswith(_SPECS) for path in paths)
    return ["", *found] if has_specs or not found else found
