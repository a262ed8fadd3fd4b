"""A model with torchmetrics objects of every sort: counts, lists, groups, wrappers, containers."""

from __future__ import annotations

from typing import Any

import torch
import torchmetrics
from torch import nn
from torch.nn import functional
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC, MulticlassF1Score
from torchmetrics.wrappers import MinMaxMetric, Running

from tests.trainer.hard_training import Net


def scores() -> torchmetrics.MetricCollection:
    """Return accuracy and F1, which share their state, and the accuracy of each class."""
    return torchmetrics.MetricCollection(
        {
            "acc": MulticlassAccuracy(3, average="micro"),
            "f1": MulticlassF1Score(3, average="macro"),
            "recall": MulticlassAccuracy(3, average=None),
        }
    )


class ListedSum(torchmetrics.Metric):
    """A metric whose list is not reduced over ranks: it has as many parts as there were batches."""

    parts: list[torch.Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("parts", default=[], dist_reduce_fx=None)
        self.batches = 0  # no declared state

    def update(self, value: torch.Tensor) -> None:
        """Add the batch's sum to the list."""
        self.parts.append(value.detach().sum())
        self.batches += 1

    def compute(self) -> torch.Tensor:
        """Return the sum of all parts."""
        return torch.stack(self.parts).sum()


class Measured(Net):
    """A model that updates its metric objects and returns some of them."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__(hidden_size, num_classes)
        self.train_acc = MulticlassAccuracy(num_classes, average="micro")
        self.shared = torchmetrics.MeanMetric()  # updated in both steps
        self.recent: Any = Running(torchmetrics.MeanMetric(), window=3)
        self.scores = scores()
        self.auroc = MulticlassAUROC(num_classes)
        self.auroc.persistent(True)  # its lists are in the model's state as well
        self.extremes = MinMaxMetric(torchmetrics.MeanMetric())
        self.heads = nn.ModuleDict({"first": ListedSum()})
        self.plain = {"loss": [torchmetrics.MeanMetric()]}

    def training_step(self, batch: Any) -> dict[str, Any]:
        """Return the loss, and an object by a name of its own."""
        logits = self(batch[0])
        loss = functional.cross_entropy(logits, batch[1])
        self.train_acc.update(logits, batch[1])
        self.shared.update(loss)
        self.recent.update(loss.detach())
        return {"loss": loss, "latest": self.recent, "so_far": self.train_acc.compute()}

    def validation_step(self, batch: Any) -> dict[str, Any]:
        """Return the batch's loss, and two objects by names of its own."""
        logits = self(batch[0])
        loss = functional.cross_entropy(logits, batch[1])
        self.scores.update(logits, batch[1])
        self.auroc.update(logits.softmax(1), batch[1])
        self.shared.update(loss)
        self.extremes.update(loss)
        first: Any = self.heads["first"]
        first.update(logits)
        self.plain["loss"][0].update(loss, weight=len(logits))
        return {"loss": loss, "ranking": self.auroc, "mean": self.plain["loss"][0]}
