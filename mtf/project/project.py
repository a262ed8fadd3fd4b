"""An experiments repository opened for a command: settings, tracked commit, ledger, run root."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mtf.core.vocabulary.ids import LEDGER_REF, SEEN_REF
from mtf.errors import RepositoryError
from mtf.git.repo import GitRepo
from mtf.ledger.store import Ledger, LedgerStore
from mtf.project.settings_file import SETTINGS, settings_at

if TYPE_CHECKING:
    from mtf.core.vocabulary.ids import CommitId
    from mtf.spec.schema.settings import Settings

CLUSTER = "MTF_CLUSTER"  # which cluster is served, for a clone that several share
_CLUSTER_KEY = "mtf.cluster"  # the same, in the git configuration of a clone


@dataclass(frozen=True)
class Project:
    """What every command that acts on runs starts from."""

    repo: GitRepo
    settings: Settings  # as they are on the cluster that this clone serves
    remote: str | None
    serves: str | None = None  # the cluster, where the clone says another than the settings

    @cached_property
    def runs_root(self) -> Path:
        """Return the folder of all runs, the same from every work tree of the clone."""
        root = Path(os.path.expandvars(self.settings.runs_root)).expanduser()
        main = self.repo.common_dir.parent if self.repo.common_dir.name == ".git" else None
        return root if root.is_absolute() else (main or self.repo.root) / root

    @property
    def folder(self) -> Path:
        """Return the folder of what mtf keeps for this clone alone; ``mtf sync`` makes it."""
        return self.repo.common_dir / "mtf"

    def settings_at(self, commit: CommitId) -> Settings:
        """Return the settings at a commit, as they are on the cluster served here.

        Raises:
            SpecError: they hold mistakes.
        """
        return self.serving(settings_at(self.repo, commit))

    def serving(self, settings: Settings) -> Settings:
        """Return committed settings as they are on the cluster served here."""
        return settings.serving(self.serves or settings.cluster.name)

    def with_settings(self, settings: Settings) -> Project:
        """Return the project with the settings of another commit; the tracked branch stays."""
        return replace(self, settings=settings.model_copy(update={"branch": self.settings.branch}))

    def store(self, *, publish: bool = True) -> LedgerStore:
        """Return the ledger's store."""
        return LedgerStore(self.repo, self.remote, publish=publish)

    def ledger(self) -> Ledger:
        """Return the newest ledger that this clone knows, without asking the remote."""
        with self.repo.reading():
            return self.store().read(self._newest_ledger_ref())

    def fetched_ledger(self) -> Ledger | None:
        """Return the same, None if the remote may have a ledger that was never fetched."""
        ledger = self.ledger()
        return None if ledger.tip is None and self.remote is not None else ledger

    def whole_ledger(self) -> Ledger:
        """Return the same, compared with its history since this clone has last found it whole.

        A clone that has never synced has not: it takes the ledger as it is, for all of the history
        would have to be read.
        """
        with self.repo.reading():
            if self.repo.find_commit(SEEN_REF) is None:
                return self.ledger()
            return self.store().read_whole(self._newest_ledger_ref())

    def proven_ledger(self) -> Ledger:
        """Return the same, compared with all of its history."""
        with self.repo.reading():
            return self.store().read_whole(self._newest_ledger_ref(), since_beginning=True)

    def _newest_ledger_ref(self) -> str:
        ours = self.repo.find_commit(LEDGER_REF)
        there = f"refs/remotes/{self.remote}/mtf/ledger"
        theirs = self.repo.find_commit(there) if self.remote else None
        if theirs is None or ours == theirs:
            return LEDGER_REF
        behind = ours is None or self.repo.is_ancestor(ours, theirs)
        return there if behind else LEDGER_REF

    def tracked(self, store: LedgerStore | None = None) -> CommitId:
        """Return the tip of the tracked branch: the remote's, asked now, when ``store`` is given.

        Raises:
            RepositoryError: there is no such branch, or the remote cannot be reached.
        """
        branch = self.settings.branch
        tip = store.fetch(branch) if store else None
        found = tip or self.repo.find_commit(f"refs/heads/{branch}")
        if found is None and self.remote:
            found = self.repo.find_commit(f"refs/remotes/{self.remote}/{branch}")
        if found is not None:
            return found
        current = self.repo.current_branch()
        here = f"the checked-out branch is {current}" if current else "HEAD is detached"
        raise RepositoryError(
            f"the tracked branch {branch!r} does not exist ({here})."
            f" Create it, or set `branch:` in {SETTINGS} and commit that"
        )


def open_project(folder: Path) -> Project:
    """Open the repository that holds ``folder``.

    Raises:
        RepositoryError: no repository, no commit, no such remote.
        SpecError: mtf.yaml is wrong.
    """
    return project_in(GitRepo(folder))


def project_in(repo: GitRepo) -> Project:
    """Return what commands start from in a repository.

    Where the settings say which branch to track, they are read from HEAD; what they say of runs is
    read again from the tracked commit.

    Raises:
        RepositoryError: no commit, no such remote.
        SpecError: mtf.yaml is wrong.
    """
    with repo.reading():
        settings = settings_at(repo, repo.commit("HEAD"))
    remote = settings.remote
    serves, url = _local_choices(repo, remote)
    known = settings.known_clusters
    if serves is not None and known is not None and serves not in known:
        raise RepositoryError(
            f"{CLUSTER} (or git config {_CLUSTER_KEY}) says that this clone serves cluster"
            f" {serves!r}, which {SETTINGS} does not know: {', '.join(sorted(known))}"
        )
    if remote is not None and url is None:
        if "remote" in settings.model_fields_set:
            raise RepositoryError(
                f"{SETTINGS}: remote {remote!r} is not a remote of this repository."
                f" Add it (git remote add {remote} URL), or set `remote: null`"
            )
        remote = None
    return Project(repo, settings.serving(serves or settings.cluster.name), remote, serves)


def _local_choices(repo: GitRepo, remote: str | None) -> tuple[str | None, str | None]:
    """Return which cluster this clone serves, where it says so, and the remote's URL.

    Raises:
        RepositoryError: the cluster's name cannot be one.
    """
    from mtf.spec.schema.text_types import name_problem

    url = f"remote.{remote}.url"
    values = repo.config_values((_CLUSTER_KEY, url))
    serves = os.environ.get(CLUSTER) or values.get(_CLUSTER_KEY)
    if serves is not None and (problem := name_problem(serves)):
        raise RepositoryError(f"{CLUSTER} (or git config {_CLUSTER_KEY}): {serves!r} {problem}")
    return serves, values.get(url)
