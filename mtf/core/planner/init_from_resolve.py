"""Resolves ``init_from``: the recorded checkpoint that a new run begins from. Pure."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mtf.core.planner.init_from_names import (
    init_from_name,
    names_of,
    unknown_message,
    unknown_name_problems,
)
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
    """The runs that ``init_from`` can name: those of committed specs, and all recorded runs.

    The name of a committed spec means the runs of the committed version, so that a run which begins
    from a changed experiment waits for the changed one. Any other name means the newest runs that
    had it, and an id means exactly that run or submission.

    If some specs could not be read (``is_whole`` is False), a run with any other name waits, since
    the name may be that of a changed experiment.
    """

    def __init__(
        self, desired: Iterable[Keyed], records: Collection[RunRecord], *, is_whole: bool = True
    ) -> None:
        self._is_whole = is_whole
        self._desired = desired
        self._records = records
        self._found: dict[tuple[str, str], Origin | str] = {}

    def origin(self, init_from: Mapping[str, Any]) -> Origin | str:
        """Return the checkpoint that a run begins from, or the reason why it has to wait.

        A grid's name means the best of its completed members, once all of them are over.
        """
        key = init_from["run"], init_from["checkpoint"]
        if key not in self._found:
            self._found[key] = self._origin(*key)
        return self._found[key]

    def _origin(self, name: str, checkpoint: str) -> Origin | str:
        if name in self._by_id:
            return _newest_checkpoint(self._by_id[name], checkpoint, completed_only=False)
        if name in self._committed:
            keys = self._committed[name]
            recorded = [self._by_key[key] for key in keys if key in self._by_key]
            if len(recorded) < len(keys):
                return f"waits for {name}, {_not_submitted(len(keys) - len(recorded), len(keys))}"
            return _newest_checkpoint(recorded, checkpoint)
        if not self._is_whole:
            return f"waits for {name}, which may be a spec that has mistakes"
        if name in self._by_name:
            return _newest_checkpoint(list(self._by_name[name].values()), checkpoint)
        return f"is blocked: {unknown_message(name, self.names)}"

    @cached_property
    def names(self) -> set[str]:
        """Return all names that ``init_from`` can have."""
        return {*self._committed, *self._by_name, *self._by_id}

    @cached_property
    def _by_key(self) -> dict[RunKey, RunRecord]:
        return {record.key: record for record in self._records if record.superseded_by is None}

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
    def _by_name(self) -> dict[str, dict[str, RunRecord]]:
        """Return the newest run of each member, by the names that ``init_from`` can have."""
        found: defaultdict[str, dict[str, RunRecord]] = defaultdict(dict)
        for record in sorted(self._records, key=lambda r: r.run.split("/")[1]):
            for name in names_of(record.grid, record.experiment):
                found[name][record.member] = record
        return dict(found)


def _newest_checkpoint(
    candidates: list[RunRecord], checkpoint: str, *, completed_only: bool = True
) -> Origin | str:
    """Return the checkpoint of one of these runs, or the reason why there is none yet.

    ``completed_only`` is False for runs named by their id, which may have ended in any way.
    """
    if active := [run for run in candidates if not run.is_over]:
        more = f" and {len(active) - 1} more" if len(active) > 1 else ""
        return f"waits for {active[0].run} ({active[0].state}){more}"
    completed = [run for run in candidates if run.state is RunState.COMPLETED]
    if not completed and (completed_only or len(candidates) > 1):
        run = candidates[0].run
        return (
            f"is blocked: {run} is {candidates[0].state}. Retry it (mtf retry {run}), or name"
            " another run in init_from"
        )
    completed = completed or candidates
    source = best_run(completed) or (completed[0] if len(completed) == 1 else None)
    if source is None:
        return f"is blocked: no run of {name_of(candidates[0].run)} has a metric. Name one of them"
    found = source.best_checkpoint if checkpoint == "best" else source.checkpoint
    if found is None:
        which = "checkpoint of its best epoch" if checkpoint == "best" else "checkpoint"
        return f"is blocked: {source.run} is {source.state} and has no {which}"
    return Origin(source.run, found.path, found.sha256, found.step)


def _not_submitted(lacking: int, total: int) -> str:
    return "which has not run yet" if total == 1 else f"{lacking} of its {total} runs are missing"


def unknown_origins(
    specs: Iterable[Keyed], lineage: Lineage, recorded: Collection[RunKey]
) -> list[Problem]:
    """Return a problem for each unknown name in ``init_from`` of a run that is not recorded yet."""
    problems = []
    for desired, keys in specs:
        if not desired.named_at:
            continue
        new = [e for e, k in zip(desired.experiments, keys, strict=True) if k not in recorded]
        names = {name for e in new if (name := init_from_name(e)) is not None}
        problems += unknown_name_problems(desired, names, lineage.names)
    return problems
