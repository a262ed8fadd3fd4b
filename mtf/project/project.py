"""`Project`: an experiments repository opened for a command, with settings, ledger and run root."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mtf.core.vocabulary.ids import LEDGER_REF, SEEN_REF
from mtf.errors import RepositoryError
from mtf.git.repo import GitRepo
from mtf.ledger.ledger_signing import Signing
from mtf.ledger.store import Ledger, LedgerStore
from mtf.project.location.folder import of_clone
from mtf.project.location.remote import CONFIG, shared_remote
from mtf.project.settings_file import SETTINGS, settings_at
from mtf.project.signatures import is_on

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.core.vocabulary.ids import CommitId
    from mtf.spec.schema.settings import Settings

CLUSTER = "MTF_CLUSTER"  # the cluster to serve, for a clone that several clusters share
_CLUSTER_KEY = "mtf.cluster"  # the same, in the git configuration of a clone
# git prints the last part of a key in small letters
_SIGNING_KEYS = ("mtf.signledger", "mtf.requiresignedledger", "mtf.ledgersignedsince")


@dataclass(frozen=True)
class Project:
    """An opened experiments repository."""

    repo: GitRepo  # paths are relative to the project's folder
    settings: Settings  # those for the cluster that this clone serves
    remote: str | None
    serves: str | None = None  # the cluster, if this clone names one
    signing: Signing = field(default_factory=Signing)  # of the ledger

    @property
    def root(self) -> Path:
        """Return the project's folder in this work tree, which has the settings."""
        return self.repo.root / self.repo.prefix

    @cached_property
    def runs_root(self) -> Path:
        """Return the folder of all runs, the same from every work tree of the clone."""
        root = Path(os.path.expandvars(self.settings.runs_root)).expanduser()
        main = self.repo.common_dir.parent if self.repo.common_dir.name == ".git" else None
        return root if root.is_absolute() else (main or self.repo.root) / self.repo.prefix / root

    @property
    def folder(self) -> Path:
        """Return the folder of mtf's own files for this clone; ``mtf sync`` creates it."""
        return self.repo.common_dir / "mtf"

    def at(self, commit: CommitId) -> Project:
        """Return the project with the settings of a commit; the tracked branch stays.

        Raises:
            SpecError: the settings contain mistakes.
        """
        return self.with_settings(self.serving(settings_at(self.repo, commit)))

    def serving(self, settings: Settings) -> Settings:
        """Return committed settings with those of the cluster that this clone serves merged in."""
        return settings.serving(self.serves or settings.cluster.name)

    def with_settings(self, settings: Settings) -> Project:
        """Return the project with other settings; the tracked branch stays."""
        return replace(self, settings=settings.model_copy(update={"branch": self.settings.branch}))

    def store(self, *, publish: bool = True) -> LedgerStore:
        """Return the store of the ledger; without ``publish`` it never pushes."""
        return LedgerStore(self.repo, self.remote, publish=publish, signing=self.signing)

    def ledger(self) -> Ledger:
        """Return the newest ledger in this clone.

        The remote is asked only if this clone has none yet.

        Raises:
            RepositoryError: the remote would have to be asked and cannot be reached.
        """
        with self.repo.reading():
            return self.store().read(self._known_ledger_ref())

    def fetched_ledger(self) -> Ledger | None:
        """Return ``ledger()``; None if the remote may have a ledger that was never fetched."""
        with self.repo.reading():
            ledger = self.store().read(self._newest_ledger_ref())
        return None if ledger.tip is None and self.remote is not None else ledger

    def whole_ledger(self) -> Ledger:
        """Return ``ledger()``, checked against its history since the last check in this clone.

        A clone that has never synced does not check it: that would mean reading all history.
        """
        with self.repo.reading():
            if self.repo.find_commit(SEEN_REF) is None:
                return self.ledger()
            return self.store().read_audited(self._known_ledger_ref())

    def proven_ledger(self) -> Ledger:
        """Return the newest ledger in this clone, checked against all of its history.

        The remote is not asked.
        """
        with self.repo.reading():
            return self.store().read_audited(self._newest_ledger_ref(), since_beginning=True)

    def _known_ledger_ref(self) -> str:
        """Return the ref of the newest ledger in this clone, which is fetched if there is none."""
        ref = self._newest_ledger_ref()
        if self.repo.find_commit(ref) is None:
            self.store().fetch_unknown()
            ref = self._newest_ledger_ref()
        return ref

    def _newest_ledger_ref(self) -> str:
        ours = self.repo.find_commit(LEDGER_REF)
        remote_ref = f"refs/remotes/{self.remote}/mtf/ledger"
        theirs = self.repo.find_commit(remote_ref) if self.remote else None
        if theirs is None or ours == theirs:
            return LEDGER_REF
        behind = ours is None or self.repo.is_ancestor(ours, theirs)
        return remote_ref if behind else LEDGER_REF

    def tracked(self, store: LedgerStore | None = None) -> CommitId:
        """Return the tip of the tracked branch; with a ``store``, as fetched from the remote now.

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
        checked_out = f"the checked-out branch is {current}" if current else "HEAD is detached"
        raise RepositoryError(
            f"the tracked branch {branch!r} does not exist ({checked_out})."
            f" Create it, or set `branch:` in {SETTINGS} and commit that"
        )


def open_project(folder: Path) -> Project:
    """Open the project that contains ``folder``.

    Raises:
        RepositoryError: there is no repository or no commit, ``folder`` is outside of its project,
            or its remote does not exist.
        SpecError: mtf.yaml contains mistakes.
    """
    return project_in(of_clone(GitRepo(folder)))


def project_in(repo: GitRepo) -> Project:
    """Return the project of a repository opened within the project's folder.

    The settings at HEAD say which branch to track. Commands that submit runs use the settings of
    the tracked commit for everything else.

    Raises:
        RepositoryError: the repository has no commit, or its remote does not exist.
        SpecError: mtf.yaml contains mistakes.
    """
    with repo.reading():
        settings = settings_at(repo, repo.commit("HEAD"))
    serves, remote, signing = _local_choices(repo, settings)
    known = settings.known_clusters
    if serves is not None and known is not None and serves not in known:
        raise RepositoryError(
            f"{CLUSTER} (or git config {_CLUSTER_KEY}): {SETTINGS} has no cluster {serves!r}."
            f" It has: {', '.join(sorted(known))}"
        )
    return Project(repo, settings.serving(serves or settings.cluster.name), remote, serves, signing)


def _local_choices(repo: GitRepo, settings: Settings) -> tuple[str | None, str | None, Signing]:
    """Return the cluster that this clone is configured to serve, its remote, and signing.

    Raises:
        RepositoryError: the name of the cluster is not valid, or there is no such remote.
    """
    from mtf.spec.schema.text_types import name_problem

    values = repo.config_values((_CLUSTER_KEY, *_SIGNING_KEYS), also=CONFIG)
    serves = os.environ.get(CLUSTER) or values.get(_CLUSTER_KEY)
    if serves is not None and (problem := name_problem(serves)):
        raise RepositoryError(f"{CLUSTER} (or git config {_CLUSTER_KEY}): {serves!r} {problem}")
    return serves, shared_remote(settings, values), _signing(values)


def ledger_signing(repo: GitRepo) -> Signing:
    """Return the settings of a repository for signatures of the ledger."""
    return _signing(repo.config_values(_SIGNING_KEYS))


def _signing(values: Mapping[str, str]) -> Signing:
    sign, required, since = (values.get(key) for key in _SIGNING_KEYS)
    is_required = is_on(required)
    return Signing(sign=is_on(sign) or is_required, required=is_required, since=since)
