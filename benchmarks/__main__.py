"""Prints each figure as seconds and as a ratio to its floor. `python -m benchmarks [NAME...]`."""

from __future__ import annotations

import sys

from benchmarks import commands, hooks, review, saving, submit, trainer, validate

FIGURES = {
    "commands": commands.main,
    "submit": submit.main,
    "trainer": trainer.main,
    "saving": saving.main,
    "review": review.main,
    "validate": validate.main,
    "hooks": hooks.main,
}

for name in sys.argv[1:] or FIGURES:
    FIGURES[name]()
