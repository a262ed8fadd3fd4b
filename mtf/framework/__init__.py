"""The Python interface: the same commands as objects, no second implementation."""

from mtf.framework.framework import ModelTrainingFramework, ParameterGrid, Run, Submission

__all__ = ["ModelTrainingFramework", "ParameterGrid", "Run", "Submission"]
