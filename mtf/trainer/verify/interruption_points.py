"""Where trainings are interrupted: at phases, at moments, and again and again."""

from __future__ import annotations

import itertools
import random
import signal
from typing import TYPE_CHECKING

from mtf.trainer.loop.phases import Phase
from mtf.trainer.verify.trials import Interruption

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SOFT = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
_MOMENTS = (0.25, 0.5, 0.75)  # of a training without phases


def interruptions(
    phases: Mapping[str, int], wanted: Sequence[str], *, often: bool
) -> dict[str, list[Interruption]]:
    """Return where to interrupt, by phase: soft stops and kills, early, in the middle and late.

    Args:
        phases: how often each phase comes in the whole training.
        wanted: phases; none: all.
        often: whether each phase gets two of each kind, or one.
    """
    soft = itertools.cycle(SOFT)
    chosen = {}
    for phase in Phase:
        total = phases.get(phase, 0)
        if not total or (wanted and phase not in wanted):
            continue
        half = total // 2 + 1
        places = [(next(soft), half, False), (signal.SIGKILL, half, True)]
        if often:
            places += [(next(soft), 1, True), (signal.SIGKILL, total, True)]
        once = {(signum == signal.SIGKILL, nth, after): signum for signum, nth, after in places}
        chosen[str(phase)] = [
            Interruption(signum, phase, nth, after) for (_, nth, after), signum in once.items()
        ]
    return chosen


def at_moments(seconds: float) -> list[Interruption]:
    """Return when to interrupt a training that has no phases: a loop of the user's own."""
    return [
        Interruption(signum, delay_s=seconds * part)
        for part in _MOMENTS
        for signum in (signal.SIGUSR1, signal.SIGKILL)
    ]


def chain(phases: Mapping[str, int], stops: int) -> list[Interruption]:
    """Return interruptions to suffer one after the other, at places drawn once and for all."""
    draw = random.Random(0)  # noqa: S311 -- to be drawn again alike
    often = [phase for phase, total in phases.items() if total > 2]
    signals = (*SOFT, signal.SIGKILL)
    return [
        Interruption(
            draw.choice(signals), draw.choice(often), draw.randint(1, 3), draw.random() < 0.5
        )
        for _ in range(stops if often else 0)
    ]
