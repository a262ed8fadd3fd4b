"""Advice on what to ask for, from what runs like it have used. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.core.sbatch.section_options import section_demand
from mtf.core.usage.used import CPU_S, MEMORY_MB, RUN_S
from mtf.core.vocabulary.ids import name_of
from mtf.core.vocabulary.states import RunState
from mtf.core.vocabulary.times import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.jobs import Resources
    from mtf.core.vocabulary.records import Attempt, RunRecord

_EVIDENCE = 3  # completed runs of the same spec at least
_TIMES = 3.0  # advise if more than this many times the greatest use is asked for
_LEAST_MB = 2048  # to be saved on each node
_LEAST_S = 3600
_LEAST_CPUS = 2


@dataclass(frozen=True)
class _Amount:
    """A resource: what runs used of it, and what a run asks for."""

    key: str  # of the section ``slurm``
    used: Callable[[Attempt], float | None]
    asked: Callable[[Resources], float | None]
    least: float  # a smaller difference is not worth a word
    text: Callable[[float], str]
    how: str  # how runs used it


def advice(desired: Iterable[Desired], records: Iterable[RunRecord]) -> Iterator[str]:
    """Yield a note for each spec that asks for much more than its completed runs have used.

    A run counts if one attempt trained it from start to end, so that its whole use is known.
    """
    evidence: dict[str, list[Attempt]] = {}
    for record in records:
        if record.state is RunState.COMPLETED and len(record.attempts) == 1:
            evidence.setdefault(name_of(record.run), []).append(record.attempt)
    for spec in desired:
        distinct = {id(e.resources): e.resources for e in spec.experiments}.values()
        for amount in _AMOUNTS:
            if text := _note(amount, evidence.get(spec.name, ()), distinct):
                yield f"{spec.name} {text}"


def _note(amount: _Amount, ended: Iterable[Attempt], asking: Iterable[Resources]) -> str:
    """Return the advice on one resource, empty if there is too little evidence or waste."""
    used = [n for n in map(amount.used, ended) if n is not None]
    asked = [n for n in map(amount.asked, asking) if n is not None]
    if len(used) < _EVIDENCE or not asked:
        return ""
    most, least = max(used), min(asked)
    if least < most * _TIMES or least - most < amount.least:
        return ""
    return (
        f"asks for {amount.text(least)} (slurm.{amount.key}), and {len(used)} completed runs"
        f" {amount.how} {amount.text(most)} at most"
    )


def memory_text(mb: float) -> str:
    """Return an amount of memory as people write it: ``800M``, ``4.1G``."""
    return f"{mb / 1024:.3g}G" if mb >= 1024 else f"{mb:.0f}M"


def cpus_used(used: Mapping[str, float]) -> float | None:
    """Return the number of CPUs that were busy on average, None if it is not known."""
    seconds, span = used.get(CPU_S), used.get(RUN_S)
    return seconds / span if seconds is not None and span else None


def _cpus_asked(needs: Resources) -> float | None:
    return section_demand(needs).cpus


def _time_asked(needs: Resources) -> float | None:
    hours = section_demand(needs).hours
    return None if hours is None else hours * 3600


_AMOUNTS = (
    _Amount(
        "mem",
        lambda a: a.resources.get(MEMORY_MB),
        lambda needs: section_demand(needs).memory_mb,
        _LEAST_MB,
        memory_text,
        "used",
    ),
    _Amount("time", lambda a: a.resources.get(RUN_S), _time_asked, _LEAST_S, duration, "took"),
    _Amount(
        "cpus_per_task",
        lambda a: cpus_used(a.resources),
        _cpus_asked,
        _LEAST_CPUS,
        lambda n: f"{n:.3g} CPUs",
        "kept busy",
    ),
)
