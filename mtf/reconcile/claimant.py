"""`Claimant`: the process that claims runs, the time, and where the runs will be executed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from mtf.core.vocabulary.times import iso
from mtf.reconcile.run_access import submitter

if TYPE_CHECKING:
    from pathlib import Path

    from mtf.core.vocabulary.ids import CommitId
    from mtf.spec.schema.settings import Settings


@dataclass(frozen=True)
class Claimant:
    """A process that claims runs, with the other facts that it writes into their records."""

    who: str  # user@host:pid
    now: datetime
    commit: CommitId
    executor: str
    cluster: str
    lease_s: float
    root: Path  # the run root
    folder: str = ""  # of the project in the repository; empty: its top

    @classmethod
    def this_process(
        cls, commit: CommitId, settings: Settings, executor: str, root: Path, folder: str = ""
    ) -> Claimant:
        """Return this process as the claimant, as of now."""
        return cls(
            who=submitter(),
            now=datetime.now(UTC),
            commit=commit,
            executor=executor,
            cluster=settings.cluster.name,
            lease_s=settings.lease,
            root=root,
            folder=folder,
        )

    @cached_property
    def at(self) -> str:
        """Return the time of the claim as records spell it."""
        return iso(self.now)

    @cached_property
    def lease_until(self) -> str:
        """Return the end of the lease: from then on, another submitter may give the claim up."""
        return iso(self.now + timedelta(seconds=self.lease_s))
