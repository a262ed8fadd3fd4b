"""Several optimizers step as they do in a plain torch loop, together or in turns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional

from tests.trainer.plain_loop.by_hand import (
    EPOCHS,
    adam,
    assert_equal,
    by_trainer,
    net,
    plain_run,
    train_batches,
    weighed,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch.optim import Optimizer


def test_several_optimizers_step_together(tmp_path: Path) -> None:
    class Stepping(nn.Sequential):
        def training_step(self, batch: Any) -> torch.Tensor:
            return functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch: Any) -> dict[str, Any]:
            return {"loss": functional.cross_entropy(self(batch[0]), batch[1])}

    def both(model: nn.Sequential) -> dict[str, Optimizer]:
        return {
            "first": torch.optim.AdamW(model[0].parameters(), lr=1e-2),
            "last": torch.optim.SGD(model[2].parameters(), lr=0.1, momentum=0.9),
        }

    model, reference = Stepping(*net()), net()
    optimizers = both(reference)
    trained = by_trainer(plain_run(tmp_path), model, both(model))
    for _ in range(EPOCHS):
        for inputs, targets in train_batches():
            functional.cross_entropy(reference(inputs), targets).backward()
            for optimizer in optimizers.values():
                optimizer.step()
                optimizer.zero_grad()
    assert_equal(trained.model, reference.state_dict())
    assert_equal(trained.optimizer, {name: part.state_dict() for name, part in optimizers.items()})


def test_optimizers_that_take_turns_step_for_a_window_each(tmp_path: Path) -> None:
    class Turning(nn.Sequential):
        def training_step(self, batch: Any, optimizer: str) -> torch.Tensor:
            loss = functional.cross_entropy(self(batch[0]), batch[1])
            return loss if optimizer == "first" else 2 * loss

        def validation_step(self, batch: Any) -> dict[str, Any]:
            return {"loss": functional.cross_entropy(self(batch[0]), batch[1])}

    def both(model: nn.Sequential) -> dict[str, Optimizer]:
        return {name: adam(part) for name, part in (("first", model[0]), ("last", model[2]))}

    model, reference = Turning(*net()), net()
    optimizers = list(both(reference).items())
    run = plain_run(tmp_path, training={"gradient_accumulation_steps": 4})
    trained = by_trainer(run, model, both(model))
    step = 0
    for _ in range(EPOCHS):
        batches = list(train_batches())
        for first in range(0, 11, 4):
            name, optimizer = optimizers[step % 2]
            for inputs, targets in (window := batches[first : first + 4]):
                loss = functional.cross_entropy(reference(inputs), targets)
                loss = loss if name == "first" else 2 * loss
                weighed(loss, len(targets), window).backward()
            optimizer.step()
            reference.zero_grad()
            step += 1
    assert_equal(trained.model, reference.state_dict())
    assert_equal(trained.optimizer, {name: part.state_dict() for name, part in optimizers})
