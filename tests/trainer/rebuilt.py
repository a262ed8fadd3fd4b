"""Trainings whose structure, or whose state outside of tensors, changes while they train."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from mtf.trainer.loop.callbacks import Callback
from mtf.trainer.loop.phases import Phase
from tests.trainer.hard_training import Net

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer

    from mtf.trainer.loop.loop import Loop

HERE = "tests.trainer.rebuilt"


class AtEpoch(Callback):
    """Changes the training at the start of its second epoch."""

    phases = (Phase.TRAIN_START_EPOCH,)

    def before(self, phase: Phase, training: Loop) -> None:
        """Change it once."""
        del phase
        if training.state.epoch == 1:
            self.change(training)

    def change(self, training: Loop) -> None:
        """Change the training."""


# -- what mtf restores by itself -------------------------------------------------------------------


class Frozen(Net):
    """A net whose first layers are frozen at first."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__(hidden_size, num_classes)
        self.layers[:2].requires_grad_(requires_grad=False)


class Unfreeze(AtEpoch):
    """Unfreezes the first layers, and freezes the bias of the last one."""

    def change(self, training: Loop) -> None:
        """Change the parameters that need gradients."""
        layers: Any = training.engine.module.get_submodule("layers")
        layers[:2].requires_grad_(requires_grad=True)
        layers[3].bias.requires_grad_(requires_grad=False)


class WithOwnOptimizer(Frozen):
    """A frozen net whose optimizer has the last layer alone."""

    def configure_optimizers(self, config: Any) -> torch.optim.Optimizer:
        """Return it, with a rate of numpy."""
        rate: Any = np.float32(config.lr)
        return torch.optim.AdamW(self.layers[3].parameters(), lr=rate)


class Recent(NamedTuple):
    """The kind of an update, and its newest steps."""

    kind: str
    steps: deque[float]


class OwnOptimizer(torch.optim.Optimizer):
    """An optimizer whose moments have another type than its parameters, beside other values."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, {"lr": np.float32(lr), "scale": np.ones(2)})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Take a step that depends on all of its state."""
        del closure
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: Any, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["moment"] = torch.zeros_like(parameter, dtype=torch.float64)
            state["norms"] = np.zeros(2, dtype=np.float32)
            state["recent"] = Recent("plain", deque(maxlen=3))
            state["parts"] = [{"sum": np.float32(0), "text": "a"}]
        state["moment"].mul_(0.9).add_(parameter.grad.double())
        state["norms"] += np.float32(parameter.grad.norm())
        state["recent"].steps.append(float(state["norms"][0]))
        state["parts"][0]["sum"] += np.float32(1.1)
        assert state["recent"].kind == "plain"
        assert state["parts"][0]["text"] == "a"
        damping = 1 + 0.01 * sum(state["recent"].steps) + 0.01 * float(state["parts"][0]["sum"])
        group["scale"] *= 0.999
        rate = group["lr"] * group["scale"][0] / damping
        with torch.no_grad():
            parameter -= (float(rate) * state["moment"]).float()


class WithMoments(Net):
    """A net with that optimizer."""

    def configure_optimizers(self, config: Any) -> torch.optim.Optimizer:
        """Return it."""
        return OwnOptimizer(self.parameters(), config.lr)


class Named(WithOwnOptimizer):
    """A frozen net whose optimizer knows its parameters by name."""

    def configure_optimizers(self, config: Any) -> torch.optim.Optimizer:
        """Return it."""
        return torch.optim.AdamW(self.layers[3].named_parameters(), lr=config.lr)


class AddNamedGroup(Unfreeze):
    """Gives that optimizer another group."""

    def change(self, training: Loop) -> None:
        """Add it."""
        super().change(training)
        layers: Any = training.engine.module.get_submodule("layers")
        group: Any = {"params": layers[0].named_parameters(), "lr": 1e-3}
        training.engine.optimizers["optimizer"].add_param_group(group)


class AddGroups(Unfreeze):
    """Gives the optimizer two more groups, with rates of their own."""

    def change(self, training: Loop) -> None:
        """Add the groups."""
        super().change(training)
        layers: Any = training.engine.module.get_submodule("layers")
        optimizer = training.engine.optimizers["optimizer"]
        optimizer.add_param_group({"params": layers[0].parameters(), "lr": np.float64(1e-3)})
        optimizer.add_param_group({"params": layers[1].parameters(), "lr": 3e-3, "name": "norm"})


class SplitGroups(AtEpoch):
    """Splits the optimizer's one group in two."""

    def change(self, training: Loop) -> None:
        """Move every second parameter to a group with another rate."""
        groups = training.engine.optimizers["optimizer"].param_groups
        parameters = groups[0]["params"]
        groups[0]["params"] = parameters[::2]
        groups.append({**groups[0], "params": parameters[1::2], "lr": 1e-3})


