"""A training that another number of processes resumes is the same experiment: same steps."""

from __future__ import annotations

import json
import os
import signal
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import BatchSampler, DataLoader, Dataset, IterableDataset

from mtf import rundir
from mtf.trainer import Callback
from mtf.trainer.loop.phases import Phase
from tests.trainer.hard_training import COMPLETE, STOPPED, result, signal_at, train
from tests.trainer.ranks import train_ranks
from tests.trainer.runs import events, make_run, read_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtf.trainer.loop.loop import Loop

HERE = "tests.trainer.resume.test_other_ranks"
PLAIN: dict[str, Any] = {
    "experiment_name": "plain",
    "model": {"type": f"{HERE}:Plain"},
    "data": {"dataset_name": f"{HERE}:Noisy", "num_workers": 0},
    "training": {
        "max_epochs": 2,
        "batch_size": 4,
        "gradient_accumulation_steps": 2,
        "use_amp": False,
        "seed": 5,
    },
    "optimizer": {"type": "adamw", "lr": 1e-2},
    "scheduler": {"type": "onecycle"},
    "logging": {"log_scalars_every_n_steps": 1},
    "entrypoint": None,
}
STEPS = "steps.jsonl"
TWO_SETS: dict[str, Any] = {
    "data": {"dataset_name": f"{HERE}:two_sets"},
    "model": {"type": f"{HERE}:OnTwoSets"},
}


class Plain(nn.Linear):
    """A model whose gradients depend on the samples alone."""

    def __init__(self) -> None:
        super().__init__(6, 3)


class Noisy(Dataset[tuple[torch.Tensor, int]]):
    """Samples with random noise, so that a sample drawn twice has two values."""

    num_classes = 3

    def __init__(self, split: str, num_samples: int = 48) -> None:
        self._size = num_samples if split == "train" else 9
        self._noise = 1.0 if split == "train" else 0.0

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.randn(6) * self._noise + index / 10, index % 3


class Stream(IterableDataset[tuple[torch.Tensor, int]]):
    """Samples that only come one after the other."""

    num_classes = 3

    def __init__(self, split: str) -> None:
        self._samples = Noisy(split)

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        return (self._samples[index] for index in range(len(self)))


class Buckets(BatchSampler):
    """A sampler of one's own: batches of 5 and 3 samples."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __iter__(self) -> Iterator[list[int]]:
        for first in range(0, self._size, 8):
            yield list(range(first, first + 5))
            yield list(range(first + 5, first + 8))

    def __len__(self) -> int:
        return self._size // 4


def bucketed(split: str) -> Any:
    """Return a loader with a sampler of one's own, for training."""
    dataset = Noisy(split)
    return DataLoader(dataset, batch_sampler=Buckets(48)) if split == "train" else dataset


def two_sets(split: str) -> Any:
    """Return two sets of different lengths."""
    return {"many": Noisy(split), "few": Noisy(split, 32)} if split == "train" else Noisy(split)


class OnTwoSets(Plain):
    """A model that trains on a batch of either set."""

    def training_step(self, batch: Any) -> torch.Tensor:
        """Return the mean loss over the sets in the batch."""
        losses = [nn.functional.cross_entropy(self(x), y) for x, y in batch.values()]
        return torch.stack(losses).mean()

    def validation_step(self, batch: Any) -> dict[str, torch.Tensor]:
        """Return the loss."""
        return {"loss": nn.functional.cross_entropy(self(batch[0]), batch[1])}


class Noting(Callback):
    """Writes the values of the samples that were used, with the step that they were used for."""

    phases = (Phase.TRAIN_BATCH_FORWARD,)

    def before(self, phase: Phase, training: Loop) -> None:
        """Append a line to the run folder's file."""
        del phase
        leaves = torch.utils._pytree.tree_leaves(training.batch)
        values = [round(float(row.sum()), 4) for leaf in leaves if leaf.dim() > 1 for row in leaf]
        with Path(os.environ["MTF_RUN_DIR"]).joinpath(STEPS).open("a") as file:
            file.write(json.dumps([training.state.global_step, values]) + "\n")


def steps_of(run: Path) -> dict[int, set[float]]:
    """Return the values of the samples of each step; a window may have been begun twice."""
    found: dict[int, set[float]] = defaultdict(set)
    for line in (run / STEPS).read_text().splitlines():
        step, values = json.loads(line)
        found[step] |= set(values)
    return dict(found)


def make(tmp_path: Path, **changes: Any) -> Path:
    callbacks = {"noting": {"type": f"{HERE}:Noting"}}
    return make_run(tmp_path, base=PLAIN, callbacks=callbacks, **changes)


def train_on(run: Path, ranks: int, prepare: Mapping[int, Any] | None = None) -> list[int]:
    """Train with a number of processes, which may be another one than before."""
    config = read_config(run)
    config["slurm"] = {"ntasks_per_node": ranks}
    (run / rundir.CONFIG).write_text(rundir.render_yaml(config))
    return train_ranks(run, ranks, prepare, _train)


def _train(run: Path) -> None:
    os.environ["MTF_RUN_DIR"] = str(run)
    train(run)


def stop(phase: Phase, nth: int) -> Any:
    return signal_at(phase, nth, signal.SIGUSR1, after=False)


