"""Prints each figure as seconds and as a ratio to its floor. `python -m benchmarks [NAME...]`.

The parts of the trainer's figure have names of their own: `python -m benchmarks trainer startup`.
"""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING

from benchmarks import commands, hooks, review, saving, submit, trainer, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FIGURES = {
    "commands": commands.main,
    "submit": submit.main,
    "trainer": trainer.main,
    "saving": saving.main,
    "review": review.main,
    "validate": validate.main,
    "hooks": hooks.main,
}
PARTS = {"trainer": trainer.PARTS}


def chosen(words: Sequence[str]) -> list[Callable[[], None]]:
    """Return what words ask for: figures, each alone or followed by some of its parts."""
    asked: list[Callable[[], None]] = []
    left = list(words) or list(FIGURES)
    while left:
        name = left.pop(0)
        parts = PARTS.get(name, {})
        some = list(itertools.takewhile(parts.__contains__, left))
        asked += [parts[part] for part in some] or [FIGURES[name]]
        left = left[len(some) :]
    return asked


for figure in chosen(sys.argv[1:]):
    figure()
