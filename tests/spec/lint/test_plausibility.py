"""Warnings beyond types: said where they are meant, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtf.spec.lint.plausibility import warnings
from mtf.spec.load import load_specs
from mtf.spec.schema.settings import Settings
from tests.spec.samples import BASE, EXPERIMENT, STAMP, load

ROOT = Path(__file__).parents[3]


def said(**texts: str) -> list[str]:
    loaded = load(**texts)
    assert not loaded.problems, "\n".join(map(str, loaded.problems))
    found = sorted(problem for one in loaded.desired for problem in warnings(one))
    assert all(not problem.is_error for problem in found)
    return [str(p).removeprefix("experiments/").replace("warning: ", "") for p in found]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("data: {dataset_name: d, num_workers: 8}\nslurm: {cpus_per_task: 2}", "4:38: data.num_workers: "
         "8 processes load data on 2 CPUs: write slurm.cpus_per_task: 8, or fewer workers"),
        ("data: {dataset_name: d}\nslurm: {cpus_per_task: 2}", "4:7: data.num_workers: 4 processes "
         "load data on 2 CPUs: write slurm.cpus_per_task: 4, or fewer workers"),
        ("data: {dataset_name: digits}\ntraining: {batch_size: 1024, gradient_accumulation_steps: 2}",
         "5:24: training.batch_size: 2,048 samples in an optimizer step (batch_size 1024 x 2 "
         "accumulation steps), and an epoch has 1,437"),
        ("data: {dataset_name: mine}\ntrainer: {batch_size: 40000}\nslurm: {nodes: 2}", "5:23: "
         "training.batch_size: 80,000 samples in an optimizer step (batch_size 40000 x 2 processes) "
         "are unusually many"),
        ("data: {dataset_name: d}\ntraining: {max_epochs: 5}\nscheduler: {type: m:S, warmup_epochs: 5}",
         "6:39: scheduler.warmup_epochs: the warm-up takes 5 epochs, and the whole training has 5"),
        ("data: {dataset_name: synthetic, num_samples: 100}\ntraining: {max_epochs: 2, batch_size: 8}\n"
         "scheduler: {type: linear, start_factor: 0.1, total_iters: 20}",
         "6:59: scheduler.total_iters: the warm-up takes 20 steps, and the whole training has 20"),
        ("data: {dataset_name: d}\ncheckpoint: {every_n_minutes: 60}\nslurm: {time: '01:00:00'}",
         "5:31: checkpoint.every_n_minutes: 60 minutes are not less than the time limit, 1 h 0 min: "
         "no checkpoint would be due before the job ends"),
        ("data: {dataset_name: d}\nslurm: {time: 5, signal_lead: 300}", "5:15: slurm.time: 5 min is "
         "not more than signal_lead, 300 s: the training would be told to save and stop at its very "
         "start"),
        ("data: {dataset_name: d}\nlogging: {use_wandb: true}", "5:22: logging.use_wandb: there is no "
         "wandb_project: the runs go to W&B's catch-all. Name one"),
        ("data: {dataset_name: d}\nslurm: {gpus_per_node: 4}", "5:24: slurm.gpus_per_node: 4 for 1 "
         "process a node, and each uses one: 3 of them would idle. Write slurm.ntasks_per_node: 4"),
        ("data: {dataset_name: d}\ntraining: {max_epochs: 3}\ncheckpoint: {every_n_epochs: 5}",
         "6:30: checkpoint.every_n_epochs: 5, and the training has 3 epochs: none would be due"),
        ("data: {dataset_name: d}\ntraining: {max_epochs: 3}\ncallbacks: {early_stopping: {}}",
         "6:29: callbacks.early_stopping: patience 5, and the training has 3 epochs: it can never "
         "stop early"),
    ],
)  # fmt: skip
def test_what_is_hardly_meant_is_told_at_its_value(lines: str, told: str) -> None:
    head = "kind: experiment\nexperiment_name: one\nmodel: {type: mlp}\n"
    assert said(one=head + lines + "\n") == [f"one.yaml:{told}"]


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
def test_what_may_well_be_meant_is_not(lines: str) -> None:
    assert said(one=EXPERIMENT + lines) == []


def test_the_value_of_a_grid_that_causes_it_is_blamed_once() -> None:
    grid = (
        "kind: grid\nname: g\nbase: base.yaml\n"
        "parameters:\n  training.batch_size: [32, 2048, 4096]\n  optimizer.lr: [0.1, 0.2]\n"
        "max_parallel: 7\n"
    )
    found = said(base=BASE.replace("digits}", "digits, num_workers: 2}"), g=grid)
    assert [one.split(" ")[0] for one in found] == [
        "base.yaml:3:43:", "g.yaml:5:29:", "g.yaml:5:35:", "g.yaml:7:15:",
    ]  # fmt: skip


def test_the_examples_and_the_benchmarks_specs_are_free_of_warnings() -> None:
    files = {f"experiments/{p.name}": p.read_bytes() for p in (ROOT / "experiments").glob("*.yaml")}
    loaded = load_specs(files, Settings(), STAMP)
    assert loaded.desired
    assert [str(p) for one in loaded.desired for p in warnings(one)] == []
