"""Where new runs go: to which executor and cluster, and which of them wait for SLURM.

With ``executor: auto`` a machine without SLURM, such as a laptop with a clone of the lab's
repository, must not train what is meant for a cluster. A run is meant for one if it asks for what
only SLURM has (a partition, an account, several nodes, ...), or if its project has one: settings
that name a cluster, or runs on SLURM. Somebody who names the executor gets it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mtf.core.vocabulary.actions import Plan, Submit

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mtf.core.vocabulary.jobs import Resources
    from mtf.core.vocabulary.records import RunRecord

SLURM, LOCAL = "slurm", "local"
DEFAULT_CLUSTER = "default"  # the name of a cluster that the settings do not name


@dataclass(frozen=True)
class Placement:
    """The executor of new jobs, and the reason to leave the runs of a project to others."""

    executor: str
    cluster: str
    why_not: str | None = None  # None: each run is judged by what it asks for
    is_asked: bool = True  # the executor is named by the settings or on the command line
    to_run_here: str = "mtf sync --executor local"  # what people run to have them here

    @property
    def text(self) -> str:
        """Return the executor and the cluster, for people."""
        return f"{self.executor} (cluster {self.cluster})"

    def sift(self, plan: Plan) -> Plan:
        """Return the plan without the submissions that wait for SLURM, and with a note on each."""
        if self.executor != LOCAL or self.is_asked:
            return plan
        waiting = {
            action.run: (action.desired.name, why)
            for action in plan.actions
            if isinstance(action, Submit)
            and (why := self.why_not or meant_for_cluster(action.experiment.resources))
        }
        notes = [
            f"{name}: {runs} of its runs wait for a machine with SLURM: {why}. To run them here:"
            f" {self.to_run_here}"
            for (name, why), runs in Counter(waiting.values()).items()
        ]
        kept = tuple(action for action in plan.actions if action.run not in waiting)
        return replace(plan.only(kept), notes=(*plan.notes, *notes), waiting_for_slurm=len(waiting))


def meant_for_cluster(resources: Resources) -> str | None:
    """Return the first thing that a run asks for and only SLURM has, None if there is none."""
    asked = {
        "partition": resources["partition"],
        "account": resources["account"],
        "qos": resources["qos"],
        "reservation": resources["reservation"],
        "constraint": resources["constraint"],
        "nodes": resources["nodes"] if resources["nodes"] > 1 else None,
        "extra": " ".join(resources["extra"]),
    }
    return next((f"they ask for {key} {value}" for key, value in asked.items() if value), None)


def project_on_cluster(cluster: str, records: Iterable[RunRecord]) -> str | None:
    """Return the reason why all runs of a project are meant for a cluster, None if there is none.

    Args:
        cluster: that this clone serves.
        records: of all runs in the ledger.
    """
    if cluster != DEFAULT_CLUSTER:
        return f"they are for the cluster {cluster}"
    if any(r.executor == SLURM and r.cluster == cluster for r in records):
        return "runs of this repository have been submitted to SLURM"
    return None