class Lazy(nn.Module):
    """A net whose sizes are known with the first batch."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Dropout(0.3), nn.LazyLinear(num_classes)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.layers(inputs)


def quantised(hidden_size: int, num_classes: int) -> nn.Module:
    """Return a net that is trained for quantisation: its observers' buffers change their shapes."""
    from torch.ao import quantization as q

    module = nn.Sequential(
        q.QuantStub(), nn.Linear(6, hidden_size), nn.ReLU(), nn.Linear(hidden_size, num_classes)
    )
    vars(module)["qconfig"] = q.get_default_qat_qconfig("fbgemm")
    return q.prepare_qat(module.train())


class Buffered(Net):
    """A net with buffers that grow, come later, go, or get another type."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__(hidden_size, num_classes)
        self.register_buffer("queue", torch.zeros(0, 6))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("later", None)
        self.register_buffer("once", torch.ones(6))
        self.register_buffer("spare", torch.ones(6), persistent=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits that depend on all buffers."""
        if self.training:
            self.queue: Any = torch.cat([self.queue, inputs.detach()])[-10:]
            self.count: Any = self.count + 0.5
            self.later: Any = inputs.detach().mean(0)
            if not hasattr(self, "made"):
                self.register_buffer("made", torch.zeros(6))
                self.register_buffer("hidden", torch.zeros(6), persistent=False)
            self.made: Any = self.made + self.later
            self.hidden: Any = self.hidden - self.later
            self.once: Any = None
            self.spare: Any = None
        shift = torch.zeros(6) if self.later is None else self.later + self.queue.mean(0)
        scale = 1 + 0.01 * float(self.count) + sum(b is not None for b in (self.once, self.spare))
        others = [getattr(self, name, 0.0) for name in ("made", "hidden")]
        return super().forward(scale * inputs + 0.1 * shift + sum(0.01 * other for other in others))


class Mode(Enum):
    """A class of the user whose members are part of a callback's state."""

    WARM = "warm"
    HOT = "hot"


class Seen(NamedTuple):
    """Likewise."""

    batches: int
    loss: float


@dataclass
class Settings:
    """Likewise."""

    factor: float
    history: deque[float]


class NumpyState(Callback):
    """A callback with many kinds of values in its state, on which the weights depend."""

    phases = (Phase.TRAIN_BATCH_END,)

    def __init__(self) -> None:
        self._state: dict[str, Any] = {
            "sum": np.float32(0.1),
            "sums": np.zeros(3, dtype=np.float32),
            "generator": np.random.default_rng(5),
            "torch": torch.Generator().manual_seed(5),
            "recent": deque(maxlen=3),
            "counts": defaultdict(int),
            "mode": Mode.WARM,
            "seen": Seen(0, 0.0),
            "settings": Settings(0.5, deque([1.0])),
            "folder": Path("/data"),
        }

    def after(self, phase: Phase, training: Loop) -> None:
        """Change every value, and move a bias by numbers that depend on them and on their types."""
        del phase
        state = self._state
        state["sum"] = state["sum"] * np.float32(1.1)
        state["sums"] += state["generator"].random(3).astype(np.float32)
        state["recent"].append(np.float16(state["sums"][0]))
        state["counts"][training.state.train.batch] += 1
        state["mode"] = Mode.HOT if state["mode"] is Mode.WARM else Mode.WARM
        state["seen"] = Seen(state["seen"].batches + 1, float(state["sum"]))
        state["settings"].factor *= 0.99
        drawn = torch.rand(1, generator=state["torch"]).item()
        move = state["sum"] + sum(state["recent"]) + drawn * state["settings"].factor
        if state["mode"] is Mode.HOT and state["folder"].name == "data":
            with torch.no_grad():
                bias = next(p for n, p in training.engine.module.named_parameters() if "bias" in n)
                bias.add_(1e-3 * float(move) * len(state["counts"]))

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        return self._state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state."""
        self._state = dict(state)


class Factor:
    """A schedule as an object whose attributes are part of the scheduler's state."""

    def __init__(self) -> None:
        self.calls = np.int64(0)
        self.trace = np.zeros(2)

    def __call__(self, step: int) -> Any:
        """Return a factor of numpy that depends on the number of calls."""
        self.calls += 1
        self.trace += step
        return np.float64(1 / (1 + 0.01 * self.calls + 1e-4 * self.trace[0]))


class WarmUp(LRScheduler):
    """A scheduler that drives another after a while, and holds a function."""

    def __init__(self, optimizer: Optimizer, after: LRScheduler) -> None:
        self.after: Any = after
        self.combine: Any = lambda rate: rate
        super().__init__(optimizer)

    def step(self, epoch: int | None = None) -> None:
        """Step this one, and from its third step on the other."""
        del epoch
        self.last_epoch += 1
        if self.last_epoch > 2:
            self.after.step()
        self._last_lr = [self.combine(group["lr"]) for group in self.optimizer.param_groups]


def numpy_schedule(optimizer: Optimizer) -> LRScheduler:
    """Return a scheduler with numbers of numpy in its state and in the optimizer's groups."""
    return LambdaLR(optimizer, Factor())


