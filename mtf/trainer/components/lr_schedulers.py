"""Learning-rate schedulers of torch by name, and when each takes its step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from torch.optim import lr_scheduler

from mtf.errors import MtfError
from mtf.trainer.components.optimizers import OPTIMIZER
from mtf.trainer.components.registry import call, load, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer

    from mtf.spec.schema.sections import SchedulerConfig

Interval = Literal["step", "epoch"]


@dataclass(frozen=True)
class Schedule:
    """A scheduler and when it takes its step."""

    scheduler: lr_scheduler.LRScheduler
    interval: Interval
    monitor: str | None = None  # the metric it is given, at the end of an epoch

    def skip(self, ticks: int) -> None:
        """Take so many steps at once; a cycle that comes to its end stays there.

        One by one, since most schedulers compute a rate from the one before it.
        """
        for _ in range(ticks):
            self._step()

    def remember(self, state: Mapping[str, Any]) -> None:
        """Go on from what another scheduler that follows a metric has seen."""
        vars(self.scheduler).update({k: v for k, v in state.items() if k in _SEEN})

    def after_step(self) -> None:
        """Take the step that follows an optimizer step; a cycle that is at its end stays there.

        A training gets longer than planned where fewer ranks go on with it.
        """
        if self.interval == "step":
            self._step()

    def _step(self) -> None:
        total = getattr(self.scheduler, "total_steps", None)
        if total is None or self.scheduler.last_epoch < total:
            self.scheduler.step()

    def after_epoch(self) -> None:
        """Take the step that follows an epoch's training."""
        if self.interval == "epoch" and self.monitor is None:
            self.scheduler.step()

    def after_metrics(self, metrics: Mapping[str, float]) -> None:
        """Take the step that needs the epoch's metrics.

        Raises:
            MtfError: the monitored one is not among them.
        """
        if self.monitor is None:
            return
        if self.monitor not in metrics:
            raise MtfError(
                f"scheduler.monitor: no metric {self.monitor!r}; there are {', '.join(metrics)}"
            )
        self.scheduler.step(metrics[self.monitor])  # type: ignore[arg-type]


# what ReduceLROnPlateau has gathered; the rest of its state are settings
_SEEN = frozenset({"best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr"})


@dataclass(frozen=True)
class Length:
    """How long a training is, in both units."""

    steps: int
    epochs: int

    def of(self, interval: Interval) -> int:
        """Return the length in the unit of an interval."""
        return self.steps if interval == "step" else self.epochs


# Short names: the class, when it steps, and what it gets that the user did not say.
_Defaults = "Callable[[int, float], Mapping[str, Any]]"
_SHORT: dict[str, tuple[str, Interval, Callable[[int, float], Mapping[str, Any]]]] = {
    "cosine": ("CosineAnnealingLR", "step", lambda total, _: {"T_max": total}),
    "linear": (
        "LinearLR",
        "step",
        lambda total, _: {"start_factor": 1.0, "end_factor": 0.0, "total_iters": total},
    ),
    "polynomial": ("PolynomialLR", "step", lambda total, _: {"total_iters": total}),
    "onecycle": ("OneCycleLR", "step", lambda total, lr: {"max_lr": lr, "total_steps": total}),
    "step": ("StepLR", "epoch", lambda total, _: {"step_size": max(1, total // 3)}),
    "multistep": (
        "MultiStepLR",
        "epoch",
        lambda total, _: {"milestones": [total // 2, total * 3 // 4]},
    ),
    "exponential": ("ExponentialLR", "epoch", lambda *_: {"gamma": 0.95}),
    "constant": ("ConstantLR", "epoch", lambda *_: {"factor": 1.0}),
    "plateau": ("ReduceLROnPlateau", "epoch", lambda *_: {}),
    "warm_restarts": (
        "CosineAnnealingWarmRestarts",
        "epoch",
        lambda total, _: {"T_0": max(1, total // 3)},
    ),
}
_CLASSES: dict[str, type] = {
    name.lower(): found
    for name, found in vars(lr_scheduler).items()
    if isinstance(found, type)
    and issubclass(found, lr_scheduler.LRScheduler)
    and found is not lr_scheduler.LRScheduler
}
_LONG = {name.lower(): short for short, (name, _, _) in _SHORT.items()}


def build_schedule(
    config: SchedulerConfig, optimizer: Optimizer, length: Length, *, monitor: str
) -> Schedule:
    """Return the schedule of a configuration.

    Besides the scheduler's own keys, the section takes ``interval`` (``step`` or ``epoch``) and,
    for one that watches a metric, ``monitor``.

    Args:
        config: the section.
        optimizer: the raw one, whose learning rate is scheduled.
        length: of the whole training, which schedulers without an own length are fitted to.
        monitor: the metric that is watched unless the section says another.

    Raises:
        MtfError: a name or key is unknown or missing.
    """
    asked = dict(config.further)
    factory, interval, defaults = _find(config.type)
    interval = _interval(asked.pop("interval", interval))
    watched = asked.pop("monitor", None)
    offered = dict(defaults(length.of(interval), optimizer.param_groups[0]["lr"]))
    scheduler = call(
        factory, key="scheduler", asked=asked, offered={"optimizer": optimizer, **offered}
    )
    return schedule_of(scheduler, interval, monitor=str(watched or monitor))


def schedule_of(
    scheduler: lr_scheduler.LRScheduler, interval: Interval | None = None, *, monitor: str
) -> Schedule:
    """Return when a ready-made scheduler takes its step: its kind's usual interval unless said."""
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        return Schedule(scheduler, "epoch", monitor)
    if interval is None:
        short = _LONG.get(type(scheduler).__name__.lower())
        interval = _SHORT[short][1] if short else "step"
    return Schedule(scheduler, interval)


Scheduler = lr_scheduler.LRScheduler | Schedule
Schedulers = Scheduler | Mapping[str, Scheduler] | None


def schedules_of(given: Schedulers, *, monitor: str) -> dict[str, Schedule]:
    """Return schedules by their optimizers' names, see ``optimizers.by_name``."""
    if given is None:
        return {}
    several = given if isinstance(given, Mapping) else {OPTIMIZER: given}
    return {
        name: one if isinstance(one, Schedule) else schedule_of(one, monitor=monitor)
        for name, one in several.items()
    }


def _find(name: str) -> tuple[Any, Interval, Callable[[int, float], Mapping[str, Any]]]:
    if ":" in name:
        return load(name, key="scheduler.type"), "step", lambda *_: {}
    short = _LONG.get(name.lower(), name.lower())
    if short in _SHORT:
        class_name, interval, defaults = _SHORT[short]
        return getattr(lr_scheduler, class_name), interval, defaults
    if name.lower() in _CLASSES:
        return _CLASSES[name.lower()], "step", lambda *_: {}
    raise unknown("scheduler.type", name, {*_SHORT, *_CLASSES})


def _interval(said: Any) -> Interval:
    if said not in ("step", "epoch"):
        raise MtfError(f"scheduler.interval: expected step or epoch, got {said!r}")
    return said  # type: ignore[no-any-return]  # just compared
