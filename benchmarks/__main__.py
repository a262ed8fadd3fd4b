"""`python -m benchmarks [NAME...]`: print each figure in seconds and as a ratio to its floor.

A figure's floor is the least that any program would need for the same work. The parts of the
trainer's figure have names of their own: `python -m benchmarks trainer startup`.
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


def selected(names: Sequence[str]) -> list[Callable[[], None]]:
    """Return the figures of some names, or of all; a figure's name may be followed by its parts.

    Raises:
        SystemExit: a name is unknown.
    """
    figures: list[Callable[[], None]] = []
    left = list(names) or list(FIGURES)
    while left:
        name = left.pop(0)
        if name not in FIGURES:
            sys.exit(f"no figure {name!r}. Figures: {', '.join(FIGURES)}")
        parts = PARTS.get(name, {})
        wanted = list(itertools.takewhile(parts.__contains__, left))
        figures += [parts[part] for part in wanted] or [FIGURES[name]]
        left = left[len(wanted) :]
    return figures


for figure in selected(sys.argv[1:]):
    figure()