def nested_schedule(optimizer: Optimizer) -> LRScheduler:
    """Return a scheduler that drives another."""
    return WarmUp(optimizer, LambdaLR(optimizer, lambda step: np.float64(1 / (1 + step))))


# -- what a callback restores ----------------------------------------------------------------------


class GrowHead(AtEpoch):
    """Gives the net a wider second half, and tells the optimizer."""

    def change(self, training: Loop) -> None:
        """Add a layer."""
        self._grow(training)
        parameters = training.engine.module.get_submodule("head").parameters()
        training.engine.optimizers["optimizer"].add_param_group({"params": parameters})

    def before_load(self, training: Loop, saved: Mapping[str, Any]) -> None:
        """Add the layer if the state has it; mtf adds the group."""
        if "head.weight" in saved["model"]:
            self._grow(training)

    def _grow(self, training: Loop) -> None:
        training.engine.module.add_module("head", nn.Linear(3, 3))


class Growing(Net):
    """A net that may get another layer."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        head = getattr(self, "head", None)
        logits = super().forward(inputs)
        return logits if head is None else logits + head(logits)


class NormWeights(AtEpoch):
    """Parametrises a layer in the second epoch."""

    def change(self, training: Loop) -> None:
        """Replace a weight by two parameters, in the optimizer too."""
        layer, weight = self._parametrise(training)
        optimizer = training.engine.optimizers["optimizer"]
        optimizer.state.pop(weight, None)
        (group,) = optimizer.param_groups
        originals = list(layer.parametrizations.weight.parameters())
        group["params"] = [p for p in group["params"] if p is not weight] + originals

    def before_load(self, training: Loop, saved: Mapping[str, Any]) -> None:
        """Parametrise it if it was."""
        if "layers.0.parametrizations.weight.original0" in saved["model"]:
            self.change(training)

    def _parametrise(self, training: Loop) -> tuple[Any, nn.Parameter]:
        layers: Any = training.engine.module.get_submodule("layers")
        weight = layers[0].weight
        normed: Any = nn.utils.parametrizations
        normed.weight_norm(layers[0])
        return layers[0], weight


class Weighted(Net):
    """A net whose loss has a second part with a weight."""

    weight_of_aux = 0.0

    def training_step(self, batch: Any) -> torch.Tensor:
        """Return the loss."""
        logits = self(batch[0])
        return (
            functional.cross_entropy(logits, batch[1]) + self.weight_of_aux * logits.pow(2).mean()
        )

    def validation_step(self, batch: Any) -> dict[str, torch.Tensor]:
        """Return the loss without the second part."""
        return {"loss": functional.cross_entropy(self(batch[0]), batch[1])}


class Curriculum(Callback):
    """Sets the weight by the epoch."""

    phases = (Phase.TRAIN_START_EPOCH,)

    def before(self, phase: Phase, training: Loop) -> None:
        """Set it at the start of an epoch."""
        del phase
        self.on_resume(training)

    def on_resume(self, training: Loop) -> None:
        """Set it."""
        torch.rand(1)  # what is drawn here is not missed later
        module: Any = training.engine.module
        module.weight_of_aux = 0.1 * (training.state.epoch + 1)


def _with(callback: str, model: str, **more: Any) -> dict[str, Any]:
    return {
        "model": {"type": f"{HERE}:{model}"},
        "callbacks": {"changing": {"type": f"{HERE}:{callback}"}},
        **more,
    }


REBUILT: dict[str, dict[str, Any]] = {
    "frozen, then others": _with("Unfreeze", "Frozen"),
    "groups added": _with("AddGroups", "WithOwnOptimizer", scheduler=None),
    "named group added": _with("AddNamedGroup", "Named", scheduler=None),
    "own optimizer": {"model": {"type": f"{HERE}:WithMoments"}, "scheduler": None},
    "groups split": _with("SplitGroups", "Growing", scheduler=None),
    "lazy modules": {
        "model": {"type": f"{HERE}:Lazy", "hidden_size": 8},
        "optimizer": {"type": "sgd"},
    },
    "quantised": {"model": {"type": f"{HERE}:quantised"}},
    "buffers": {
        "model": {"type": f"{HERE}:Buffered"},
        "callbacks": {"ema": {"decay": 0.9}},
    },
    "growing, average": _with("GrowHead", "Growing", scheduler=None),
    "numpy": _with("NumpyState", "Growing", scheduler={"type": f"{HERE}:numpy_schedule"}),
    "nested scheduler": {"scheduler": {"type": f"{HERE}:nested_schedule"}},
    "growing": _with("GrowHead", "Growing", scheduler=None),
    "weight norm": _with("NormWeights", "Growing", scheduler=None),
    "loss by epoch": _with("Curriculum", "Weighted"),
}
for _name in ("lazy modules", "quantised", "growing, average", "weight norm"):
    REBUILT[_name].setdefault("callbacks", {})["ema"] = {"decay": 0.9}
