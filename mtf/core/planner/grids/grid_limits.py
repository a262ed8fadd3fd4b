"""What keeps a spec's runs from being submitted or started at once: limits, policies, clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.core.planner.grids.throttles import throttle_actions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from mtf.core.planner.grids.throttles import LiveArray
    from mtf.core.vocabulary.actions import Throttle
    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.ids import RunKey
    from mtf.core.vocabulary.records import RunRecord
    from mtf.errors import Problem

    Keyed = tuple[Desired, tuple[RunKey, ...]]


def is_ours(desired: Desired, cluster: str) -> bool:
    """Return True if the controller of a cluster serves a spec."""
    return desired.cluster in (None, cluster)


def of_others(
    specs: Iterable[Keyed], recorded: Collection[RunKey], cluster: str
) -> dict[tuple[str, str | None], int]:
    """Return the number of unrecorded runs by spec and cluster, for clusters served by others."""
    counts = {
        (desired.name, desired.cluster): sum(key not in recorded for key in keys)
        for desired, keys in specs
        if not is_ours(desired, cluster)
    }
    return {spec: n for spec, n in counts.items() if n}


def refused_runs(
    specs: Iterable[Keyed], recorded: Collection[RunKey], cluster: str, refused: Collection[str]
) -> dict[str, int]:
    """Return the number of unrecorded runs of each spec that breaks a policy, by its name."""
    counts = {
        desired.name: sum(key not in recorded for key in keys)
        for desired, keys in specs
        if desired.name in refused and is_ours(desired, cluster)
    }
    return {name: runs for name, runs in counts.items() if runs}


def left_out_notes(
    refused: Mapping[str, int],
    problems: Mapping[str, tuple[Problem, ...]],
    others: Mapping[tuple[str, str | None], int],
) -> list[str]:
    """Return a note for each spec that breaks policies, and for each of another cluster."""
    notes = [
        f"{name}: {runs} of its runs are not submitted: {problem}"
        for name, runs in refused.items()
        for problem in problems[name]
    ]
    return notes + [
        f"{name}: {n} of its runs wait for the controller of cluster {cluster}"
        for (name, cluster), n in others.items()
    ]


def throttles(
    arrays: Mapping[str, Sequence[LiveArray]],
    specs: Iterable[Keyed],
    records: Iterable[RunRecord],
    cluster: str,
) -> list[Throttle]:
    """Return the actions that make ``max_parallel`` hold for the jobs that exist."""
    limits = {d.name: d.max_parallel for d, _ in specs if is_ours(d, cluster)}
    of_grid = {r.grid: r for r in records if r.grid and not r.is_over}
    return throttle_actions(arrays, limits, of_grid)
