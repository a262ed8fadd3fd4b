"""A model's own steps: signatures that mtf can call, and words for the others before the training."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from mtf.errors import MtfError
from mtf.trainer.loop.objective import objective_of
from mtf.trainer.loop.step_signatures import check_steps, note_on_hooks

if TYPE_CHECKING:
    from collections.abc import Callable


def model(step: Callable[..., Any], **more: Any) -> nn.Module:
    """Return a model with a ``training_step``, and further methods."""
    kind = type("Net", (nn.Linear,), {"training_step": step, **more})
    built: nn.Module = kind(6, 3)
    return built


def plain(self: Any, batch: Any) -> Any:
    return self(batch).mean()


def optional(self: Any, batch: Any, scale: float = 1.0, **_: Any) -> Any:
    return self(batch).mean() * scale


def in_turn(self: Any, batch: Any, optimizer: str) -> Any:
    return self(batch).mean() * len(optimizer)


def in_turn_by_name(self: Any, batch: Any, *, optimizer: str) -> Any:
    return self(batch).mean() * len(optimizer)


def star(self: Any, batch: Any, *args: Any) -> Any:
    return self(batch).mean() * len(args)


def indexed(self: Any, batch: Any, batch_idx: int) -> Any:
    return self(batch).mean() * batch_idx


def open_turn(self: Any, batch: Any, optimizer: str | None = None) -> Any:
    return self(batch).mean() * len(optimizer or "")


def by_name_alone(self: Any, *, batch: Any) -> Any:
    return self(batch).mean()


def nothing_taken(self: Any) -> Any:
    return self.weight.mean()


def nothing_returned(self: Any, batch: Any) -> None:
    self(batch).mean()


def logging(self: Any, batch: Any) -> Any:
    loss = self(batch).mean()
    self.log("train_loss", loss)
    return loss


@functools.wraps(plain)
def decorated(*args: Any, **kwargs: Any) -> Any:
    return plain(*args, **kwargs)


def undescribed(*args: Any, **kwargs: Any) -> Any:
    return plain(*args, **kwargs)


@pytest.mark.parametrize("step", [plain, optional, decorated, undescribed])
def test_a_step_that_takes_a_batch_trains_all_optimizers_together(step: Any) -> None:
    net = model(step)
    objective = objective_of(net, net)
    assert not objective.takes_turns
    assert objective.loss(torch.ones(2, 6)).mean.requires_grad


@pytest.mark.parametrize("step", [in_turn, in_turn_by_name])
def test_a_step_that_takes_an_optimizer_is_told_whose_turn_it_is(step: Any) -> None:
    net = model(step)
    objective = objective_of(net, net)
    assert objective.takes_turns
    once, twice = (objective.loss(torch.ones(2, 6), turn).mean for turn in ("a", "ab"))
    torch.testing.assert_close(twice, 2 * once)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (star, "Net.training_step(batch: 'Any', *args: 'Any'): nothing is passed as *args. Remove"),
        (indexed, "nothing is passed as batch_idx. Remove it: define it with (self, batch), or"),
        (open_turn, "optimizer has a default, so it is open whether the optimizers take turns"),
        (by_name_alone, "it takes no batch as its first argument: define it with (self, batch)"),
        (nothing_taken, "it takes no batch as its first argument"),
        (nothing_returned, "Net.training_step returns nothing: return the loss"),
        (logging, "Net.training_step uses self.log, which only a LightningModule has: return a di"),
        ("no method", "Net.training_step is no method: define it with (self, batch)"),
    ],
)
def test_any_other_step_is_refused_with_the_cure(step: Any, message: str) -> None:
    with pytest.raises(MtfError) as refused:
        check_steps(model(step))
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            indexed,
            "Net.validation_step(batch: 'Any', batch_idx: 'int'): nothing is passed as batch",
        ),
        (star, "nothing is passed as *args. Remove *args: define it with (self, batch)"),
        (nothing_returned, "Net.validation_step returns nothing: return a dict of metrics by name"),
        (logging, "Net.validation_step uses self.log"),
    ],
)
def test_a_validation_step_is_refused_before_the_first_epoch(step: Any, message: str) -> None:
    with pytest.raises(MtfError) as refused:
        check_steps(model(plain, validation_step=step))
    assert message in str(refused.value)


def test_a_method_of_ones_own_may_be_named_like_one_of_lightning() -> None:
    assert not check_steps(model(logging, log=lambda *_: None))


def test_hooks_that_nothing_calls_are_noted() -> None:
    net = model(plain, on_train_epoch_end=lambda _: None)
    assert note_on_hooks(net) == (
        "mtf never calls on_train_epoch_end of Net, as Lightning does: write a callback instead"
        " (mtf.trainer.Callback)"
    )
    assert note_on_hooks(model(plain)) is None


@pytest.mark.parametrize(
    ("batch", "returned", "message"),
    [
        ((torch.ones(2, 6), torch.ones(2)), None, "does not take targets float32[2] for logits fl"),
        ((torch.ones(2, 6), [0, 1]), None, "does not take targets of type list for logits float32"),
        (
            (torch.ones(2, 6), torch.tensor([0, 1])),
            ("logits",),
            "the model returns a tuple, not lo",
        ),
    ],
)
def test_a_classifier_says_what_does_not_fit(batch: Any, returned: Any, message: str) -> None:
    net = nn.Linear(6, 3)
    forward: Any = net if returned is None else lambda _: returned
    with pytest.raises(MtfError) as refused:
        objective_of(net, forward).loss(batch)
    assert message in str(refused.value)


def test_a_model_that_is_frozen_as_a_whole_is_refused() -> None:
    net = nn.Linear(6, 3).requires_grad_(requires_grad=False)
    with pytest.raises(MtfError, match="all of the model is frozen"):
        objective_of(net, net).loss((torch.ones(2, 6), torch.tensor([0, 1])))
