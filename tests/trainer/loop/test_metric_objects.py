"""torchmetrics objects are found in a model, and their state is saved and restored."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
import torchmetrics
from torch import nn
from torchmetrics.classification import MulticlassAccuracy
from torchmetrics.wrappers import BootStrapper, ClasswiseWrapper, MetricTracker, MinMaxMetric

from mtf.errors import MtfError
from mtf.trainer.compute.fabric import Fabric
from mtf.trainer.compute.rank_sync import RankSync
from mtf.trainer.loop.metric_objects import MetricObjects
from mtf.trainer.loop.metric_values import values_over_ranks
from tests.trainer.measured import ListedSum, Measured


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 3, generator=generator), torch.arange(6) % 3


def through_a_file(state: Any) -> Any:
    """Return a state as a resume reads it."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_objects_are_found_in_submodules_and_containers_and_named_by_their_path() -> None:
    objects = MetricObjects(Measured(4, 3))
    assert list(objects.outermost()) == [
        "train_acc",
        "shared",
        "recent",
        "scores",
        "auroc",
        "extremes",
        "heads.first",
        "plain.loss.0",
    ]
    assert {"scores.f1", "recent.base_metric"} <= objects.all().keys()
    assert MetricObjects(nn.Linear(2, 2)).all() == {}


class Wrapped(nn.Module):
    """A model with objects that keep state in attributes or in inner metrics."""

    def __init__(self) -> None:
        super().__init__()
        accuracy = MulticlassAccuracy(3, average="micro")
        self.metrics = nn.ModuleList(
            [
                Measured(4, 3),
                BootStrapper(accuracy.clone(), num_bootstraps=3),
                ClasswiseWrapper(MulticlassAccuracy(3, average=None)),
                accuracy + MulticlassAccuracy(3, average="macro"),
                MetricTracker(accuracy.clone()),
            ]
        )

    def update(self, seed: int, *, begins: bool = False) -> None:
        logits, targets = batch(seed)
        parts: Any = self.metrics
        measured, *others, tracker = parts
        with torch.no_grad():
            measured.validation_step((torch.cat([logits, logits], 1), targets))
            measured.training_step((torch.cat([logits, logits], 1), targets))
        if begins:
            tracker.increment()
        for metric in (*others, tracker):
            metric.update(logits, targets)


def values(model: Wrapped) -> list[Any]:
    return [found.compute() for found in MetricObjects(model).outermost().values()]


def test_a_restored_state_goes_on_as_if_nothing_had_happened() -> None:
    """Through two epochs, with a save inside each: extremes, groups and histories outlive a reset."""
    torch.manual_seed(0)
    model = Wrapped().eval()
    fresh = copy.deepcopy(model)
    resumed = fresh
    for epoch in range(2):
        MetricObjects(model).reset()
        model.update(10 * epoch, begins=True)
        resumed = copy.deepcopy(fresh)
        resumed.load_state_dict(model.state_dict())
        MetricObjects(resumed).put(through_a_file(MetricObjects(model).state()))
        rng = torch.get_rng_state()  # bootstrapping draws samples
        for each in (model, resumed):
            torch.set_rng_state(rng)
            each.update(10 * epoch + 1)
        torch.testing.assert_close(values(resumed), values(model), rtol=0, atol=0)
    tracker: Any = resumed.metrics[-1]
    assert tracker.n_steps == 2
    assert len(tracker.compute_all()) == 2


def test_states_that_no_checkpoint_can_hold_are_refused() -> None:
    class Odd(ListedSum):
        def update(self, value: torch.Tensor) -> None:
            odd: Any = object()
            self.parts.append(odd)

    model = nn.Module()
    model.odd = Odd()
    model.odd.update(torch.ones(1))
    with pytest.raises(MtfError, match="the state 'parts' of the metric Odd cannot be saved"):
        MetricObjects(model).state()


def test_a_checkpoint_with_an_object_that_the_model_lacks_is_refused() -> None:
    made_late = nn.Module()
    made_late.f1 = torchmetrics.MeanMetric()
    state = MetricObjects(made_late).state()
    with pytest.raises(MtfError, match="the state of the metric f1, which this model lacks"):
        MetricObjects(nn.Module()).put(state)


def test_an_object_with_several_values_names_them_after_itself_and_a_collection_does_not() -> None:
    """A ``MetricCollection`` is named by its members, which may have a prefix of their own."""
    model = nn.Module()
    model.extremes = MinMaxMetric(torchmetrics.MeanMetric())
    model.scores = torchmetrics.MetricCollection({"mean": torchmetrics.MeanMetric()})
    for value in (1.0, 3.0):
        model.extremes.update(value)
        model.extremes.compute()
        model.scores.update(value)
    alone = RankSync(Fabric(accelerator="cpu", devices=1))
    assert values_over_ranks(MetricObjects(model), alone, "val_", {}) == {
        "val_extremes_raw": 2.0,
        "val_extremes_min": 1.0,
        "val_extremes_max": 2.0,
        "val_mean": 2.0,
    }
