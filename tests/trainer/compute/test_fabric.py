"""Fabric is imported without the rest of Lightning, which can still be imported later."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mtf.errors import MtfError
from mtf.trainer.compute.fabric import build_fabric, set_threads
from mtf.trainer.job.run_job import read_config
from tests.trainer.runs import ROOT, make_run

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import sys
import mtf.trainer.job.run_job
assert "torch" not in sys.modules
from mtf.trainer import GenericTrainer
assert "lightning.pytorch" not in sys.modules and "torchmetrics" not in sys.modules
assert "wandb" not in sys.modules and "sklearn" not in sys.modules
import lightning
from lightning import Trainer
import torchmetrics
assert lightning.Fabric is sys.modules["mtf.trainer.compute.fabric"].Fabric
assert torchmetrics.Metric
try:
    lightning.no_such_thing
except AttributeError:
    print("whole")
"""


def test_fabric_is_imported_without_the_rest_of_lightning() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout == "whole\n", done.stderr


def test_mixed_precision_without_cuda_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read_config(make_run(tmp_path, training={"use_amp": True}))
    fabric = build_fabric(config, {})
    if not torch.cuda.is_available():
        assert fabric.strategy.precision.precision == "32-true"
        assert "training.use_amp: no CUDA device found" in capsys.readouterr().err


def test_a_job_of_one_task_on_each_of_two_nodes_launches_two_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = read_config(make_run(tmp_path, slurm={"nodes": 2, "ntasks_per_node": 1}))
    launched = fake_fabric(monkeypatch)
    build_fabric(config, {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"})
    build_fabric(config, {"SLURM_NTASKS": "2"})  # not under srun: one process
    assert [(made["num_nodes"], made["devices"]) for made in launched] == [(2, 1), (1, 1)]


def fake_fabric(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Replace Fabric by a fake, since a second node cannot be had here; return what it is given."""
    made: list[dict[str, Any]] = []

    class FakeFabric:
        def __init__(self, **given: Any) -> None:
            made.append(given)

        def launch(self) -> None: ...

    monkeypatch.setattr("mtf.trainer.compute.fabric.Fabric", FakeFabric)
    return made


def test_threads_are_those_the_job_was_given(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        set_threads({"SLURM_CPUS_PER_TASK": "2", "MTF_CPUS": "1"})
        assert torch.get_num_threads() == 2
        set_threads({"MTF_CPUS": "1"})
        assert torch.get_num_threads() == 1
        set_threads({})
        assert torch.get_num_threads() == 1
        build_fabric(read_config(make_run(tmp_path)), {"MTF_CPUS": "2"})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_processes_that_the_spec_does_not_name_are_refused(tmp_path: Path) -> None:
    """Each of them would train alone, and all would write into the same run folder."""
    config = read_config(make_run(tmp_path))
    srun = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}
    with pytest.raises(MtfError, match=r"srun has started 2 processes, and 1 x 1 .* expected"):
        build_fabric(config, srun)
