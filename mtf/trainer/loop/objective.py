"""Objectives: compute a training batch's loss and a validation batch's metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.nn import functional

from mtf.errors import MtfError
from mtf.trainer.loop.metric_objects import has_metric_objects, is_metric_object
from mtf.trainer.loop.metric_values import prefixed
from mtf.trainer.loop.step_signatures import check_steps
from mtf.trainer.loop.step_values import Loss, loss_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

IGNORED = -100  # the target that torch's cross entropy leaves out
Totals = dict[str, tuple[torch.Tensor, float]]  # by metric: sum over samples, number of samples


class Objective(Protocol):
    """Computes loss and metrics of a batch that is on the device.

    Attributes:
        takes_turns: whether the optimizers take turns and ``loss`` is told whose turn it is.
        returned: the torchmetrics objects by name that the newest step returned.
    """

    takes_turns: bool
    returned: Mapping[str, Any]

    def inspected(self, batch: Any) -> Any:
        """Return the next batch; read what must be known of it before it is on the device."""
        ...

    def loss(self, batch: Any, turn: str | None = None) -> Loss:
        """Return the loss of a training batch, with its graph."""
        ...

    def totals(self, batch: Any, samples: int | None) -> Totals:
        """Return the sums and counts of a validation batch of ``samples``, None if unknown."""
        ...


class Classification:
    """Cross entropy and accuracy of ``(inputs, targets)``; the model returns logits [B, K]."""

    takes_turns = False

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward
        self.returned: Mapping[str, Any] = {}
        self._ignored = 0  # targets of the present batch that cross entropy leaves out

    def inspected(self, batch: Any) -> Any:
        """Return the next batch; count the targets that are left out of loss and accuracy."""
        targets = batch[1] if isinstance(batch, list | tuple) and len(batch) == 2 else None
        self._ignored = 0
        if (
            isinstance(targets, torch.Tensor)
            and targets.dtype is torch.int64
            and targets.numel()
            and int(targets.min()) < 0
        ):
            self._ignored = int((targets == IGNORED).sum())
        return batch

    def loss(self, batch: Any, turn: str | None = None) -> Loss:  # noqa: ARG002
        """Return the mean cross entropy of the targets that are classes."""
        inputs, targets = _pair(batch)
        returned = self._forward(inputs)
        logits = returned if type(returned) is torch.Tensor else _logits(returned)
        are_none = self._ignored and self._ignored == targets.numel()
        loss = _cross_entropy(logits, targets, "sum" if are_none else "mean")  # of none: 0, not NaN
        if not loss.requires_grad:
            raise MtfError(
                "the loss depends on no parameter that needs gradients: all of the model is frozen."
                " Set requires_grad for what is to be trained"
            )
        if self._ignored:
            counted = 1 - self._ignored / targets.numel()
            return Loss(loss, own_count=len(targets) * counted)
        return Loss(loss)

    def totals(self, batch: Any, samples: int | None) -> Totals:  # noqa: ARG002
        """Return the sums behind ``val_loss`` and ``val_accuracy``."""
        inputs, targets = _pair(batch)
        logits = _logits(self._forward(inputs))
        loss = _cross_entropy(logits, targets, "sum")
        right = (logits.argmax(dim=1) == targets).sum()
        count = float(targets.numel() - self._ignored)
        return {"val_loss": (loss, count), "val_accuracy": (right, count)}


class ModelSteps:
    """A model's own ``training_step(batch) -> loss`` and ``validation_step(batch) -> dict``.

    The loss is a mean over the batch's samples, or a pair ``(sum, count)``. A dict of ``loss`` and
    further values, or torchmetrics objects, logs these too, with the prefix ``train_`` unless they
    have it.

    With ``training_step(batch, optimizer)`` several optimizers take turns, each for one
    accumulation window; the step gets the name of the optimizer to compute the loss for. The
    dict's values are means over the batch, pairs ``(sum, count)`` for metrics that do not count
    samples, or torchmetrics objects of the model. Names get the prefix ``val_`` unless they have
    it. Without a ``validation_step``, ``val_loss`` is what ``training_step`` returns in evaluation
    mode.
    """

    def __init__(self, module: nn.Module, forward: nn.Module) -> None:
        self.takes_turns = check_steps(module)
        self._module = module
        self.returned: Mapping[str, Any] = {}
        self._name = type(module).__name__
        self._training_step: Callable[..., Any] = forward.training_step  # type: ignore[assignment]
        self._validation_step: Callable[[Any], Mapping[str, Any]] | None = getattr(
            forward, "validation_step", None
        )

    def inspected(self, batch: Any) -> Any:
        """Return the batch: the model's own steps say what they count."""
        return batch

    def loss(self, batch: Any, turn: str | None = None) -> Loss:
        """Call ``training_step`` and return its loss."""
        named = {"optimizer": turn} if self.takes_turns else {}
        returned: Any = self._training_step(batch, **named)
        self.returned = {}
        if isinstance(returned, Mapping):
            self.returned = {n: value for n, value in returned.items() if is_metric_object(value)}
            returned = {n: value for n, value in returned.items() if n not in self.returned}
        return loss_of(returned, f"{self._name}.training_step")

    def totals(self, batch: Any, samples: int | None) -> Totals:
        """Call ``validation_step`` and return its metrics as sums and counts."""
        values: Any
        if self._validation_step is None:
            if self.takes_turns:
                raise MtfError(
                    f"{self._name}.training_step takes an optimizer's name: add a"
                    " validation_step(batch), or set data.val_split: null"
                )
            values = self._validated_loss(batch, samples)
        else:
            values = self._validation_step(batch)
        if values is None and has_metric_objects(self._module):  # updated, nothing to return
            values = {}
        if not isinstance(values, Mapping):
            raise MtfError(
                f"{self._name}.validation_step returns a {type(values).__name__}: return a dict of"
                " metrics by name, each the batch's mean, a pair (sum, count), or a torchmetrics"
                " object"
            )
        self.returned = {name: value for name, value in values.items() if is_metric_object(value)}
        return {
            prefixed(name, "val_"): _total(name, value, samples)
            for name, value in values.items()
            if name not in self.returned
        }

    def _validated_loss(self, batch: Any, samples: int | None) -> Mapping[str, Any]:
        """Return the values of ``training_step`` as those of a validation step."""
        loss = loss_of(self._training_step(batch), f"{self._name}.training_step", trains=False)
        weight = loss.weight(samples)
        total = loss.mean.double() * weight if loss.total is None else loss.total
        others = loss.pairs_of_others(weight)
        return {"loss": (total, weight)} | {
            name.removeprefix("train_"): (value, count) for name, value, count in others
        }


