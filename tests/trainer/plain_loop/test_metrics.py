"""Metrics of an epoch equal those that a loop written by hand computes with torchmetrics."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torchmetrics
from torch import nn
from torch.nn import functional
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

from mtf.errors import MtfError
from mtf.trainer import Callback, GenericTrainer
from mtf.trainer.compute.fabric import build_fabric
from mtf.trainer.job.run_job import read_config
from mtf.trainer.loop.phases import Phase
from tests.trainer.hard_training import COMPLETE, result
from tests.trainer.measured import ListedSum, scores
from tests.trainer.plain_loop.by_hand import (
    EPOCHS,
    adam,
    by_trainer,
    net,
    plain_run,
    samples,
    train_batches,
    val_batches,
)
from tests.trainer.ranks import train_ranks
from tests.trainer.runs import events

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mtf.trainer.loop.loop import Loop


class Classifier(nn.Module):
    """A model whose validation step is a function of itself, the logits and the targets."""

    def __init__(self, step: Callable[[Any, torch.Tensor, torch.Tensor], Any], **parts: Any):
        super().__init__()
        self.net = net()
        self.step = step
        for name, part in parts.items():
            setattr(self, name, part)

    def training_step(self, batch: Any) -> torch.Tensor:
        return functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: Any) -> Any:
        return self.step(self, self.net(batch[0]), batch[1])


def metrics_of(run: Path, model: nn.Module, **options: Any) -> list[dict[str, float]]:
    return by_trainer(run, model, adam(model), **options).metrics


def logits_by_epoch() -> list[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Train by hand; return logits and targets of the validation after each epoch."""
    model = net()
    optimizer, of_epochs = adam(model), []
    for _ in range(EPOCHS):
        for inputs, targets in train_batches():
            functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            of_epochs.append([(model(inputs), targets) for inputs, targets in val_batches()])
    return of_epochs


def test_values_are_those_of_torchmetrics_over_each_validation(tmp_path: Path) -> None:
    """Counts, lists of all samples, collections, values for each class, all without a return."""

    def update(model: Any, logits: torch.Tensor, targets: torch.Tensor) -> None:
        model.scores.update(logits, targets)
        model.auroc.update(logits.softmax(1), targets)
        model.heads["first"].update(logits)

    parts = {"scores": scores(), "auroc": MulticlassAUROC(3), "unused": MulticlassAccuracy(3)}
    model = Classifier(update, **parts, heads=nn.ModuleDict({"first": ListedSum()}))
    run = plain_run(tmp_path)
    found = metrics_of(run, model)
    (state,) = result(run)["content"]["ranks"][0]["metric_objects"]
    assert state["auroc"]["preds"] == []  # checkpoints hold no samples of a validation that is over
    expected = []
    for batches in logits_by_epoch():
        collection, auroc, listed = scores(), MulticlassAUROC(3), ListedSum()
        for logits, targets in batches:
            collection.update(logits, targets)
            auroc.update(logits.softmax(1), targets)
            listed.update(logits)
        values = collection.compute()
        expected.append(
            {
                "val_acc": float(values["acc"]),
                "val_f1": float(values["f1"]),
                **{f"val_recall_{i}": float(values["recall"][i]) for i in range(3)},
                "val_auroc": float(auroc.compute()),
                "val_heads_first": float(listed.compute()),
            }
        )
    for epoch in found:
        del epoch["train_loss"]
    assert found == expected
    assert len({json.dumps(values) for values in expected}) == EPOCHS


