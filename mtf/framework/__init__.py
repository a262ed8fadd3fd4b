"""The Python interface of mtf: the same commands as objects."""

from mtf.framework.framework import (
    ModelTrainingFramework,
    ParameterGrid,
    Run,
    Submission,
    SyncResult,
)
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