def objective_of(module: nn.Module, forward: nn.Module) -> Objective:
    """Return a model's own objective if it has a ``training_step``, else that of a classifier."""
    if hasattr(module, "training_step"):
        return ModelSteps(module, forward)
    return Classification(forward)


def _logits(returned: Any) -> torch.Tensor:
    """Return a model's output.

    Raises:
        MtfError: it is no tensor.
    """
    if isinstance(returned, torch.Tensor):
        return returned
    raise MtfError(
        f"the model returns a {type(returned).__name__}, not logits [batch, classes]: define in it"
        " a training_step(batch) that returns the loss, and a validation_step(batch) that returns a"
        " dict of metrics"
    )


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor, reduction: str) -> torch.Tensor:
    """Return torch's cross entropy.

    Raises:
        MtfError: a target is not a class of the model; found on the CPU only.
    """
    try:
        return functional.cross_entropy(logits, targets, reduction=reduction)
    except IndexError as e:
        classes = logits.shape[1]
        wrong = sorted({*targets[(targets < 0) | (targets >= classes)].tolist()} - {IGNORED})
        raise MtfError(
            f"a batch has targets {', '.join(map(str, wrong[:10]))}, but the model distinguishes"
            f" {classes} classes, 0 to {classes - 1}: correct the data set's num_classes"
        ) from e
    except (TypeError, RuntimeError) as e:
        if not _are_classes(logits, targets):
            raise MtfError(
                f"cross entropy does not take targets {_described(targets)} for logits"
                f" {_described(logits)}: return class numbers (int64 [batch]), or define in the"
                " model a training_step(batch) with a loss of your own"
            ) from e
        raise


def _are_classes(logits: torch.Tensor, targets: Any) -> bool:
    """Return True for class numbers [B, ...] and logits [B, K, ...]."""
    is_number = isinstance(targets, torch.Tensor) and targets.dtype is torch.int64
    return is_number and targets.shape == logits.shape[:1] + logits.shape[2:]


def _described(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return f"of type {type(value).__name__}"
    return f"{value.dtype}{list(value.shape)}".removeprefix("torch.")


def _total(name: str, value: Any, samples: int | None) -> tuple[torch.Tensor, float]:
    is_pair = isinstance(value, tuple)
    if samples is None and not is_pair:
        raise MtfError(
            f"the metric {name!r} is a mean, but the number of samples in its batch is unknown:"
            " return a pair (sum, count), see docs/training.md"
        )
    try:
        if samples is None or is_pair:
            return torch.as_tensor(value[0]).reshape(()), float(value[1])
        return torch.as_tensor(value).reshape(()).double() * samples, float(samples)
    except (TypeError, ValueError, RuntimeError) as e:
        raise MtfError(
            f"the metric {name!r} must be a number or a pair (sum, count), got {value!r}"
        ) from e


def _pair(batch: Any) -> tuple[Any, torch.Tensor]:
    if isinstance(batch, list | tuple) and len(batch) == 2:
        return batch[0], batch[1]
    raise MtfError(
        f"a batch is a {type(batch).__name__}, not a pair (inputs, targets): define in the model a"
        " training_step(batch) that returns the loss, and a validation_step(batch) that returns a"
        " dict of metrics"
    )