def test_a_returned_object_gets_the_name_that_the_step_gives_it(tmp_path: Path) -> None:
    def update(model: Any, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        model.scores.update(logits, targets)
        model.by_set["a"][0].update(logits, targets)
        batch_value = model.accuracy(logits, targets)  # updates it too
        scored = {"macro": model.scores["f1"], "val_set_a": model.by_set["a"][0]}
        return {**scored, "accuracy": batch_value}

    accuracy = MulticlassAccuracy(3, average="micro")
    model = Classifier(
        update, scores=scores(), by_set={"a": [accuracy.clone()]}, accuracy=accuracy.clone()
    )
    found = metrics_of(plain_run(tmp_path), model)
    for epoch, batches in zip(found, logits_by_epoch(), strict=True):
        collection = scores()
        for logits, targets in batches:
            collection.update(logits, targets)
        values = collection.compute()
        # what a step returns of a collection stands for all of it; and the value of a whole epoch
        # stands before the mean of the batches, whose sizes differ
        assert epoch == {
            "train_loss": epoch["train_loss"],
            "val_macro": float(values["f1"]),
            "val_set_a": float(values["acc"]),
            "val_accuracy": float(values["acc"]),
        }


def test_objects_that_training_updates_are_reset_at_each_epoch(tmp_path: Path) -> None:
    """One that both steps update has a value for either."""

    class Training(Classifier):
        seen: Any
        train_count: Any

        least: Any

        def training_step(self, batch: Any) -> Any:
            loss = super().training_step(batch)
            self.seen.update(loss)
            self.train_count.update(torch.ones(len(batch[0])))
            self.least.update(loss)
            return {"loss": loss, "smallest": self.least, "twice": 2 * loss.detach()}

    def update(model: Any, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        loss = functional.cross_entropy(logits, targets)
        model.seen.update(loss)
        return {"loss": loss}

    parts = {
        "seen": torchmetrics.MaxMetric(),
        "train_count": torchmetrics.SumMetric(),
        "least": torchmetrics.MinMetric(),
    }
    run = plain_run(tmp_path)
    found = metrics_of(run, Training(update, **parts))
    for epoch in found:
        assert epoch["train_count"] == 42
        assert epoch["val_seen"] >= epoch["val_loss"]
    losses = [json.loads(line) for line in (run / "scalars.jsonl").read_text().splitlines()]
    for number, epoch in enumerate(found):
        of_steps = [row["train_loss"] for row in losses if "lr" in row and row["epoch"] == number]
        assert epoch["train_seen"] == max(of_steps)
        assert epoch["train_smallest"] == min(of_steps)
        assert epoch["train_twice"] == pytest.approx(2 * epoch["train_loss"])
        assert "train_least" not in epoch


def test_the_average_of_weights_is_measured_by_its_own_objects(tmp_path: Path) -> None:
    def update(model: Any, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
        model.accuracy.update(logits, targets)
        return {"right": (float((logits.argmax(1) == targets).sum()), float(len(targets)))}

    class Numpy(Callback):
        def on_validation_end(self, training: Loop, metrics: dict[str, Any]) -> None:
            validated: Any = training.validated
            assert validated is not training.engine.module
            metrics["val_same"] = validated.accuracy.compute().numpy()

    model = Classifier(update, accuracy=MulticlassAccuracy(3, average="micro"))
    run = plain_run(tmp_path, callbacks={"ema": {"decay": 0.9}})
    for epoch in metrics_of(run, model, callbacks={"numpy": Numpy()}):
        assert epoch["val_accuracy"] == epoch["val_same"] == pytest.approx(epoch["val_right"])


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda m, *_: {"f1": m.foreign[0]()}, "is a torchmetrics object outside of the model"),
        (lambda m, *_: {"matrix": m.matrix}, r"the metric 'matrix' is a tensor of shape \[3, 3\]"),
        (lambda m, *_: {"auroc": m.single}, "the metric 'auroc' cannot be computed: "),
        (lambda m, *_: m.measure_twice(), "two torchmetrics objects are called val_acc: give"),
        (lambda *_: None, "validation_step returns a NoneType"),
    ],
)
def test_what_cannot_be_a_metric_is_refused(returned: Any, message: str, tmp_path: Path) -> None:
    class NoValue(ListedSum):
        def compute(self) -> torch.Tensor:
            raise ValueError("there is but one class")

    def update(model: Any, logits: torch.Tensor, targets: torch.Tensor) -> Any:
        for part in (model.matrix, model.single):
            if part is not None:
                part.update(logits, targets) if part is model.matrix else part.update(logits)
        return returned(model)

    parts: dict[str, Any] = {
        "matrix": torchmetrics.ConfusionMatrix(task="multiclass", num_classes=3),
        "single": NoValue(),
    }
    if "two" in message:
        parts = {"matrix": None, "single": None, "scores": scores(), "others": scores()}
    if "NoneType" in message:
        parts = {"matrix": None, "single": None}

    class Twice(Classifier):
        scores: Any
        others: Any

        def measure_twice(self) -> None:
            for each in (self.scores, self.others):
                each.update(torch.eye(3), torch.arange(3))

    model = Twice(update, foreign=[torchmetrics.MeanMetric], **parts)
    with pytest.raises(MtfError, match=message):
        metrics_of(plain_run(tmp_path), model)


