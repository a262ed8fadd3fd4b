"""The runs that a command may act on, and the reason why it leaves another out. Pure.

Each reason is a line for people, None where there is none. A run for which something is hopeless
can be acted on, but would probably fail again: it takes a person who names it, or ``--force``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from shlex import quote
from typing import TYPE_CHECKING

from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.experiments import DIRECT
from mtf.core.vocabulary.states import RunState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from mtf.core.vocabulary.ids import CommitId, RunKey
    from mtf.core.vocabulary.records import RunRecord


LEFT_OUT = "left out"  # begins the reasons that are not about a run's state alone
_FEW = 3  # runs of a grid that get a line each


@dataclass(frozen=True)
class Tip:
    """The tracked branch's newest commit, and the runs that its specs ask for."""

    commit: CommitId
    branch: str
    keys: Collection[RunKey]
    unread: Collection[str] = ()  # paths of files with mistakes: some specs may be missing

    def asks_for(self, record: RunRecord) -> bool:
        """Return True if a spec at the tip asks for this very run."""
        return record.key in self.keys


def why_not_cancelled(record: RunRecord) -> str | None:
    """Return the reason not to cancel a run."""
    if record.is_over:
        return f"over     {record.run} is {record.state}: not cancelled"
    return None


def why_not_retried(record: RunRecord) -> str | None:
    """Return the reason not to start another attempt of a run."""
    run = record.run
    if (successor := record.superseded_by) is not None:
        return f"over     {run} was run again as {successor}: not retried. Name that run instead"
    if record.state is RunState.COMPLETED:
        return (
            f"complete {run}: not retried. To run it again, set"
            f" `generation: {record.generation + 1}` in its spec, commit, and run mtf sync; or run"
            f" mtf rerun {run}"
        )
    return None if record.is_over else _active(record, "retried")


def why_a_retry_is_hopeless(record: RunRecord, tip: Tip) -> str | None:
    """Return the reason why another attempt of a run is useless."""
    run, branch = record.run, tip.branch
    if record.cause == Cause.CONFIGURATION:
        return (
            f"left out {run}: its configuration was refused, and a retry runs the same commit"
            f" {record.commit[:8]}. mtf rerun {run} runs {branch}'s; --force retries it anyway"
        )
    if record.wanted and not tip.asks_for(record) and not tip.unread:
        return (
            f"left out {run}: no spec on {branch} asks for it any more. --force retries it anyway"
        )
    return None


def why_not_rerun(record: RunRecord, tip: Tip) -> str | None:
    """Return the reason why the experiment of a run cannot be run again at the tip."""
    run, branch = record.run, tip.branch
    if (successor := record.superseded_by) is not None:
        return f"over     {run} was run again as {successor}: not rerun. Name that run instead"
    if not record.is_over:
        return _active(record, "rerun")
    if tip.asks_for(record):
        return None
    if not record.wanted and record.spec != DIRECT:
        again = f"mtf reproduce {record.reproduces}" if record.reproduces else "mtf run"
        return (
            f"left out {run}: {again} started it, and no committed spec asks for it. Start it so"
            f" again, or mtf retry {run}, which trains the old commit"
        )
    if not record.wanted:
        return (
            f"left out {run}: a Python program asked for it, and no committed spec does. Set"
            f" generation: {record.generation + 1} in the program, and run that{_or_retry(record)}"
        )
    if tip.unread:
        return (
            f"left out {run}: no valid spec on {branch} asks for it, and {_listed(tip.unread)} has"
            f" mistakes. See mtf validate --rev {branch}"
        )
    return (
        f"left out {run}: no spec on {branch} asks for this experiment any more. mtf sync submits a"
        f" changed one. To rerun this one, commit its spec as it was (git checkout"
        f" {record.commit[:8]} -- {quote(record.spec)}){_or_retry(record)}"
    )


def _or_retry(record: RunRecord) -> str:
    """Return the other way to run an experiment again, empty for one that is complete."""
    if record.state is RunState.COMPLETED:
        return ""
    return f", or mtf retry {record.run}, which trains the old commit"


def why_a_rerun_is_hopeless(record: RunRecord, tip: Tip) -> str | None:
    """Return the reason why it is useless to run the experiment of a run again at the tip."""
    if record.cause == Cause.CONFIGURATION:
        return (
            f"left out {record.run}: its configuration was refused, and the spec on {tip.branch} is"
            " the same. Change the spec; --force reruns it anyway, if the code was at fault"
        )
    return None


def summed_up(reasons: Iterable[tuple[RunRecord, str]]) -> list[str]:
    """Return the reasons, each with its run; many of a grid that are alike are one line."""
    groups: dict[str, list[str]] = defaultdict(list)
    for record, line in reasons:
        groups[line.replace(record.run, record.grid or record.run)].append(line)
    return [
        text
        for shared, lines in groups.items()
        for text in (lines if len(lines) <= _FEW else [f"{shared} ({len(lines)} runs)"])
    ]


def _active(record: RunRecord, done: str) -> str:
    run = record.run
    if record.cancel_requested:
        return f"ending   {run}: not {done} yet. Run the command again once its job has ended"
    return (
        f"active   {run} is {record.state}: not {done}. To end its job first, run mtf cancel {run}"
    )


def _listed(paths: Collection[str]) -> str:
    first, *more = sorted(paths)
    return f"{first} (and {len(more)} more)" if more else first
