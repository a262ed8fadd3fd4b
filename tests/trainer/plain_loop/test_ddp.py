"""Two ranks train as plain DistributedDataParallel does, bit for bit."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import distributed, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, DistributedSampler, Subset, TensorDataset

from mtf.trainer import GenericTrainer
from mtf.trainer.compute.fabric import build_fabric
from mtf.trainer.job.run_job import read_config
from tests.trainer.hard_training import COMPLETE, result
from tests.trainer.plain_loop.by_hand import (
    BATCH_SIZE,
    EPOCHS,
    TRAIN_SIZE,
    adam,
    assert_equal,
    net,
    plain_run,
    samples,
    val_batches,
    val_sums,
)
from tests.trainer.ranks import train_ranks
from tests.trainer.runs import events

if TYPE_CHECKING:
    from pathlib import Path


def even_samples() -> TensorDataset:
    return samples(TRAIN_SIZE - 2, 1)


def fit_on_ranks(run: Path) -> None:
    config = read_config(run)
    model = net()
    fabric = build_fabric(config, os.environ)
    trainer = GenericTrainer(config, fabric, model, adam(model), run_dir=run)
    trainer.fit(DataLoader(even_samples(), batch_size=BATCH_SIZE), val_batches())


def fit_on_ranks_by_hand(run: Path) -> None:
    rank = int(os.environ["SLURM_PROCID"])
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = net()
    parallel, optimizer = nn.parallel.DistributedDataParallel(model), adam(model)
    losses: list[float] = []
    sampler: Any = DistributedSampler(even_samples(), shuffle=False)
    for _ in range(EPOCHS):
        losses = []
        batches = list(DataLoader(even_samples(), batch_size=BATCH_SIZE, sampler=sampler))
        for first in range(0, 5, 2):
            window = batches[first : first + 2]
            for inputs, targets in window:
                is_last = inputs is window[-1][0]
                with nullcontext() if is_last else parallel.no_sync():
                    loss = functional.cross_entropy(parallel(inputs), targets)
                    (loss / len(window)).backward()
                losses.append(loss.item())
            clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
    share: Any = Subset(val_batches().dataset, range(rank, 9, 2))
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "losses": losses,
            "validation": val_sums(model, DataLoader(share, batch_size=4)),
        },
        run / f"{rank}.pt",
    )
    _leave()


def test_two_ranks_train_as_plain_ddp_does(tmp_path: Path) -> None:
    """20 samples to each rank, in windows of 2, 2 and 1 micro-batches."""
    training = {"gradient_accumulation_steps": 2, "max_grad_norm": 0.1}
    run = plain_run(tmp_path, training=training, slurm={"ntasks_per_node": 2})
    assert train_ranks(run, 2, training=fit_on_ranks) == [COMPLETE] * 2
    assert train_ranks(run, 2, training=fit_on_ranks_by_hand) == [COMPLETE] * 2
    expected = [torch.load(run / f"{rank}.pt", weights_only=True) for rank in range(2)]
    content = result(run)["content"]
    for of_rank in expected:
        assert_equal(dict(content["model"]), dict(of_rank["model"]))
        assert_equal(content["optimizers"]["optimizer"], of_rank["optimizer"])
    losses = [loss for of_rank in expected for loss in of_rank["losses"]]
    loss, right, count = map(
        sum, zip(*[of_rank["validation"] for of_rank in expected], strict=True)
    )
    assert events(run, "metrics")[-1]["metrics"] == {
        "train_loss": sum(losses) / 10,
        "val_loss": loss / count,
        "val_accuracy": right / count,
    }


# -- ranks that have unlike batches ----------------------------------------------------------------

# 5 batches for each rank, in windows of 2, 2 and 1; ranks take them in turns
UNLIKE = [[0, 1, 2, 3], [4], [5, 6], [7, 8, 9], [10], [11, 12], [13, 14, 15], [16], [17], [18, 19]]


class Tokens(nn.Sequential):
    """Returns means, or the sum over the samples whose target is not 0 and their number."""

    counts = False

    def training_step(self, batch: Any) -> Any:
        losses = functional.cross_entropy(self(batch[0]), batch[1], reduction="none")
        if not self.counts:
            return losses.mean()
        kept = batch[1] != 0
        few = {"few": losses.detach()[0]} if len(losses) == 1 else {}
        return {"loss": ((losses * kept).sum(), kept.sum()), "n": (kept.sum(), 1), **few}


class Counting(Tokens):
    counts = True


def fit_unlike(run: Path, kind: type[Tokens]) -> None:
    config = read_config(run)
    model = kind(*net())
    trainer = GenericTrainer(
        config, build_fabric(config, os.environ), model, adam(model), run_dir=run
    )
    trainer.fit(DataLoader(even_samples(), batch_sampler=UNLIKE))


def fit_unlike_by_hand(run: Path, kind: type[Tokens]) -> None:
    """Exchange nothing but gradients: every rank knows all batches here."""
    rank = int(os.environ["SLURM_PROCID"])
    distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = kind(*net())
    step = _Step(model)
    parallel, optimizer = nn.parallel.DistributedDataParallel(step), adam(model)
    data, sums = even_samples(), [0.0, 0]
    for _ in range(EPOCHS):
        sums = [0.0, 0]
        for first in (0, 4, 8):
            window = UNLIKE[first : first + 4]
            size = sum(map(len, window))
            count = sum(int((data.tensors[1][torch.tensor(b)] != 0).sum()) for b in window)
            mine = window[rank::2]
            for indices in mine:
                batch = data[torch.tensor(indices)]
                with nullcontext() if indices is mine[-1] else parallel.no_sync():
                    found = parallel(batch)
                    loss = found["loss"][0] if kind.counts else found * (len(indices) * 2 / size)
                    loss.backward()
                if kind.counts:
                    sums = [sums[0] + loss.item(), sums[1] + int(found["loss"][1])]
                else:
                    sums = [sums[0] + found.item() * len(indices), sums[1] + len(indices)]
            if kind.counts:
                for parameter in model.parameters():
                    assert parameter.grad is not None
                    parameter.grad /= count / 2
            clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            optimizer.zero_grad()
    torch.save(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "sums": sums},
        run / f"{rank}.pt",
    )
    _leave()


def _leave() -> None:
    """Wait for the others; the process ends without destroying the group.

    torch can wait for ever for a destroyed group's thread when DDP's reducer goes after it.
    """
    distributed.barrier()


class _Step(nn.Module):
    """Computes a model's training step as a forward pass, for plain DDP."""

    def __init__(self, model: Tokens) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> Any:
        return self.model.training_step(batch)