class Reporting(Callback):
    """A callback that looks at a matrix at the end of a validation, and adds metrics."""

    phases = (Phase.EPOCH_END,)

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        self.after_epochs: list[dict[str, float]] = []

    def on_validation_end(self, training: Loop, metrics: dict[str, Any]) -> None:
        module: Any = training.engine.module
        assert not torch.is_grad_enabled()
        assert not module.training
        self.calls.append(dict(metrics))
        metrics["val_counted"] = int(module.matrix.compute().sum())
        metrics["val_score"] = torch.tensor(-float(len(self.calls)))

    def after(self, phase: Phase, training: Loop) -> None:
        assert training.engine.module.training
        self.after_epochs.append(training.state.metrics)


def test_a_callback_adds_metrics_before_schedulers_and_monitors_see_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def update(model: Any, logits: torch.Tensor, targets: torch.Tensor) -> None:
        model.matrix.update(logits, targets)

    model = Classifier(update, matrix=torchmetrics.ConfusionMatrix("multiclass", num_classes=3))
    run = plain_run(tmp_path, checkpoint={"monitor": "val_score", "mode": "max", "keep_best": 1})
    config = read_config(run)
    optimizer, reporting = adam(model), Reporting()
    plateau = lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=0, factor=0.5)
    trainer = GenericTrainer(
        config,
        build_fabric(config, {"MTF_CPUS": "1"}),
        model,
        optimizer,
        plateau,
        run_dir=run,
        callbacks={"reporting": reporting},
    )
    trainer.fit(train_batches(), val_batches())
    assert len(reporting.calls) == EPOCHS
    assert [call.keys() for call in reporting.calls] == [{"train_loss"}] * EPOCHS
    assert [m["val_counted"] for m in reporting.after_epochs] == [9.0] * EPOCHS
    assert [e["metrics"]["val_score"] for e in events(run, "metrics")] == [-1.0, -2.0, -3.0]
    assert optimizer.param_groups[0]["lr"] == 1e-2 * 0.25  # it got worse twice
    assert list(result(run)["content"]["ranks"][0]["best"].values()) == [-1.0]
    said = "the metric 'matrix' is a tensor of shape [3, 3], not a number: it is not logged"
    assert capfd.readouterr().err.count(said) == 1


def test_a_callback_that_sets_no_number_is_named(tmp_path: Path) -> None:
    class Wrong(Callback):
        def on_validation_end(self, training: Loop, metrics: dict[str, Any]) -> None:
            metrics["val_text"] = "good"

    run, model = plain_run(tmp_path), net()
    config = read_config(run)
    fabric = build_fabric(config, {"MTF_CPUS": "1"})
    own = {"wrong": Wrong()}
    trainer = GenericTrainer(config, fabric, model, adam(model), run_dir=run, callbacks=own)
    with pytest.raises(MtfError, match="sets the metric 'val_text' to a str"):
        trainer.fit(train_batches(), val_batches())


# -- several ranks ---------------------------------------------------------------------------------

VALIDATED = 11  # 6 samples and 5: three batches of two, and two and a half


