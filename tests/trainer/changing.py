"""Models, callbacks and data that change in the course of a training, as kinds that must resume exactly."""

from __future__ import annotations

import random
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from mtf.trainer.loop.callbacks import Callback
from mtf.trainer.loop.phases import Phase
from tests.trainer.hard_training import Augmented, Net

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtf.trainer.loop.loop import Loop


class Frozen(Net):
    """A model whose first layer does not train at first, and whose optimizer knows only the last."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__(hidden_size, num_classes)
        self.layers[0].requires_grad_(requires_grad=False)

    def configure_optimizers(self, config: Any) -> torch.optim.Optimizer:
        """Return an optimizer of all but the first layer."""
        return torch.optim.AdamW(self.layers[1:].parameters(), lr=config.lr)


class FrozenButKnown(Frozen):
    """The same, with an optimizer that knows all layers."""

    def configure_optimizers(self, config: Any) -> torch.optim.Optimizer:
        """Return an optimizer of all layers."""
        return torch.optim.AdamW(self.parameters(), lr=config.lr)


class Unfreeze(Callback):
    """Unfreezes the first layer in the second epoch, and gives it to the optimizer if asked to."""

    phases = (Phase.TRAIN_START_EPOCH,)

    def __init__(self, *, adds_group: bool = False) -> None:
        self._adds_group = adds_group

    def before(self, phase: Phase, training: Loop) -> None:
        """Unfreeze at the start of the second epoch."""
        del phase
        if training.state.epoch == 1:
            module: Any = training.engine.module
            module.layers[0].requires_grad_(requires_grad=True)
            if self._adds_group:
                (optimizer,) = training.engine.optimizers.values()
                optimizer.add_param_group(
                    {"params": list(module.layers[0].parameters()), "lr": 1e-3}
                )


class Weighing(Callback):
    """Weighs the loss by the epoch, and says so again after a resume."""

    phases = (Phase.TRAIN_START_EPOCH,)

    def before(self, phase: Phase, training: Loop) -> None:
        """Set the epoch's weight."""
        del phase
        self.on_resume(training)

    def on_resume(self, training: Loop) -> None:
        """Set the epoch's weight."""
        module: Any = training.engine.module
        module.weight = 1.0 + training.state.epoch


class Weighed(Net):
    """A model whose loss has a weight that no checkpoint holds."""

    weight = 0.0

    def training_step(self, batch: Any) -> torch.Tensor:
        """Return the weighed loss."""
        return self.weight * functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: Any) -> dict[str, torch.Tensor]:
        """Return the loss."""
        return {"loss": functional.cross_entropy(self(batch[0]), batch[1])}


class Lazy(nn.Sequential):
    """A model that learns the sizes of its layers from its first batch."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__(
            nn.LazyLinear(hidden_size),
            nn.LazyBatchNorm1d(),
            nn.Dropout(0.3),
            nn.LazyLinear(num_classes),
        )


class Plain(nn.Sequential):
    """A model without hooks, to be compiled or quantised."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__(
            nn.Linear(6, hidden_size),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(hidden_size, num_classes),
        )


def quantised(hidden_size: int, num_classes: int) -> nn.Module:
    """Return a model that trains with simulated quantisation: its observers are buffers that grow."""
    from torch.ao import quantization

    model = nn.Sequential(
        quantization.QuantStub(), Plain(hidden_size, num_classes), quantization.DeQuantStub()
    ).train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vars(model)["qconfig"] = quantization.get_default_qat_qconfig("fbgemm")
        prepared: nn.Module = quantization.prepare_qat(model)
    return prepared


class Growing(Augmented):
    """Samples that get noisier from epoch to epoch."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take note of the epoch."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        sample, target = super().__getitem__(index)
        return sample * (1 + self.epoch), target


class ByLength:
    """A batch sampler that cuts a shuffled order at a sum: another number of batches each epoch."""

    def __init__(self, size: int) -> None:
        draw = random.Random(0)
        self._lengths = [draw.randint(2, 30) for _ in range(size)]
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Shuffle anew."""
        self._epoch = epoch

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(len(self._lengths)))
        random.Random(self._epoch).shuffle(order)
        batch: list[int] = []
        for index in order:
            if len(batch) > 1 and sum(self._lengths[i] for i in [*batch, index]) > 70:
                yield batch
                batch = []
            batch.append(index)
        yield batch if len(batch) > 1 else [*batch, *batch]  # BatchNorm refuses a single sample


def by_length(split: str) -> Dataset[Any] | DataLoader[Any]:
    """Return batches of different sizes to train on."""
    data = Augmented(split)
    return DataLoader(data, batch_sampler=ByLength(len(data))) if split == "train" else data


HERE = "tests.trainer.changing"
OWN = {"type": "tests.trainer.hard_training:Stateful", "strength": 1e-3}
CHANGING: dict[str, Mapping[str, Any]] = {
    "unfreezing": {
        "model": {"type": f"{HERE}:FrozenButKnown"},
        "callbacks": {"unfreeze": {"type": f"{HERE}:Unfreeze"}, "own": OWN},
    },
    "param groups": {
        "model": {"type": f"{HERE}:Frozen"},
        "scheduler": None,
        "callbacks": {"unfreeze": {"type": f"{HERE}:Unfreeze", "adds_group": True}, "own": OWN},
    },
    "loss weights": {
        "model": {"type": f"{HERE}:Weighed"},
        "callbacks": {"weighing": {"type": f"{HERE}:Weighing"}},
    },
    "lazy": {"model": {"type": f"{HERE}:Lazy"}, "callbacks": {}},
    "quantisation": {"model": {"type": f"{HERE}:quantised"}, "callbacks": {"own": OWN}},
    "compiled, ragged end": {
        "model": {"type": f"{HERE}:Plain"},
        "training": {"compile": True},
    },
    "curriculum": {"data": {"dataset_name": f"{HERE}:Growing"}},
    "curriculum, workers": {"data": {"dataset_name": f"{HERE}:Growing", "num_workers": 2}},
    "sampler": {"data": {"dataset_name": f"{HERE}:by_length"}, "scheduler": None},
}
