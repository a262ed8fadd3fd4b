"""The Python interface of mtf: the same commands as objects. Its names are offered by `mtf`.

A program writes ``from mtf import ModelTrainingFramework``; ``from mtf.framework import ...`` finds
the same names.
"""

from __future__ import annotations

import sys
from typing import Any


def __getattr__(name: str) -> Any:
    mtf = sys.modules["mtf"]  # which imports a public name when it is first used
    if name in mtf.__all__:
        return getattr(mtf, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