def update_on_ranks(model: Any, logits: torch.Tensor, targets: torch.Tensor) -> dict[str, Any]:
    model.scores.update(logits, targets)
    model.auroc.update(logits.softmax(1), targets)
    model.listed.update(logits)
    if model.rank == 1:
        model.only_one.update(logits)
    model.auroc.compute()  # of this rank's batches so far: the other rank need not call it
    extra = {"of_one": logits.sum()} if model.rank == 1 else {}
    return {"loss": functional.cross_entropy(logits, targets), **extra}


class SeeingAll(Callback):
    def on_validation_end(self, training: Loop, metrics: dict[str, Any]) -> None:
        module: Any = training.engine.module
        metrics[f"all_{training.rank_sync.rank}"] = module.auroc.compute()
        if training.rank_sync.rank == 1:
            assert float(module.only_one.compute()) == metrics["val_only_one"]
            assert float(module.auroc.compute()) == metrics["val_auroc"]


def fit_on_ranks(run: Path) -> None:
    config = read_config(run)
    parts = {"auroc": MulticlassAUROC(3), "listed": ListedSum(), "only_one": ListedSum()}
    rank = int(os.environ["SLURM_PROCID"])
    model = Classifier(update_on_ranks, scores=scores(), rank=rank, **parts)
    fabric = build_fabric(config, os.environ)
    own = {"seeing": SeeingAll()}
    trainer = GenericTrainer(config, fabric, model, adam(model), run_dir=run, callbacks=own)
    metrics = trainer.fit(
        DataLoader(samples(8, 1), batch_size=2), DataLoader(samples(VALIDATED, 2), batch_size=2)
    )
    (run / f"{rank}.json").write_text(json.dumps(metrics))
    if rank == 0:
        torch.save(model.net.state_dict(), run / "trained.pt")


def test_objects_are_merged_over_ranks_whose_batches_differ_in_number(tmp_path: Path) -> None:
    """Lists of other lengths, an object and a metric that only one rank has: nothing waits."""
    run = plain_run(tmp_path, training={"max_epochs": 1}, slurm={"ntasks_per_node": 2})
    assert train_ranks(run, 2, training=fit_on_ranks) == [COMPLETE] * 2
    model = net()
    model.load_state_dict(torch.load(run / "trained.pt", weights_only=True))
    collection, auroc = scores(), MulticlassAUROC(3)
    loss, sums = torch.zeros((), dtype=torch.float64), []
    of_one: list[torch.Tensor] = []
    inputs, targets = samples(VALIDATED, 2).tensors
    with torch.no_grad():
        for rank in range(2):
            mine = torch.arange(rank, VALIDATED, 2).split(2)
            for indices in mine:
                logits = model(inputs[indices])
                collection.update(logits, targets[indices])
                auroc.update(logits.softmax(1), targets[indices])
                sums.append(logits.sum())
                loss += functional.cross_entropy(logits, targets[indices]).double() * len(indices)
                if rank == 1:
                    of_one.append(logits.sum().double() * len(indices))
    values = collection.compute()
    (event,) = events(run, "metrics")
    found = event["metrics"]
    for rank in range(2):  # both decide by the same numbers, a callback's too
        assert json.loads((run / f"{rank}.json").read_text()) == found
    assert found.pop("val_loss") == pytest.approx(float(loss) / VALIDATED, rel=1e-12)
    assert found.pop("val_of_one") == pytest.approx(float(sum(of_one)) / 5, rel=1e-12)
    assert found == {
        "train_loss": found["train_loss"],
        "val_acc": float(values["acc"]),
        "val_f1": float(values["f1"]),
        **{f"val_recall_{i}": float(values["recall"][i]) for i in range(3)},
        "val_auroc": float(auroc.compute()),
        "all_0": float(auroc.compute()),  # and none of the second rank
        "val_listed": float(torch.stack(sums).sum()),
        "val_only_one": found["val_only_one"],
    }
    assert found["val_only_one"] == float(torch.stack(sums[3:]).sum())
