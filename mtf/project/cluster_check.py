"""What is known of the cluster here, and what that and good sense say of specs before they run."""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from typing import TYPE_CHECKING

from mtf.errors import ExecutorUnavailableError, Problem
from mtf.spec.lint.cluster_fit import distinct_resources, unmet
from mtf.spec.lint.key_positions import position_of
from mtf.spec.lint.plausibility import warnings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mtf.core.vocabulary.cluster import ClusterFacts
    from mtf.core.vocabulary.experiments import Desired
    from mtf.spec.schema.settings import Settings


def known_facts(settings: Settings, *, live: bool) -> ClusterFacts | None:
    """Return what SLURM says now, where it is asked and answers, else what is written down.

    None: nothing is known, or nothing goes to a cluster.
    """
    if settings.executor == "local":
        return None
    if live:
        from mtf.executor.slurm.programs import answers

        try:
            if answers():
                from mtf.executor.slurm.cluster_query import read_facts

                return read_facts()
        except ExecutorUnavailableError:
            pass  # what is written down is the second best
    return settings.cluster.facts()


def remarks(
    specs: Iterable[Desired], settings: Settings, facts: ClusterFacts | None
) -> Iterator[Problem]:
    """Yield what is hardly meant in specs, and what the cluster cannot give them."""
    for one in specs:
        yield from warnings(one)
        if facts is not None and _is_here(one, settings):
            yield from unmet(one, facts)


def infeasible(specs: Iterable[Desired], settings: Settings) -> Iterator[Problem]:
    """Yield what SLURM itself says it would refuse, asked once for each shape of resources.

    Nothing, where this host has no SLURM or it does not answer now.
    """
    from mtf.executor.slurm.programs import answers

    if settings.executor == "local" or not answers():
        return
    with suppress(ExecutorUnavailableError):
        yield from _refused(one for one in specs if _is_here(one, settings))


def _refused(here: Iterable[Desired]) -> Iterator[Problem]:
    from mtf.executor.slurm.cluster_query import refusal_of

    answers: dict[str, str | None] = {}
    for one, needs in itertools.chain.from_iterable(
        ((d, s) for s in distinct_resources(d)) for d in here
    ):
        shape = json.dumps(needs, sort_keys=True)
        if shape not in answers:
            answers[shape] = refusal_of(needs)
        if answer := answers[shape]:
            yield Problem(
                *position_of(one.places, "slurm"), f"SLURM would refuse {one.name}: {answer}"
            )


def _is_here(one: Desired, settings: Settings) -> bool:
    return one.cluster in (None, settings.cluster.name)