@pytest.mark.parametrize("kind", [Tokens, Counting])
def test_ranks_with_unlike_batches_weigh_them_by_what_all_ranks_count(
    kind: type[Tokens], tmp_path: Path
) -> None:
    training = {"gradient_accumulation_steps": 2, "max_grad_norm": 0.1}
    run = plain_run(tmp_path, training=training, slurm={"ntasks_per_node": 2})
    fit, by_hand = partial(fit_unlike, kind=kind), partial(fit_unlike_by_hand, kind=kind)
    assert train_ranks(run, 2, training=fit) == [COMPLETE] * 2
    assert train_ranks(run, 2, training=by_hand) == [COMPLETE] * 2
    expected = [torch.load(run / f"{rank}.pt", weights_only=True) for rank in range(2)]
    content = result(run)["content"]
    for of_rank in expected:
        assert_equal(dict(content["model"]), dict(of_rank["model"]))
        assert_equal(content["optimizers"]["optimizer"], of_rank["optimizer"])
    loss, count = map(sum, zip(*[of_rank["sums"] for of_rank in expected], strict=True))
    metrics = events(run, "metrics")[-1]["metrics"]
    assert metrics["train_loss"] == pytest.approx(loss / count, rel=1e-12)
    rows = [json.loads(line) for line in (run / "scalars.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "lr" in row]
    assert len(steps) == 3 * EPOCHS
    if kind is Counting:
        assert metrics["train_n"] * 10 == count
        assert [("train_few" in row) for row in steps] == [True] * 3 * EPOCHS
