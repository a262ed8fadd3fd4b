"""Losses and gradients are means over samples, or over what a step counts, as in a plain loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from mtf.errors import MtfError
from mtf.trainer.compute.fabric import Fabric
from tests.trainer.plain_loop.by_hand import (
    BATCH_SIZE,
    EPOCHS,
    TRAIN_SIZE,
    Tokens,
    Validated,
    adam,
    assert_equal,
    by_hand,
    by_trainer,
    counted,
    net,
    plain_run,
    rows,
    samples,
    train_batches,
)
from tests.trainer.runs import events

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# -- samples ---------------------------------------------------------------------------------------


def test_a_ragged_window_equals_one_batch_of_all_its_samples(tmp_path: Path) -> None:
    """65 samples as 4 x 16 + 1."""
    data = samples(65, 1)
    trained = []
    for size, window in ((65, 1), (16, 5)):
        model = net()
        run = plain_run(tmp_path, training={"gradient_accumulation_steps": window, "max_epochs": 1})
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        result = by_trainer(run, model, optimizer, train=DataLoader(data, batch_size=size))
        trained.append((model.state_dict(), result.metrics[0]["train_loss"]))
    torch.testing.assert_close(trained[0], trained[1], rtol=1e-5, atol=1e-7)
    assert not torch.equal(trained[0][0]["0.weight"], net().state_dict()["0.weight"])


def test_rows_are_means_over_the_samples_since_the_last_row(tmp_path: Path) -> None:
    run = plain_run(tmp_path, logging={"log_scalars_every_n_steps": 11}, training={"max_epochs": 1})
    model = net()
    by_trainer(run, model, adam(model))
    (row,) = rows(run)
    (metrics,) = events(run, "metrics")
    assert row["train_loss"] == metrics["metrics"]["train_loss"]


class Stream(IterableDataset[Any]):
    """Samples whose number nothing but the batches tells."""

    def __init__(self, size: int) -> None:
        self._samples = samples(size, 1)

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[Any]:
        return (self._samples[i] for i in range(len(self)))


class OwnBatches:
    """A user's own batches, which do not say their numbers of samples."""

    def __len__(self) -> int:
        return len(train_batches())

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        del epoch
        return iter(list(train_batches())[start:])


@pytest.mark.parametrize("kind", ["stream", "own batches"])
def test_sizes_that_only_the_batches_tell_weigh_the_same(kind: str, tmp_path: Path) -> None:
    """Gradients are weighed for equal batches, and corrected at the end of a ragged window."""
    train: Any = DataLoader(Stream(TRAIN_SIZE), BATCH_SIZE) if kind == "stream" else OwnBatches()
    run = plain_run(tmp_path, training={"gradient_accumulation_steps": 4})
    model, reference = net(), net()
    trained = by_trainer(run, model, adam(model), train=train)
    optimizer, losses = adam(reference), 0.0
    for _ in range(EPOCHS):
        batches, losses = list(train_batches()), 0.0
        for first in range(0, len(batches), 4):
            window = batches[first : first + 4]
            total = len(window) * BATCH_SIZE
            count = sum(len(targets) for _, targets in window)
            for inputs, targets in window:
                loss = functional.cross_entropy(reference(inputs), targets)
                share = loss * (len(targets) / total)
                (loss / len(window) if len(targets) == BATCH_SIZE else share).backward()
                losses += loss.item() * len(targets)
            if count != total:
                for parameter in reference.parameters():
                    assert parameter.grad is not None
                    parameter.grad /= count / total
            optimizer.step()
            optimizer.zero_grad()
    assert_equal(trained.model, reference.state_dict())
    assert_equal(trained.optimizer, optimizer.state_dict())
    assert trained.metrics[-1]["train_loss"] == losses / TRAIN_SIZE
    expected = by_hand(other := net(), adam(other), window=4)
    torch.testing.assert_close(trained.model, expected.model)


def test_equal_batches_of_a_stream_are_divided_by_their_number(tmp_path: Path) -> None:
    run = plain_run(tmp_path, training={"gradient_accumulation_steps": 5})
    model, reference = net(), net()
    trained = by_trainer(run, model, adam(model), train=DataLoader(Stream(40), BATCH_SIZE))
    optimizer = adam(reference)
    for _ in range(EPOCHS):
        for i, (inputs, targets) in enumerate(DataLoader(Stream(40), BATCH_SIZE)):
            (functional.cross_entropy(reference(inputs), targets) / 5).backward()
            if i % 5 == 4:
                optimizer.step()
                optimizer.zero_grad()
    assert_equal(trained.model, reference.state_dict())


