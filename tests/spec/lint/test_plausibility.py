"""Warnings about values that are probably unintended, and none about other values."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtf.spec.lint.plausibility import warnings
from mtf.spec.load import load_specs
from mtf.spec.schema.settings import Settings
from tests.spec.samples import BASE, EXPERIMENT, STAMP, load

ROOT = Path(__file__).parents[3]


def found(**texts: str) -> list[str]:
    loaded = load(**texts)
    assert not loaded.problems, "\n".join(map(str, loaded.problems))
    found = sorted(problem for one in loaded.desired for problem in warnings(one))
    assert all(not problem.is_error for problem in found)
    return [str(p).removeprefix("experiments/").replace("warning: ", "") for p in found]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("data: {dataset_name: d, num_workers: 8}\nslurm: {cpus_per_task: 2}", "4:38: data.num_workers: "
         "8 processes load data on 2 CPUs. Write slurm.cpus_per_task: 8, or use fewer workers"),
        ("data: {dataset_name: d}\nslurm: {cpus_per_task: 2}", "4:7: data.num_workers: 4 processes "
         "load data on 2 CPUs. Write slurm.cpus_per_task: 4, or use fewer workers"),
        ("data: {dataset_name: digits}\ntraining: {batch_size: 1024, gradient_accumulation_steps: 2}",
         "5:24: training.batch_size: 2,048 samples in each optimizer step (batch_size 1024 x 2 "
         "accumulation steps), but an epoch has only 1,437"),
        ("data: {dataset_name: mine}\ntrainer: {batch_size: 40000}\nslurm: {nodes: 2}", "5:23: "
         "training.batch_size: 80,000 samples in each optimizer step (batch_size 40000 x 2 processes) "
         "are unusually many"),
        ("data: {dataset_name: d}\ntraining: {max_epochs: 5}\nscheduler: {type: m:S, warmup_epochs: 5}",
         "6:39: scheduler.warmup_epochs: the warm-up takes 5 epochs, the whole training has only 5"),
        ("data: {dataset_name: synthetic, num_samples: 100}\ntraining: {max_epochs: 2, batch_size: 8}\n"
         "scheduler: {type: linear, start_factor: 0.1, total_iters: 20}",
         "6:59: scheduler.total_iters: the warm-up takes 20 steps, the whole training has only 20"),
        ("data: {dataset_name: d}\ncheckpoint: {every_n_minutes: 60}\nslurm: {time: '01:00:00'}",
         "5:31: checkpoint.every_n_minutes: 60 minutes are not less than the time limit (1 h 0 min): "
         "the job ends before a checkpoint is due"),
        ("data: {dataset_name: d}\nslurm: {time: 5, signal_lead: 300}", "5:15: slurm.time: 5 min is "
         "not longer than signal_lead (300 s): the training would be asked to save and stop as soon as "
         "it starts"),
        ("data: {dataset_name: d}\nlogging: {use_wandb: true}", "5:22: logging.use_wandb: without "
         "wandb_project, runs go to W&B's uncategorized project. Set one"),
        ("data: {dataset_name: d}\nslurm: {gpus_per_node: 4}", "5:24: slurm.gpus_per_node: 4 for 1 "
         "process on each node, and each process uses one GPU: 3 GPUs stay idle. Write slurm.ntasks_per_node: 4"),
        ("data: {dataset_name: d}\ntraining: {max_epochs: 3}\ncheckpoint: {every_n_epochs: 5}",
         "6:30: checkpoint.every_n_epochs: 5 exceeds training.max_epochs (3): no checkpoint is ever due"),
        ("data: {dataset_name: d}\ntraining: {max_epochs: 3}\ncallbacks: {early_stopping: {}}",
         "6:29: callbacks.early_stopping: patience (5) is not less than training.max_epochs (3): "
         "the training never stops early"),
    ],
)  # fmt: skip
def test_a_probably_unintended_value_gives_a_warning(lines: str, expected: str) -> None:
    head = "kind: experiment\nexperiment_name: one\nmodel: {type: mlp}\n"
    assert found(one=head + lines + "\n") == [f"one.yaml:{expected}"]


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "entrypoint: a.b:c\nslurm: {gpus_per_node: 4}\nscheduler: {type: x, warmup_epochs: 900}\n",
        "slurm: {gpus_per_node: 4, ntasks_per_node: 4, time: UNLIMITED}\n",
        "logging: {use_wandb: true, wandb_project: p}\ncheckpoint: {every_n_minutes: 30}\n",
        "scheduler: {type: linear, total_iters: 100000}\n",
    ],
)
def test_a_plausible_value_gives_no_warning(lines: str) -> None:
    assert found(one=EXPERIMENT + lines) == []


def test_a_value_of_a_grid_gives_its_warning_once() -> None:
    grid = (
        "kind: grid\nname: g\nbase: base.yaml\n"
        "parameters:\n  training.batch_size: [32, 2048, 4096]\n  optimizer.lr: [0.1, 0.2]\n"
        "max_parallel: 7\n"
    )
    lines = found(base=BASE.replace("digits}", "digits, num_workers: 2}"), g=grid)
    assert [one.split(" ")[0] for one in lines] == [
        "base.yaml:3:43:", "g.yaml:5:29:", "g.yaml:5:35:", "g.yaml:7:15:",
    ]  # fmt: skip


def test_the_examples_and_the_benchmarks_specs_are_free_of_warnings() -> None:
    files = {f"experiments/{p.name}": p.read_bytes() for p in (ROOT / "experiments").glob("*.yaml")}
    loaded = load_specs(files, Settings(), STAMP)
    assert loaded.desired
    assert [str(p) for one in loaded.desired for p in warnings(one)] == []
