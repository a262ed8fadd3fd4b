"""Import and build Lightning Fabric: devices, precision, ranks and threads."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
import warnings
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from mtf.errors import MtfError
from mtf.trainer.runtime.console import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtf.spec.schema.run_config import ExperimentConfig


class _Unexecuted(ModuleType):
    """A package whose ``__init__`` runs when an attribute that it lacks is first read."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self.__spec__ is None or self.__spec__.loader is None:
            raise AttributeError(name)
        if (part := sys.modules.get(f"{self.__name__}.{name}")) is not None:
            return part  # it is being imported
        object.__setattr__(self, "__class__", ModuleType)
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def _import_lazily(name: str) -> None:
    spec = importlib.util.find_spec(name)
    if name in sys.modules or spec is None:
        return
    module = importlib.util.module_from_spec(spec)
    module.__class__ = _Unexecuted
    sys.modules[name] = module


@contextmanager
def _fabric_alone() -> Iterator[None]:
    """Import ``lightning.fabric`` alone, which saves 1.0 s.

    ``lightning/__init__`` imports the whole Trainer, and Fabric imports all of torchmetrics, with
    scipy, only to read its version.
    """
    is_new = "torchmetrics" not in sys.modules
    _import_lazily("lightning")
    if is_new and importlib.util.find_spec("torchmetrics"):
        stand_in = ModuleType("torchmetrics")
        stand_in.__version__ = importlib.metadata.version("torchmetrics")  # type: ignore[attr-defined]
        sys.modules["torchmetrics"] = stand_in
    try:
        yield
    finally:
        if is_new:
            sys.modules.pop("torchmetrics", None)


with _fabric_alone():
    from lightning.fabric import Fabric
    from lightning.fabric.wrappers import _FabricModule as FabricModule
    from lightning.fabric.wrappers import _FabricOptimizer as FabricOptimizer

__all__ = ["Fabric", "FabricModule", "FabricOptimizer", "build_fabric", "set_threads"]


def build_fabric(config: ExperimentConfig, env: Mapping[str, str]) -> Fabric:
    """Return Fabric, launched, for the available devices and ranks.

    The number of processes is the one that SLURM or the local executor started, else one. Mixed
    precision is used on CUDA only.

    Args:
        config: has the nodes and tasks in its section ``slurm``.
        env: the job's environment.

    Raises:
        MtfError: srun has started several processes, and the configuration says another number.
    """
    set_threads(env)
    _check_started(config, env)
    tasks = _processes(env)
    if tasks > 1 and config.slurm.nodes == 1:
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    with warnings.catch_warnings():
        # Fabric recommends srun where the local executor runs on a machine that has it
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        fabric = Fabric(
            accelerator="auto",
            devices=config.slurm.ntasks_per_node if tasks > 1 else 1,
            num_nodes=config.slurm.nodes if tasks > 1 else 1,
            strategy=_strategy(config, tasks),
            precision=_precision(config),
        )
        fabric.launch()
    return fabric


def _processes(env: Mapping[str, str]) -> int:
    """Return the number of processes that were started for this training."""
    if "SLURM_PROCID" in env:
        return int(env.get("SLURM_NTASKS", "1"))
    is_rank = env.get("MTF_EXECUTOR") == "local" and "LOCAL_RANK" in env
    return int(env.get("WORLD_SIZE", "1")) if is_rank else 1


def _check_started(config: ExperimentConfig, env: Mapping[str, str]) -> None:
    """Refuse processes that would each train alone, and write into the same run folder.

    Raises:
        MtfError: srun has started several, and the configuration says another number.
    """
    started = int(env.get("SLURM_STEP_NUM_TASKS") or 1)
    nodes, per_node = config.slurm.nodes, config.slurm.ntasks_per_node
    if started > 1 and started != nodes * per_node:
        raise MtfError(
            f"slurm.ntasks_per_node: srun has started {started} processes, and {nodes} x"
            f" {per_node} (slurm.nodes x slurm.ntasks_per_node) were expected: set these two keys,"
            " and remove options such as --ntasks from slurm.extra"
        )


def set_threads(env: Mapping[str, str]) -> None:
    """Use as many CPU threads as the environment names, if it names a number."""
    cpus = env.get("SLURM_CPUS_PER_TASK") or env.get("MTF_CPUS")
    if cpus and cpus.isdigit() and int(cpus) > 0:
        torch.set_num_threads(int(cpus))


def _strategy(config: ExperimentConfig, tasks: int) -> str:
    finds = tasks > 1 and config.training.find_unused_parameters
    return "ddp_find_unused_parameters_true" if finds else "auto"


def _precision(config: ExperimentConfig) -> Any:
    if not config.training.use_amp:
        return "32-true"
    if not torch.cuda.is_available():
        say("training.use_amp: no CUDA device found: training uses 32-bit floats")
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