def test_a_mean_over_an_unknown_number_of_samples_is_refused(tmp_path: Path) -> None:
    class Graphs(OwnBatches):
        def batches(self, epoch: int, start: int) -> Iterator[Any]:
            del epoch, start
            return ({"edge_index": torch.zeros(2, 9), "x": torch.ones(5, 6)} for _ in range(11))

    class Mean(nn.Sequential):
        def training_step(self, batch: Any) -> Any:
            return self(batch["x"]).mean()

    class Counted(Mean):
        def training_step(self, batch: Any) -> Any:
            return self(batch["x"]).sum(), 5

    run = plain_run(tmp_path)
    model: nn.Module = Mean(*net())
    message = r"number of samples in its batch is unknown: return a pair \(sum, count\)"
    with pytest.raises(MtfError, match=message):
        by_trainer(run, model, adam(model), train=Graphs(), validation=None)
    assert_equal(model.state_dict(), net().state_dict())
    model = Counted(*net())
    run = plain_run(tmp_path, training={"max_epochs": 1})
    metrics = by_trainer(run, model, adam(model), train=Graphs(), validation=None).metrics
    assert metrics[0].keys() == {"train_loss"}


# -- targets that count for nothing ----------------------------------------------------------------


def ignoring(size: int, seed: int, *, tokens: int = 0) -> TensorDataset:
    """Return samples some of whose targets are -100, in the second batch of four all of them."""
    generator = torch.Generator().manual_seed(seed)
    shape = (size, tokens) if tokens else (size,)
    inputs = torch.randn(*shape, 6, generator=generator)
    targets = torch.arange(size * (tokens or 1)).reshape(shape) % 3
    targets[targets.remainder(5).eq(1) | (torch.rand(shape, generator=generator) < 0.4)] = -100
    targets[4:8] = -100
    return TensorDataset(inputs, targets)


