"""Two ranks train as plain DistributedDataParallel does, bit for bit."""

from __future__ import annotations

import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

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
    distributed.destroy_process_group()


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
