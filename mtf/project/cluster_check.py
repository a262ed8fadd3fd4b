"""Checks specs against the partitions and limits of the cluster, and asks SLURM about them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from mtf.core.vocabulary import json_text
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
    """Return the cluster as SLURM (``live``) or else mtf.yaml describes it.

    None if nothing is known, or if runs go to the local executor.
    """
    if settings.executor == "local":
        return None
    if live:
        try:
            if _slurm_answers():
                from mtf.executor.slurm.cluster_query import read_facts

                return read_facts()
        except ExecutorUnavailableError:
            pass  # mtf.yaml is the second best source
    return settings.cluster.facts()


def remarks(
    specs: Iterable[Desired], settings: Settings, facts: ClusterFacts | None
) -> Iterator[Problem]:
    """Yield probable mistakes in specs, and requests that the cluster cannot meet."""
    for spec in specs:
        yield from warnings(spec)
        if facts is not None and _is_on_cluster(spec, settings):
            yield from unmet(spec, facts)


def infeasible(specs: Iterable[Desired], settings: Settings) -> Iterator[Problem]:
    """Yield a problem for each spec that SLURM says it would refuse.

    Each shape of resources is asked for once. Nothing is yielded if SLURM does not answer here.
    """
    if settings.executor == "local" or not _slurm_answers():
        return
    with suppress(ExecutorUnavailableError):
        yield from _refused(spec for spec in specs if _is_on_cluster(spec, settings))


def _slurm_answers() -> bool:
    from mtf.executor.slurm.programs import answers  # late: hooks never ask SLURM

    return answers()


def _refused(specs: Iterable[Desired]) -> Iterator[Problem]:
    from mtf.executor.slurm.cluster_query import refusal_of

    answers: dict[str, str | None] = {}
    for spec in specs:
        for needs in distinct_resources(spec):
            shape = json_text.dumps(needs, sort_keys=True)
            if shape not in answers:
                answers[shape] = refusal_of(needs)
            if answer := answers[shape]:
                position = position_of(spec.places, "slurm")
                yield Problem(*position, f"SLURM would refuse {spec.name}: {answer}")


def _is_on_cluster(spec: Desired, settings: Settings) -> bool:
    return spec.cluster in (None, settings.cluster.name)
