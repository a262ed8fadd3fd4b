"""The names in ``init_from``: the runs that they may refer to, and mistakes in them. Pure."""

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


def init_from_name(experiment: Experiment) -> str | None:
    """Return the name in an experiment's ``init_from``, None if it has none."""
    init_from = experiment.config.get("init_from")
    return init_from["run"] if init_from else None


def unknown_message(name: str, known: Iterable[str]) -> str:
    """Return the message for a name that no run or spec has."""
    near = nearest(name, known)
    hint = f"Did you mean {near!r}?" if near else "mtf status lists the runs"
    return f"init_from: no run or spec is called {name!r}. {hint}"


def names_of_specs(specs: Iterable[Desired]) -> set[str]:
    """Return all names that the runs of these specs have in ``init_from``."""
    return {
        name for spec in specs for e in spec.experiments for name in names_of(e.grid, e.name)
    } | {spec.name for spec in specs}


def unknown_name_problems(
    spec: Desired, names: Iterable[str], known: Collection[str]
) -> list[Problem]:
    """Return a problem for each of the names in a spec's ``init_from`` that is not known."""
    return [
        Problem(*spec.named_at[name], unknown_message(name, known))
        for name in sorted(names)
        if name not in known and name in spec.named_at
    ]


def cycles(specs: Iterable[Desired]) -> list[Problem]:
    """Return a problem for each spec whose ``init_from`` makes it wait for itself."""
    places: dict[str, tuple[str, int, int]] = {}
    waits: defaultdict[str, set[str]] = defaultdict(set)  # runs wait for names, names for runs
    for spec in (spec for spec in specs if spec.named_at):
        for e in spec.experiments:
            if (name := init_from_name(e)) is not None and name in spec.named_at:
                run = _RUN + label_of(e.grid, e.name)
                places[run] = spec.named_at[name]
                waits[run].add(name)
    for spec in specs if waits else ():
        for e in spec.experiments:
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
    """Return the runs of one cycle, in which each waits for the next; [] if there is none."""
    try:
        TopologicalSorter(waits).prepare()
    except CycleError as e:
        # each node comes before the one that waits for it; the last repeats the first
        return [node for node in e.args[1][:0:-1] if node.startswith(_RUN)]
    return []


def _problems_of(cycle: list[str], places: Mapping[str, tuple[str, int, int]]) -> Iterable[Problem]:
    for i, run in enumerate(cycle):
        labels = (node.removeprefix(_RUN) for node in (*cycle[i:], *cycle[: i + 1]))
        chain = " waits for ".join(labels)
        yield Problem(*places[run], f"init_from: {chain}, so none of them can start")
