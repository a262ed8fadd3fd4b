"""Which run's checkpoint another run begins from: ``init_from`` against what is recorded. Pure."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mtf.core.planner.init_from_names import asked_of, names_of, not_among, unknown
from mtf.core.vocabulary.ids import name_of
from mtf.core.vocabulary.records import Origin, best_run
from mtf.core.vocabulary.states import RunState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.ids import RunKey
    from mtf.core.vocabulary.records import RunRecord
    from mtf.errors import Problem

Keyed = tuple["Desired", tuple["RunKey", ...]]


class Lineage:
    """What ``init_from`` may name: all that is committed, and all runs, as observed now.

    A name of a committed spec means the runs of just what is committed, so that what begins from a
    changed experiment waits for the changed one. Another name means the newest runs that had it, a
    run's or a submission's id that very run or submission.

    Where not all specs could be read (``is_whole`` is False) another name is waited for: it may be
    that of a changed experiment.
    """

    def __init__(
        self, desired: Iterable[Keyed], records: Collection[RunRecord], *, is_whole: bool = True
    ) -> None:
        self._is_whole = is_whole
        self._desired = desired
        self._records = records
        self._found: dict[tuple[str, str], Origin | str] = {}

    def origin(self, asked: Mapping[str, Any]) -> Origin | str:
        """Return the checkpoint that a run is to begin from, or what it waits for, in words.

        A grid's name means the best of its completed members, once all of them are over.
        """
        wish = asked["run"], asked["checkpoint"]
        if wish not in self._found:
            self._found[wish] = self._origin(*wish)
        return self._found[wish]

    def _origin(self, name: str, checkpoint: str) -> Origin | str:
        if name in self._by_id:
            return _begun(self._by_id[name], checkpoint, completed_only=False)
        if name in self._committed:
            keys = self._committed[name]
            there = [self._by_key[key] for key in keys if key in self._by_key]
            if len(there) < len(keys):
                return f"waits for {name}, {_not_yet(len(keys) - len(there), len(keys))}"
            return _begun(there, checkpoint)
        if not self._is_whole:
            return f"waits for {name}, which may be a spec that has mistakes"
        if name in self._named:
            return _begun(list(self._named[name].values()), checkpoint)
        return f"has {unknown(name, self.names)}"

    @cached_property
    def names(self) -> set[str]:
        """Return all that ``init_from`` may name."""
        return {*self._committed, *self._named, *self._by_id}

    @cached_property
    def _by_key(self) -> dict[RunKey, RunRecord]:
        return {record.key: record for record in self._records}

    @cached_property
    def _by_id(self) -> dict[str, list[RunRecord]]:
        found: defaultdict[str, list[RunRecord]] = defaultdict(list)
        for record in self._records:
            for name in {record.run, record.submission}:
                found[name].append(record)
        return dict(found)

    @cached_property
    def _committed(self) -> dict[str, list[RunKey]]:
        found: defaultdict[str, list[RunKey]] = defaultdict(list)
        for desired, keys in self._desired:
            for experiment, key in zip(desired.experiments, keys, strict=True):
                for name in names_of(experiment.grid, experiment.name):
                    found[name].append(key)
        return dict(found)

    @cached_property
    def _named(self) -> dict[str, dict[str, RunRecord]]:
        """Return by name the newest run of each member."""
        found: defaultdict[str, dict[str, RunRecord]] = defaultdict(dict)
        for record in sorted(self._records, key=lambda r: r.run.split("/")[1]):
            for name in names_of(record.grid, record.experiment):
                found[name][record.member] = record
        return dict(found)


def _begun(
    candidates: list[RunRecord], checkpoint: str, *, completed_only: bool = True
) -> Origin | str:
    """Return the checkpoint of one of these runs, or what is waited for.

    ``completed_only`` is not for what was named by its id: it may have ended in any way.
    """
    if active := [run for run in candidates if not run.is_over]:
        more = f" and {len(active) - 1} more" if len(active) > 1 else ""
        return f"waits for {active[0].run} ({active[0].state}){more}"
    completed = [run for run in candidates if run.state is RunState.COMPLETED]
    if not completed and (completed_only or len(candidates) > 1):
        run = candidates[0].run
        return (
            f"waits for {run}, which is {candidates[0].state}: mtf retry {run}, or name this very"
            " run in init_from"
        )
    completed = completed or candidates
    source = best_run(completed) or (completed[0] if len(completed) == 1 else None)
    if source is None:
        return f"waits: no run of {name_of(candidates[0].run)} has a metric. Name one of them"
    found = source.best_checkpoint if checkpoint == "best" else source.checkpoint
    if found is None:
        which = "checkpoint of its best epoch" if checkpoint == "best" else "checkpoint"
        return f"waits for {source.run}, which is {source.state} and has no {which}"
    return Origin(source.run, found.path, found.sha256, found.step)


def _not_yet(lacking: int, total: int) -> str:
    return "which has not run yet" if total == 1 else f"{lacking} of whose {total} runs are to come"


def unknown_origins(
    asking: Iterable[Keyed], lineage: Lineage, recorded: Collection[RunKey]
) -> list[Problem]:
    """Return a problem for each name that nothing has, and that a run not yet there is to use."""
    problems = []
    for desired, keys in asking:
        if not desired.named_at:
            continue
        new = [e for e, k in zip(desired.experiments, keys, strict=True) if k not in recorded]
        asked = {name for e in new if (name := asked_of(e)) is not None}
        problems += not_among(desired, asked, lineage.names)
    return problems
