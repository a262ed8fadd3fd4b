"""mtf: a git repository as the control plane for machine-learning experiments on SLURM.

The names in ``__all__`` are the public Python interface. Each is imported when it is first used, so
that ``import mtf`` costs next to nothing, and torch is imported with a name of the trainer only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtf.errors import (
        ConfigurationError,
        ExecutorUnavailableError,
        LockedError,
        MtfError,
        Problem,
        QueueFullError,
        RepositoryError,
        SpecError,
        StorageError,
        SubmissionRefusedError,
        SubmissionUncertainError,
        TrainingError,
    )
    from mtf.framework.config_manager import ConfigurationManager
    from mtf.framework.execution import ExecutionMode
    from mtf.framework.experiment_naming import ExperimentNaming, NamingStrategy
    from mtf.framework.framework import ModelTrainingFramework, SyncResult
    from mtf.framework.git_manager import GitManager, GitOperationLock
    from mtf.framework.grid_search import GridSearchExecutor, GridSearchResult
    from mtf.framework.launcher import BatchSubmissionResult, SBATCHTemplate, SLURMLauncher
    from mtf.framework.parameter_grids import ParameterGrid, ParameterGridSearch
    from mtf.framework.results.run_results import Results, RunResult
    from mtf.framework.results.run_weights import RunCheckpoint
    from mtf.framework.results.scalar_history import History
    from mtf.framework.results.value_table import ValueTable
    from mtf.framework.run_handles import ExperimentResult, Run, Submission
    from mtf.framework.run_list import RunList, load_model
    from mtf.framework.validator import ConfigValidator, ResourceCheck, ValidationResult
    from mtf.spec.schema.experiment_config import ExperimentConfig
    from mtf.spec.schema.sections import (
        DataConfig,
        LoggingConfig,
        ModelConfig,
        OptimizerConfig,
        SchedulerConfig,
        TrainingConfig,
    )
    from mtf.spec.schema.sections import TrainingConfig as GenericTrainerConfig
    from mtf.spec.schema.sections import TrainingConfig as TrainerConfig
    from mtf.spec.schema.slurm_section import SLURMConfig
    from mtf.trainer.compute.rng import RNGState
    from mtf.trainer.context import RunContext
    from mtf.trainer.loop.callbacks import Callback
    from mtf.trainer.loop.phases import Phase as TrainerPhase
    from mtf.trainer.loop.state import ResumeState, TrainMicroState, ValMicroState
    from mtf.trainer.resume.checkpoint_manager import CheckpointManager
    from mtf.trainer.runtime.current_run import current_run
    from mtf.trainer.trainer import GenericTrainer

    __version__: str

__all__ = [
    "BatchSubmissionResult",
    "Callback",
    "CheckpointManager",
    "ConfigValidator",
    "ConfigurationError",
    "ConfigurationManager",
    "DataConfig",
    "ExecutionMode",
    "ExecutorUnavailableError",
    "ExperimentConfig",
    "ExperimentNaming",
    "ExperimentResult",
    "GenericTrainer",
    "GenericTrainerConfig",
    "GitManager",
    "GitOperationLock",
    "GridSearchExecutor",
    "GridSearchResult",
    "History",
    "LockedError",
    "LoggingConfig",
    "ModelConfig",
    "ModelTrainingFramework",
    "MtfError",
    "NamingStrategy",
    "OptimizerConfig",
    "ParameterGrid",
    "ParameterGridSearch",
    "Problem",
    "QueueFullError",
    "RNGState",
    "RepositoryError",
    "ResourceCheck",
    "Results",
    "ResumeState",
    "Run",
    "RunCheckpoint",
    "RunContext",
    "RunList",
    "RunResult",
    "SBATCHTemplate",
    "SLURMConfig",
    "SLURMLauncher",
    "SchedulerConfig",
    "SpecError",
    "StorageError",
    "Submission",
    "SubmissionRefusedError",
    "SubmissionUncertainError",
    "SyncResult",
    "TrainMicroState",
    "TrainerConfig",
    "TrainerPhase",
    "TrainingConfig",
    "TrainingError",
    "ValMicroState",
    "ValidationResult",
    "ValueTable",
    "__version__",
    "current_run",
    "load_model",
]

# The module of each name; those that have another name there are in _ALIASES. tests/test_public.py
# holds this table, the imports above and __all__ together.
_MODULES = {
    "mtf.errors": (
        "ConfigurationError",
        "ExecutorUnavailableError",
        "LockedError",
        "MtfError",
        "Problem",
        "QueueFullError",
        "RepositoryError",
        "SpecError",
        "StorageError",
        "SubmissionRefusedError",
        "SubmissionUncertainError",
        "TrainingError",
    ),
    "mtf.framework.config_manager": ("ConfigurationManager",),
    "mtf.framework.execution": ("ExecutionMode",),
    "mtf.framework.experiment_naming": (
        "ExperimentNaming",
        "NamingStrategy",
    ),
    "mtf.framework.framework": (
        "ModelTrainingFramework",
        "SyncResult",
    ),
    "mtf.framework.git_manager": (
        "GitManager",
        "GitOperationLock",
    ),
    "mtf.framework.grid_search": (
        "GridSearchExecutor",
        "GridSearchResult",
    ),
    "mtf.framework.launcher": (
        "BatchSubmissionResult",
        "SBATCHTemplate",
        "SLURMLauncher",
    ),
    "mtf.framework.parameter_grids": (
        "ParameterGrid",
        "ParameterGridSearch",
    ),
    "mtf.framework.run_handles": (
        "ExperimentResult",
        "Run",
        "Submission",
    ),
    "mtf.framework.results.run_results": (
        "Results",
        "RunResult",
    ),
    "mtf.framework.results.run_weights": ("RunCheckpoint",),
    "mtf.framework.results.scalar_history": ("History",),
    "mtf.framework.results.value_table": ("ValueTable",),
    "mtf.framework.run_list": (
        "RunList",
        "load_model",
    ),
    "mtf.framework.validator": (
        "ConfigValidator",
        "ResourceCheck",
        "ValidationResult",
    ),
    "mtf.spec.schema.experiment_config": ("ExperimentConfig",),
    "mtf.spec.schema.sections": (
        "DataConfig",
        "GenericTrainerConfig",
        "LoggingConfig",
        "ModelConfig",
        "OptimizerConfig",
        "SchedulerConfig",
        "TrainerConfig",
        "TrainingConfig",
    ),
    "mtf.spec.schema.slurm_section": ("SLURMConfig",),
    "mtf.trainer.context": ("RunContext",),
    "mtf.trainer.loop.callbacks": ("Callback",),
    "mtf.trainer.compute.rng": ("RNGState",),
    "mtf.trainer.loop.phases": ("TrainerPhase",),
    "mtf.trainer.loop.state": (
        "ResumeState",
        "TrainMicroState",
        "ValMicroState",
    ),
    "mtf.trainer.resume.checkpoint_manager": ("CheckpointManager",),
    "mtf.trainer.runtime.current_run": ("current_run",),
    "mtf.trainer.trainer": ("GenericTrainer",),
}
_ALIASES = {
    "TrainerPhase": "Phase",
    "GenericTrainerConfig": "TrainingConfig",
    "TrainerConfig": "TrainingConfig",
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used. Source: PEP 562."""
    import importlib

    if name == "__version__":
        from importlib.metadata import version

        value: Any = version(importlib.import_module("mtf.distribution").DISTRIBUTION)
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), _ALIASES.get(name, name))
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next use finds it there
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