class PerToken(nn.Module):
    """Returns logits [batch, classes, tokens]."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(inputs)
        return logits.movedim(-1, 1)


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("tokens", [0, 5])
def test_ignored_targets_have_no_weight_in_means_and_gradients(
    tokens: int, window: int, tmp_path: Path
) -> None:
    train, validation = (ignoring(n, n, tokens=tokens) for n in (TRAIN_SIZE, 9))
    run = plain_run(tmp_path, training={"gradient_accumulation_steps": window, "max_epochs": 1})
    model, reference = PerToken(), PerToken()
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    loaders = [DataLoader(part, batch_size=BATCH_SIZE) for part in (train, validation)]
    trained = by_trainer(run, model, sgd, train=loaders[0], validation=loaders[1])
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.5)
    losses, epoch = [], 0
    for first in range(0, TRAIN_SIZE, window * BATCH_SIZE):
        inputs, targets = train[first : first + window * BATCH_SIZE]
        count = int((targets != -100).sum())
        loss = functional.cross_entropy(reference(inputs), targets, reduction="sum")
        (loss / max(count, 1)).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        epoch += count
    torch.testing.assert_close(trained.model, reference.state_dict())
    reference.eval()
    inputs, targets = validation[:]
    counted = targets != -100
    logits = reference(inputs)
    right = int((logits.argmax(1) == targets).sum())
    assert trained.metrics[0] == pytest.approx(
        {
            "train_loss": sum(losses) / epoch,
            "val_loss": functional.cross_entropy(logits, targets).item(),
            "val_accuracy": right / int(counted.sum()),
        },
        rel=1e-5,
    )


# -- what a step counts ----------------------------------------------------------------------------


@pytest.mark.parametrize("max_norm", [None, 0.05])
@pytest.mark.parametrize("window", [1, 4])
def test_a_sum_and_its_count_are_divided_once_a_window_before_clipping(
    window: int, max_norm: float | None, tmp_path: Path
) -> None:
    training = {"gradient_accumulation_steps": window, "max_grad_norm": max_norm}
    run = plain_run(tmp_path, training=training)
    model, reference = Tokens(*net()), Tokens(*net())
    trained = by_trainer(run, model, adam(model))
    optimizer, means, epoch = adam(reference), [], (0.0, 0)
    for _ in range(EPOCHS):
        batches, epoch = list(train_batches()), (0.0, 0)
        for first in range(0, len(batches), window):
            sums, count = 0.0, 0
            for batch in batches[first : first + window]:
                total, number = reference.training_step(batch)
                (total / number if window == 1 else total).backward()
                sums, count = sums + total.item(), count + int(number)
            for parameter in reference.parameters():
                if window > 1 and parameter.grad is not None:
                    parameter.grad /= count
            if max_norm is not None:
                clip_grad_norm_(reference.parameters(), max_norm)
            optimizer.step()
            optimizer.zero_grad()
            means.append(sums / count)
            epoch = epoch[0] + sums, epoch[1] + count
    assert_equal(trained.model, reference.state_dict())
    assert_equal(trained.optimizer, optimizer.state_dict())
    assert [row["train_loss"] for row in rows(run)] == means
    assert trained.metrics[-1]["train_loss"] == pytest.approx(epoch[0] / epoch[1], rel=1e-12)


def test_a_count_of_nothing_adds_nothing(tmp_path: Path) -> None:
    """The targets of the second of two windows are all 0, so none of its samples counts."""
    data = TensorDataset(torch.randn(16, 6), torch.tensor([1, 2] * 4 + [0] * 8))
    model, reference = Tokens(*net()), net()
    run = plain_run(tmp_path, training={"gradient_accumulation_steps": 2, "max_epochs": 1})
    sgd = torch.optim.SGD(model.parameters(), lr=0.5)
    trained = by_trainer(run, model, sgd, train=DataLoader(data, batch_size=4))
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.5)
    functional.cross_entropy(reference(data.tensors[0][:8]), data.tensors[1][:8]).backward()
    optimizer.step()
    torch.testing.assert_close(trained.model, reference.state_dict())
    first, second = rows(run)
    assert second["train_loss"] is None
    assert second["train_loss_text"] == "NaN"
    assert trained.metrics[0]["train_loss"] == first["train_loss"]


def test_sums_are_unscaled_before_they_are_divided_in_sixteen_bits(tmp_path: Path) -> None:
    from lightning.fabric.plugins.precision import MixedPrecision

    def new_scaler() -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=2.0**20, growth_interval=4)

    precision = MixedPrecision("16-mixed", "cpu", new_scaler())
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[precision])
    model, reference = Tokens(*net()), Tokens(*net())
    training = {"gradient_accumulation_steps": 3, "max_grad_norm": 0.05}
    trained = by_trainer(plain_run(tmp_path, training=training), model, adam(model), fabric=fabric)
    scaler, optimizer, skipped = new_scaler(), adam(reference), 0
    for _ in range(EPOCHS):
        batches = list(train_batches())
        for first in range(0, len(batches), 3):
            count = 0
            for batch in batches[first : first + 3]:
                with torch.autocast("cpu", dtype=torch.float16):
                    total, number = reference.training_step(batch)
                scaler.scale(total).backward()
                count += int(number)
            scaler.unscale_(optimizer)
            for parameter in reference.parameters():
                assert parameter.grad is not None
                parameter.grad /= count
            clip_grad_norm_(reference.parameters(), 0.05)
            before = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            skipped += scaler.get_scale() < before
            optimizer.zero_grad()
    assert_equal(trained.model, reference.state_dict())
    assert_equal(trained.optimizer, optimizer.state_dict())
    assert 0 < skipped < 12


def test_optimizers_in_turns_divide_what_their_own_window_has_counted(tmp_path: Path) -> None:
    """One counts, the other returns a mean; each window has gradients for both."""

    class Turning(Validated):
        def training_step(self, batch: Any, optimizer: str) -> Any:
            if optimizer == "first":
                return counted(self, batch)
            return functional.cross_entropy(self(batch[0]), batch[1])

    def both(model: nn.Sequential) -> dict[str, torch.optim.Optimizer]:
        return {name: adam(part) for name, part in (("first", model[0]), ("last", model[2]))}

    model, reference = Turning(*net()), Turning(*net())
    optimizers = both(reference)
    run = plain_run(tmp_path, training={"gradient_accumulation_steps": 4})
    trained = by_trainer(run, model, both(model))
    names = ["first", "last"] * 5
    for _ in range(EPOCHS):
        batches = list(train_batches())
        for first in range(0, len(batches), 4):
            name, window, count = names.pop(0), batches[first : first + 4], 0
            size = sum(len(targets) for _, targets in window)
            for inputs, targets in window:
                found = reference.training_step((inputs, targets), name)
                if name == "first":
                    found[0].backward()
                    count += int(found[1])
                else:
                    alike = size == 4 * len(window)
                    (found / 4 if alike else found * (len(targets) / size)).backward()
            for parameter in reference[0].parameters():
                assert parameter.grad is not None
                parameter.grad /= count or 1
            optimizers[name].step()
            reference.zero_grad()
    assert_equal(trained.model, reference.state_dict())
    assert_equal(trained.optimizer, {name: part.state_dict() for name, part in optimizers.items()})
