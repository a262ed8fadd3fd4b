"""The further values of a training step are logged as means, as a plain loop computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from torch import nn
from torch.nn import functional

from tests.trainer.plain_loop.by_hand import (
    EPOCHS,
    Tokens,
    Validated,
    adam,
    assert_equal,
    by_trainer,
    net,
    plain_run,
    rows,
    train_batches,
    weighed,
)
from tests.trainer.runs import events

if TYPE_CHECKING:
    from pathlib import Path


class Multi(Validated):
    """Returns values of each kind beside its loss; one of them for some batches only."""

    def training_step(self, batch: Any) -> Any:
        inputs, targets = batch
        logits = self(inputs)
        loss = functional.cross_entropy(logits, targets)
        right = (logits.argmax(1) == targets).sum()
        values = {
            "loss": loss + 0.1 * logits.square().mean(),
            "class_loss": loss,
            "train_accuracy": (right, len(targets)),
            "first": float(inputs[0, 0]),
        }
        return values | ({"size": len(targets)} if len(targets) == 2 else {})


class Sums(dict[str, tuple[float, int]]):
    """Sums and counts by metric."""

    def add(self, found: dict[str, Any], size: int) -> None:
        """Add the values of a batch."""
        pairs = {
            "train_loss": (found["loss"].item() * size, size),
            "train_class_loss": (found["class_loss"].item() * size, size),
            "train_accuracy": (int(found["train_accuracy"][0]), size),
            "train_first": (found["first"] * size, size),
        }
        for name, (total, count) in (
            pairs | ({"train_size": (2.0 * size, size)} if "size" in found else {})
        ).items():
            before = self.get(name, (0.0, 0))
            self[name] = before[0] + total, before[1] + count

    def means(self) -> dict[str, float]:
        return {name: total / count for name, (total, count) in self.items()}


def test_further_values_are_logged_as_means_over_samples_in_rows_and_at_the_end(
    tmp_path: Path,
) -> None:
    model, reference = Multi(*net()), Multi(*net())
    run = plain_run(
        tmp_path,
        logging={"log_scalars_every_n_steps": 3},
        training={"gradient_accumulation_steps": 2},
        checkpoint={"monitor": "train_accuracy", "mode": "max", "keep_best": 1},
    )
    trained = by_trainer(run, model, adam(model))
    optimizer, expected = adam(reference), list[dict[str, float]]()
    recent = epoch = Sums()
    for _ in range(EPOCHS):
        batches, recent, epoch = list(train_batches()), Sums(), Sums()
        for first in range(0, len(batches), 2):
            for batch in (window := batches[first : first + 2]):
                found, size = reference.training_step(batch), len(batch[1])
                weighed(found["loss"], size, window).backward()
                recent.add(found, size)
                epoch.add(found, size)
            optimizer.step()
            optimizer.zero_grad()
            if first in {4, 10}:
                expected.append(recent.means())
                recent = Sums()
    assert_equal(trained.model, reference.state_dict())
    found_rows = [{k: v for k, v in row.items() if k.startswith("train_")} for row in rows(run)]
    assert found_rows == expected
    assert "train_size" not in found_rows[0]
    last = {k: v for k, v in trained.metrics[-1].items() if k.startswith("train_")}
    assert last == pytest.approx(epoch.means(), rel=1e-12)
    assert last["train_size"] == 2.0
    assert (run / "checkpoints" / "best.ckpt").exists()


@pytest.mark.parametrize("window", [1, 2])
def test_values_beside_a_counted_loss_have_its_weight(window: int, tmp_path: Path) -> None:
    class Both(Tokens):
        def training_step(self, batch: Any) -> Any:
            total, count = super().training_step(batch)
            return {"loss": (total, count), "mean": (total / count).detach(), "n": (count, 1)}

    model = Both(*net())
    run = plain_run(tmp_path, training={"gradient_accumulation_steps": window})
    for row in [*rows_of(run, model), *events(run, "metrics")]:
        means = row.get("metrics", row)
        assert means["train_mean"] == pytest.approx(means["train_loss"], rel=1e-6)
        assert 1 < means["train_n"] < 4


def rows_of(run: Path, model: nn.Module) -> list[dict[str, Any]]:
    by_trainer(run, model, adam(model))
    return rows(run)


def test_without_a_validation_step_all_values_of_the_training_step_are_validated(
    tmp_path: Path,
) -> None:
    class Plain(nn.Sequential):
        training_step = Multi.training_step

    model = Plain(*net())
    trained = by_trainer(plain_run(tmp_path, training={"max_epochs": 1}), model, adam(model))
    names = {"train_loss", "val_loss", "train_class_loss", "val_class_loss", "train_accuracy"}
    names |= {"val_accuracy", "train_first", "val_first", "train_size"}
    assert trained.metrics[0].keys() == names
