"""The Python interface of mtf: the same commands as objects. Its names are offered by `mtf`.

A program writes ``from mtf import ModelTrainingFramework``; ``from mtf.framework import ...`` finds
the same names.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtf.framework.framework import ModelTrainingFramework, SyncResult
    from mtf.framework.parameter_grids import ParameterGrid
    from mtf.framework.run_handles import Run, Submission
    from mtf.framework.validator import ConfigValidator, ResourceCheck, ValidationResult

__all__ = [
    "ConfigValidator",
    "ModelTrainingFramework",
    "ParameterGrid",
    "ResourceCheck",
    "Run",
    "Submission",
    "SyncResult",
    "ValidationResult",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(sys.modules["mtf"], name)  # imports the name's module when first used
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
