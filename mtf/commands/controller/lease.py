"""The lease by which one controller serves a cluster: a ref, on the remote if there is one.

The ref names a commit with one small file, and moves only by compare-and-swap. The lease only saves
several controllers from doing the same work: the ledger is what guards the runs.
"""

from __future__ import annotations

import re
import socket
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.times import is_time, iso, parse_time
from mtf.errors import LockedError
from mtf.executor.local.job_process import Process, this_process
from mtf.git.refs import RefMovedError, RefUpdate
from mtf.reconcile.cas_retry import with_retries
from mtf.reconcile.run_access import submitter

if TYPE_CHECKING:
    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo

REFS = "refs/mtf/controller/"  # followed by the name of a cluster
LEASE_S = 600.0  # a holder on another host that is silent for so long loses the lease
_FILE = "holder.json"


class LeaseHeldError(LockedError):
    """Another controller serves this cluster."""


@dataclass(frozen=True)
class Holder:
    """The holder of a lease. Times are ISO 8601, UTC."""

    who: str  # user@host:pid
    process: str  # distinguishes it from a later process with the same pid
    folder: str  # of its clone
    since: str
    until: str
    released: bool = False

    @property
    def is_whole(self) -> bool:
        """Return True if every field is of the form that mtf gives it: others may push leases."""
        texts = (self.who, self.process, self.folder, self.since, self.until)
        if not all(isinstance(text, str) for text in texts):
            return False
        is_pid = re.fullmatch(r".*:[0-9]{1,9}", self.who, re.DOTALL)
        return bool(is_pid) and is_time(self.since) and is_time(self.until)

    def is_free(self, now: datetime) -> bool:
        """Return True if another may take the lease: released, expired, or its holder died."""
        return self.released or parse_time(self.until) <= now or self._has_died()

    def _has_died(self) -> bool:
        where, _, pid = self.who.rpartition(":")
        here = where.rpartition("@")[2] == socket.gethostname()
        return here and not Process(int(pid), self.process).is_alive()


def holders(repo: GitRepo, remote: str | None) -> dict[str, Holder]:
    """Return the current or last holder of each cluster's lease.

    Raises:
        RepositoryError: the remote cannot be reached.
    """
    if remote is None:
        refs = repo.refs(REFS)
    else:
        refs = repo.remote_refs(remote, [f"{REFS}*"])
        repo.fetch(remote, refs)
    found = {ref.removeprefix(REFS): _holder(repo, tip) for ref, tip in refs.items()}
    return {cluster: holder for cluster, holder in found.items() if holder is not None}


def _tip(repo: GitRepo, remote: str | None, ref: str) -> CommitId | None:
    """Return the commit that the ref names, once it has been fetched."""
    if remote is None:
        return repo.find_commit(ref)
    found = repo.remote_refs(remote, [ref])
    if ref in found and repo.find_commit(found[ref]) is None:
        repo.fetch(remote, found)
    return found.get(ref)


def _holder(repo: GitRepo, tip: CommitId | None) -> Holder | None:
    raw = repo.whole.read(tip, _FILE) if tip else None
    try:
        holder = Holder(**json_text.loads(raw)) if raw else None
    except (TypeError, ValueError):  # written by another version: treated as none
        return None
    return holder if holder is not None and holder.is_whole else None


class Lease:
    """The lease of one cluster, as this process holds it."""

    def __init__(self, repo: GitRepo, remote: str | None, cluster: str) -> None:
        """Name the lease; it is not taken yet."""
        self._repo, self._remote, self._cluster = repo, remote, cluster
        self._ref = REFS + cluster
        self._tip: CommitId | None = None  # the ref's commit, while this process holds the lease
        self._ours: Holder | None = None

    def hold(self, now: datetime) -> bool:
        """Take the lease, or renew it once a third of it is over; return True if it was taken.

        Raises:
            LeaseHeldError: another controller holds it; the message names it.
            RepositoryError: the remote cannot be reached.
        """
        if self._ours is None:
            with_retries(lambda: self._take(now))
            return True
        if parse_time(self._ours.until) - now < timedelta(seconds=LEASE_S * 2 / 3):
            self._renew(self._ours, now)
        return False

    def release(self) -> None:
        """Release the lease, if this process holds it.

        Raises:
            RepositoryError: the remote cannot be reached.
        """
        if self._ours is not None:
            self._move(replace(self._ours, released=True))
            self._ours = None

    def _take(self, now: datetime) -> None:
        self._tip = _tip(self._repo, self._remote, self._ref)
        holder = _holder(self._repo, self._tip)
        if holder is not None and not holder.is_free(now) and not _is_this_process(holder):
            raise LeaseHeldError(
                f"{holder.who} controls cluster {self._cluster} since {holder.since}, from"
                f" {holder.folder}. Stop it there, or wait: its lease ends {holder.until} unless"
                " it renews it"
            )
        process = this_process().identity
        folder = str(self._repo.root)
        self._move(Holder(submitter(), process, folder, iso(now), _until(now)))

    def _renew(self, ours: Holder, now: datetime) -> None:
        try:
            self._move(replace(ours, until=_until(now)))
        except RefMovedError:
            # this process was silent for too long, or its last push succeeded after all
            self._ours = None
            with_retries(lambda: self._take(now))

    def _move(self, holder: Holder) -> None:
        """Write the holder into the ref.

        Raises:
            RefMovedError: somebody else moved the ref.
        """
        content = json_text.dumps(asdict(holder), indent=2).encode()
        new = self._repo.write_commit(
            [(_FILE, content)],
            parents=(),
            message=f"mtf: {holder.who} controls {self._cluster} until {holder.until}",
            committer=self._repo.identity,
        )
        update = RefUpdate(self._ref, new, self._tip)
        if self._remote is None:
            self._repo.update_refs([update])
        else:
            self._repo.push(self._remote, [update])
        self._tip, self._ours = new, holder


def _is_this_process(holder: Holder) -> bool:
    return (holder.who, holder.process) == (submitter(), this_process().identity)


def _until(now: datetime) -> str:
    return iso(now + timedelta(seconds=LEASE_S))
