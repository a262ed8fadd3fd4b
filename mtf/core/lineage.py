"""Which run's checkpoint another run begins from: ``init_from`` against what is recorded. Pure."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

from mtf.core.records import Origin, best_run
from mtf.core.states import RunState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from mtf.core.experiments import Desired
    from mtf.core.records import RunRecord


def origin_of(
    asked: Mapping[str, Any], records: Iterable[RunRecord], to_come: Collection[str]
) -> Origin | str:
    """Return the checkpoint that a run is to begin from, or what it waits for, in words.

    A run's own name means its newest submission. A grid's name means the best of its completed
    members, once all of them are over.

    Args:
        asked: the section ``init_from``.
        records: of all runs.
        to_come: names of what is committed, see ``names_of_desired``.
    """
    name, records = asked["run"], list(records)
    named = [r for r in records if name in _names(r)]
    if not named:
        return _not_there(name, records, to_come)
    newest = max(_submitted(r) for r in named)
    candidates = [r for r in named if _submitted(r) == newest]
    if active := [r for r in candidates if not r.is_over]:
        return f"waits for {active[0].run} ({active[0].state})"
    completed = [r for r in candidates if r.state is RunState.COMPLETED]
    source = best_run(completed) or (completed[0] if completed else None)
    if source is None:
        run = candidates[0]
        return f"waits for {run.run}, which is {run.state}: mtf retry {run.run}"
    best = asked["checkpoint"] == "best"
    checkpoint = source.best_checkpoint if best else source.checkpoint
    if checkpoint is None:
        return f"waits for {source.run}, which has no {'best ' if best else ''}checkpoint"
    return Origin(source.run, checkpoint.path, checkpoint.sha256, checkpoint.step)


def names_of_desired(desired: Iterable[Desired]) -> set[str]:
    """Return what ``init_from`` may call the runs of specs: names, and ``grid/member``."""
    names = set()
    for one in desired:
        names.add(one.name)
        names |= set(_members(one))
    return names


def circles(desired: Iterable[Desired]) -> dict[str, tuple[str, ...]]:
    """Return the specs that, by ``init_from``, wait for themselves, each with the way around."""
    desired = list(desired)
    by_name = {name: one.name for one in desired for name in (one.name, *_members(one))}
    waits = {
        one.name: {
            by_name[asked["run"]]
            for e in one.experiments
            if (asked := e.config.get("init_from")) and asked["run"] in by_name
        }
        for one in desired
    }
    found = {name: _way_back(name, name, waits, ()) for name in waits}
    return {name: way for name, way in found.items() if way}


def _way_back(
    at: str, to: str, waits: Mapping[str, set[str]], way: tuple[str, ...]
) -> tuple[str, ...]:
    if to in waits[at]:
        return (*way, at, to)
    for following in sorted(waits[at] - {*way, at}):
        if found := _way_back(following, to, waits, (*way, at)):
            return found
    return ()


def _members(desired: Desired) -> Iterable[str]:
    return (f"{desired.name}/{e.name}" for e in desired.experiments if e.grid is not None)


def _names(record: RunRecord) -> tuple[str, ...]:
    if record.grid is None:
        return record.run, record.experiment
    return record.run, record.grid, f"{record.grid}/{record.experiment}", record.label


def _submitted(record: RunRecord) -> str:
    return record.run.split("/")[1]


def _not_there(name: str, records: Iterable[RunRecord], to_come: Collection[str]) -> str:
    if name in to_come:
        return f"waits for {name}, which has not run yet"
    known = {*to_come, *(known for r in records for known in _names(r))}
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f". Did you mean {near[0]}?" if near else ": mtf status lists the runs"
    return f"has init_from: {name}, and no run or spec is called so{hint}"
