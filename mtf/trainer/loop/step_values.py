"""The values that a ``training_step`` returns, checked: a loss, and further scalars to log."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Iterator

# A number, or a tensor without dimensions on an accelerator, where reading it would wait.
Scalar = float | torch.Tensor

LOSS = "train_loss"


class Loss(NamedTuple):
    """A training batch's loss, and the further values that are logged beside it.

    Attributes:
        mean: with its graph.
        total: the sum, with its graph, where the step returned it with its count.
        own_count: what the step counted, such as tokens, or samples without those that the loss
            leaves out; None: the mean is over all samples.
        others: by the metric's name, a mean of the same kind as the loss's and None, or a sum and
            its count.
    """

    mean: torch.Tensor
    total: torch.Tensor | None = None
    own_count: Scalar | None = None
    others: Mapping[str, tuple[Scalar, Scalar | None]] = {}

    def weight(self, samples: int | None) -> Scalar:
        """Return the weight of the mean: what the step counted, else the batch's samples.

        Raises:
            MtfError: neither is known.
        """
        if self.own_count is not None:
            return self.own_count
        if samples is None:
            raise MtfError(
                "training_step returns a mean loss, but the number of samples in its batch is"
                " unknown: return a pair (sum, count), see docs/training.md"
            )
        return samples

    def pairs_of_others(self, weight: Scalar) -> Iterator[tuple[str, Scalar, Scalar]]:
        """Yield the name, sum and count of each further value; means have the loss's weight."""
        for name, (value, count) in self.others.items():
            yield (name, value * weight, weight) if count is None else (name, value, count)


def loss_of(returned: Any, step: str, *, trains: bool = True) -> Loss:
    """Return the loss, and the further values, that a training step has returned.

    Args:
        returned: a loss is a tensor, or a pair of its sum and a count.
        step: the name of the step, for messages.
        trains: whether the loss must have a graph; it has none in validation.

    Raises:
        MtfError: it is something else.
    """
    if isinstance(returned, torch.Tensor):
        return Loss(_checked(returned, step, trains=trains))
    others: Mapping[str, tuple[Scalar, Scalar | None]] = {}
    if isinstance(returned, Mapping):
        if "loss" not in returned:
            keys = ", ".join(map(str, returned)) or "none"
            raise MtfError(f"{step} returns a dict without the key 'loss', but with {keys}")
        others = _others({k: v for k, v in returned.items() if k != "loss"}, step)
        returned = returned["loss"]
    if not _is_pair(returned):
        return Loss(_checked(returned, step, trains=trains), others=others)
    total, count = (
        _checked(returned[0], step, trains=trains),
        _count(returned[1], f"{step} returns"),
    )
    number = nonzero(count)
    if isinstance(number, torch.Tensor):
        number = number.to(total.dtype)
    return Loss(total / number, total, count, others)


def scalar(value: Any) -> Scalar:
    """Return a number, or a tensor of one element, without waiting for an accelerator.

    Raises:
        TypeError, ValueError, RuntimeError: it is something else.
    """
    if not isinstance(value, torch.Tensor):
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    value = value.detach().reshape(())
    return float(value) if value.is_cpu else value.double()


def nonzero(count: Scalar) -> Scalar:
    """Return a count to divide a sum by: 1 in place of 0."""
    if isinstance(count, torch.Tensor):
        return torch.where(count == 0, torch.ones_like(count), count)
    return count or 1.0


def _checked(loss: Any, step: str, *, trains: bool) -> torch.Tensor:
    """Return a loss if it is one."""
    is_scalar = isinstance(loss, torch.Tensor) and loss.numel() == 1
    if is_scalar and (loss.requires_grad or not trains):
        return loss  # type: ignore[no-any-return]
    raise MtfError(f"{step} returns {_describe(loss)}")


def _describe(loss: Any) -> str:
    """Return a description of a value that is not a loss, and what to return instead."""
    if not isinstance(loss, torch.Tensor):
        return (
            f"{type(loss).__name__}: return the loss, a tensor, or a pair (sum, count), or a dict"
            " with the key 'loss'"
        )
    if loss.numel() != 1:
        return f"a tensor of shape {list(loss.shape)}: return one number, such as its mean"
    return "a loss that depends on no parameter: remove what cuts its graph (detach, no_grad, item)"


def _others(values: Mapping[Any, Any], step: str) -> dict[str, tuple[Scalar, Scalar | None]]:
    others: dict[str, tuple[Scalar, Scalar | None]] = {}
    for key, value in values.items():
        name = f"{key}" if str(key).startswith("train_") else f"train_{key}"
        if name == LOSS or name in others:
            raise MtfError(f"{step} returns two values for the metric {name}: rename {key!r}")
        where = f"{step} returns {key!r}:"
        try:
            is_pair = _is_pair(value)
            others[name] = (
                (scalar(value[0]), _count(value[1], where)) if is_pair else (scalar(value), None)
            )
        except (TypeError, ValueError, RuntimeError) as e:
            shown = (
                f"a tensor of shape {list(value.shape)}"
                if isinstance(value, torch.Tensor)
                else f"{type(value).__name__} {value!r}"[:100]
            )
            raise MtfError(
                f"{where} expected a number, such as a mean, or a pair (sum, count), got {shown}"
            ) from e
    return others


def _is_pair(value: Any) -> bool:
    return type(value) is tuple and len(value) == 2


def _count(value: Any, where: str) -> Scalar:
    """Return the count of a pair.

    Raises:
        MtfError: it is no count.
    """
    is_tensor = isinstance(value, torch.Tensor)
    if not (is_tensor and (value.requires_grad or value.numel() != 1)):
        try:
            count = scalar(value)
        except (TypeError, ValueError, RuntimeError):
            count = -1.0
        if isinstance(count, torch.Tensor) or (count >= 0 and math.isfinite(count)):
            return count
    raise MtfError(
        f"{where} a pair whose second value is not a count: expected a pair (sum, count), or the"
        " loss alone; further values go into a dict with the key 'loss'"
    )