CASES: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "half as many": ((2, 1), {}),
    "twice as many": ((1, 2), {}),
    "two of three": ((3, 2), {}),
    "there and back again": ((2, 1, 2), {}),
    "fewer again": ((4, 2, 1), {"training": {"max_epochs": 4}}),
    "from a window without its last batch": ((2, 1), {"training": {"batch_size": 5}}),
    "a sampler of one's own": ((2, 1), {"data": {"dataset_name": f"{HERE}:bucketed"}}),
    "data workers": ((2, 1), {"data": {"num_workers": 1}}),
    "sets at once": ((2, 1), TWO_SETS),
    "sets in turn": ((2, 1), {**TWO_SETS, "training": {"combine": "in_turn"}}),
}


@pytest.mark.parametrize("case", CASES)
def test_another_number_of_processes_takes_the_same_steps(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    numbers, changes = CASES[case]
    whole, run = make(tmp_path, **changes), make(tmp_path, **changes)
    assert train_on(whole, numbers[0]) == [COMPLETE] * numbers[0]
    for ranks in numbers[:-1]:  # inside an accumulation window
        assert train_on(run, ranks, {0: stop(Phase.TRAIN_BATCH_LOAD, 4)}) == [STOPPED] * ranks
    assert train_on(run, numbers[-1]) == [COMPLETE] * numbers[-1]
    assert steps_of(run) == steps_of(whole)
    first, second = result(whole)["content"], result(run)["content"]
    for name, weight in first["model"].items():
        torch.testing.assert_close(second["model"][name], weight)
    assert second["schedulers"] == first["schedulers"]
    ours, theirs = (events(each, "metrics")[-1] for each in (run, whole))
    assert ours["metrics"] == pytest.approx(theirs["metrics"])
    assert (ours["epoch"], ours["step"]) == (theirs["epoch"], theirs["step"])
    said = f"saved by {numbers[0]} process"
    assert capfd.readouterr().err.count(said) == 1


PHASES = [
    (1, Phase.TRAIN_BATCH_OPTIM_STEP, 2),
    (1, Phase.SCHEDULER_BATCH_STEP, 2),
    (1, Phase.TRAIN_BATCH_END, 2),
    (1, Phase.VAL_BATCH_LOAD, 2),
    (2, Phase.SCHEDULER_EPOCH_STEP, 1),
    (2, Phase.VAL_BATCH_LOAD, 2),
    (2, Phase.EPOCH_END, 1),
]


@pytest.mark.parametrize(("before", "phase", "nth"), PHASES)
def test_the_steps_are_the_same_wherever_the_other_processes_stopped(
    before: int, phase: Phase, nth: int, tmp_path: Path
) -> None:
    whole, run = make(tmp_path), make(tmp_path)
    after = 3 - before
    assert train_on(whole, before) == [COMPLETE] * before
    assert train_on(run, before, {0: stop(phase, nth)}) == [STOPPED] * before
    assert train_on(run, after) == [COMPLETE] * after
    assert steps_of(run) == steps_of(whole)
    first, second = result(whole)["content"], result(run)["content"]
    for name, weight in first["model"].items():
        torch.testing.assert_close(second["model"][name], weight)
    ours, theirs = (events(each, "metrics")[-1]["metrics"] for each in (run, whole))
    assert ours == pytest.approx(theirs)


class Fading(LambdaLR):
    """A schedule of one's own whose length is that of this process's data."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        steps = 24 // int(os.environ["SLURM_NTASKS"])
        super().__init__(optimizer, lambda step: max(0.0, 1 - step / steps))


REFUSED: dict[str, tuple[tuple[int, int], dict[str, Any], str]] = {
    "a step that cannot be shared": (
        (2, 3),
        {},
        "the checkpoint was saved by 2 processes, and now there are 3, which cannot take equally"
        " many batches: an optimizer step takes 4 batches (2 x 2 accumulated), and an epoch 12. Set"
        " slurm.nodes and slurm.ntasks_per_node for 1, 2 or 4 processes",
    ),
    "an epoch that cannot be shared": (
        (1, 2),
        {"data": {"dataset_name": f"{HERE}:Noisy", "num_samples": 44}},
        "and an epoch 11. Set slurm.nodes and slurm.ntasks_per_node for 1 process\n",
    ),
    "data that cannot be split": (
        (2, 1),
        {"data": {"dataset_name": f"{HERE}:Stream"}},
        "This data cannot be dealt to another number: it is an iterable data set or a class of your"
        " own. Set slurm.nodes and slurm.ntasks_per_node for 2 processes",
    ),
    "a schedule that depends on it": (
        (2, 1),
        {"scheduler": {"type": f"{HERE}:Fading"}},
        "the scheduler's function gives the learning rate 0.00917 at step 2, where the training had"
        " 0.00833: it depends on the number of processes",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_resume_that_would_be_another_experiment_is_refused(
    case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (before, after), changes, message = REFUSED[case]
    run = make(tmp_path, **changes)
    assert train_on(run, before, {0: stop(Phase.TRAIN_BATCH_LOAD, 4)}) == [STOPPED] * before
    saved = sorted((run / "checkpoints").iterdir())
    assert COMPLETE not in train_on(run, after)
    assert message in capfd.readouterr().err
    assert sorted((run / "checkpoints").iterdir()) == saved
