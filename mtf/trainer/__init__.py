"""Training inside a job: the loop, checkpoints, data, metrics. Knows neither git nor SLURM.

``GenericTrainer``, ``RunContext`` and ``Callback`` are the public names. They are imported at first
use, so that a job handles signals before torch is imported.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtf.trainer.context import RunContext
    from mtf.trainer.loop.callbacks import Callback
    from mtf.trainer.trainer import GenericTrainer

__all__ = ["Callback", "GenericTrainer", "RunContext"]

_MODULES = {
    "Callback": "mtf.trainer.loop.callbacks",
    "GenericTrainer": "mtf.trainer.trainer",
    "RunContext": "mtf.trainer.context",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
