"""What specs say of the runs they begin from, and what is wrong with that on its own. Pure."""

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
    """Return what ``init_from`` may call a run, but for its id."""
    if grid is None:
        return {experiment}
    return {grid, f"{grid}/{experiment}", label_of(grid, experiment)}


def asked_of(experiment: Experiment) -> str | None:
    """Return the name of the run that an experiment begins from."""
    asked = experiment.config.get("init_from")
    return asked["run"] if asked else None


def unknown(name: str, known: Iterable[str]) -> str:
    """Return the message for a name that nothing has."""
    near = nearest(name, known)
    hint = f". Did you mean {near!r}?" if near else ": mtf status lists the runs"
    return f"init_from: {name}, and no run or spec is called so{hint}"


def names_of_desired(desired: Iterable[Desired]) -> set[str]:
    """Return what ``init_from`` may call the runs of specs."""
    return {
        name for one in desired for e in one.experiments for name in names_of(e.grid, e.name)
    } | {one.name for one in desired}


def not_among(desired: Desired, asked: Iterable[str], known: Collection[str]) -> list[Problem]:
    """Return a problem at each of these names of a spec's ``init_from`` that is not known."""
    return [
        Problem(*desired.named_at[name], unknown(name, known))
        for name in sorted(asked)
        if name not in known and name in desired.named_at
    ]


def circles(desired: Iterable[Desired]) -> list[Problem]:
    """Return a problem in each spec that, by ``init_from``, waits for itself."""
    places: dict[str, tuple[str, int, int]] = {}
    waits: defaultdict[str, set[str]] = defaultdict(set)  # of a run and of a name, for the other
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
    while way := _way_round(waits):
        problems += _told(way, places)
        for run in way:
            waits.pop(run, None)
    return problems


_RUN = "\0"  # before a run, to tell it from the names that it goes by


def _way_round(waits: Mapping[str, set[str]]) -> list[str]:
    """Return runs of which each waits for the next, and the last for the first; [] for none."""
    try:
        TopologicalSorter(waits).prepare()
    except CycleError as e:
        # each stands before what waits for it, the last is the first again
        return [node for node in e.args[1][:0:-1] if node.startswith(_RUN)]
    return []


def _told(way: list[str], places: Mapping[str, tuple[str, int, int]]) -> Iterable[Problem]:
    for i, run in enumerate(way):
        around = (one.removeprefix(_RUN) for one in (*way[i:], *way[: i + 1]))
        words = " waits for ".join(around)
        yield Problem(*places[run], f"init_from: {words}, and so none of them can begin")
