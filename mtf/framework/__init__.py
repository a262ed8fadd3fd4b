"""The Python interface: the same commands as objects, no second implementation."""

from mtf.framework.framework import ModelTrainingFramework, ParameterGrid, Run, Submission
from mtf.framework.validator import ConfigValidator, ResourceCheck, ValidationResult

__all__ = [
    "ConfigValidator",
    "ModelTrainingFramework",
    "ParameterGrid",
    "ResourceCheck",
    "Run",
    "Submission",
    "ValidationResult",
]
