"""Chooses where trainings are interrupted: at each phase, at moments, and in chains."""

from __future__ import annotations

import itertools
import random
import signal
from typing import TYPE_CHECKING

from mtf.trainer.loop.phases import Phase
from mtf.trainer.verify.trial_process import Interruption

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_MOMENTS = (0.25, 0.5, 0.75)  # parts of a training without phases


def interruptions(
    phases: Mapping[str, int], wanted: Sequence[str], *, often: bool
) -> dict[str, list[Interruption]]:
    """Return the interruptions of each phase: stop signals and kills, early, midway and late.

    Args:
        phases: the number of times that each phase occurs in the whole training.
        wanted: phases to interrupt; empty for all.
        often: interrupt each phase twice by a stop signal and twice by a kill, instead of once.
    """
    stop_signals = itertools.cycle(STOP_SIGNALS)
    chosen = {}
    for phase in Phase:
        total = phases.get(phase, 0)
        if not total or (wanted and phase not in wanted):
            continue
        half = total // 2 + 1
        places = [(next(stop_signals), half, False), (signal.SIGKILL, half, True)]
        if often:
            places += [(next(stop_signals), 1, True), (signal.SIGKILL, total, True)]
        unique = {(signum == signal.SIGKILL, nth, after): signum for signum, nth, after in places}
        chosen[str(phase)] = [
            Interruption(signum, phase, nth, after) for (_, nth, after), signum in unique.items()
        ]
    return chosen


def at_moments(seconds: float) -> list[Interruption]:
    """Return the interruptions of a training without phases (a custom loop), by elapsed time."""
    return [
        Interruption(signum, delay_s=seconds * part)
        for part in _MOMENTS
        for signum in (signal.SIGUSR1, signal.SIGKILL)
    ]


def chain(phases: Mapping[str, int], stops: int) -> list[Interruption]:
    """Return interruptions to follow one another, at random places that are always the same."""
    draw = random.Random(0)  # noqa: S311 -- must repeat
    frequent = [phase for phase, total in phases.items() if total > 2]
    signals = (*STOP_SIGNALS, signal.SIGKILL)
    return [
        Interruption(
            draw.choice(signals), draw.choice(frequent), draw.randint(1, 3), draw.random() < 0.5
        )
        for _ in range(stops if frequent else 0)
    ]
