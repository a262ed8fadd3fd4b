"""The names in ``init_from``: what they may refer to, and mistakes in them. Pure."""

from __future__ import annotations

from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from mtf.core.vocabulary.ids import label_of
from mtf.core.vocabulary.spelling import nearest
from mtf.errors import Problem

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from mtf.core.vocabulary.experiments import Desired, Experiment


def names_of(grid: str | None, experiment: str) -> set[str]:
    """Return the names of a run in ``init_from``, except its id."""
    if grid is None:
        return {experiment}
    return {grid, f"{grid}/{experiment}", label_of(grid, experiment)}


def asked_of(experiment: Experiment) -> str | None:
    """Return the name in an experiment's ``init_from``, None if it has none."""
    asked = experiment.config.get("init_from")
    return asked["run"] if asked else None


def unknown(name: str, known: Iterable[str]) -> str:
    """Return the message for a name of no run or spec."""
    near = nearest(name, known)
    hint = f"Did you mean {near!r}?" if near else "mtf status lists the runs"
    return f"init_from: no run or spec is called {name!r}. {hint}"


def names_of_desired(desired: Iterable[Desired]) -> set[str]:
    """Return the names of all runs of these specs in ``init_from``."""
    return {
        name for one in desired for e in one.experiments for name in names_of(e.grid, e.name)
    } | {one.name for one in desired}


def not_among(desired: Desired, asked: Iterable[str], known: Collection[str]) -> list[Problem]:
    """Return a problem for each unknown name in a spec's ``init_from``, at its position."""
    return [
        Problem(*desired.named_at[name], unknown(name, known))
        for name in sorted(asked)
        if name not in known and name in desired.named_at
    ]


def cycles(desired: Iterable[Desired]) -> list[Problem]:
    """Return a problem for each spec that, by ``init_from``, waits for itself."""
    places: dict[str, tuple[str, int, int]] = {}
    waits: defaultdict[str, set[str]] = defaultdict(set)  # runs wait for names, names for runs
    for one in (one for one in desired if one.named_at):
        for e in one.experiments:
            if (name := asked_of(e)) is not None and name in one.named_at:
                run = _RUN + label_of(e.grid, e.name)
                places[run] = one.named_at[name]
                waits[run].add(name)
    for one in desired if waits else ():
        for e in one.experiments:
            for name in names_of(e.grid, e.name):
                waits[name].add(_RUN + label_of(e.grid, e.name))
    problems: list[Problem] = []
    while cycle := _find_cycle(waits):
        problems += _problems_of(cycle, places)
        for run in cycle:
            waits.pop(run, None)
    return problems


_RUN = "\0"  # prefix of a run's node, which no name has


def _find_cycle(waits: Mapping[str, set[str]]) -> list[str]:
    """Return runs of which each waits for the next and the last for the first; [] if none do."""
    try:
        TopologicalSorter(waits).prepare()
    except CycleError as e:
        # each node comes before the one that waits for it; the last repeats the first
        return [node for node in e.args[1][:0:-1] if node.startswith(_RUN)]
    return []


def _problems_of(cycle: list[str], places: Mapping[str, tuple[str, int, int]]) -> Iterable[Problem]:
    for i, run in enumerate(cycle):
        around = (node.removeprefix(_RUN) for node in (*cycle[i:], *cycle[: i + 1]))
        words = " waits for ".join(around)
        yield Problem(*places[run], f"init_from: {words}, so none of them can start")
