"""Learning-rate schedulers of torch by name, and the interval at which each one steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch.optim import lr_scheduler

from mtf.errors import MtfError
from mtf.trainer.components.optimizers import OPTIMIZER
from mtf.trainer.components.registry import call, load, unknown_name

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from mtf.spec.schema.sections import SchedulerConfig

Interval = Literal["step", "epoch"]
Mode = Literal["min", "max"]


@dataclass(frozen=True)
class Schedule:
    """A learning-rate scheduler and the interval at which it steps.

    Attributes:
        monitor: the metric that it gets at the end of each epoch.
        end: the attribute with the number of steps after which its rates stay as they are.
    """

    scheduler: lr_scheduler.LRScheduler
    interval: Interval
    monitor: str | None = None
    end: str | None = None

    def skip(self, steps: int) -> None:
        """Take ``steps`` steps, one by one: most schedulers compute a rate from the one before."""
        for _ in range(steps):
            self._step()

    def take_over_history(self, state: Mapping[str, Any]) -> None:
        """Take the metric history out of the state of another ``ReduceLROnPlateau``."""
        vars(self.scheduler).update({k: v for k, v in state.items() if k in _PLATEAU_HISTORY})

    def after_step(self) -> None:
        """Take the step that follows an optimizer step."""
        if self.interval == "step":
            self._step()

    def _step(self) -> None:
        # a scheduler of fixed length stays at its end: a training may take more steps than were
        # planned, if its data gives more batches than it says
        total = getattr(self.scheduler, self.end or "total_steps", None)
        if total is None or self.scheduler.last_epoch < total:
            self._advance()

    def _advance(self) -> None:
        """Take a step.

        Raises:
            MtfError: it fails, and the optimizer has other groups than the scheduler knows.
        """
        try:
            self.scheduler.step()
        except (KeyError, IndexError, ValueError) as e:
            known = len(getattr(self.scheduler, "base_lrs", ()))
            groups = len(self.scheduler.optimizer.param_groups)
            if not 0 < known < groups:
                raise
            kind = type(self.scheduler).__name__
            raise MtfError(
                f"{kind} knows {known} of the optimizer's {groups} parameter groups and cannot go"
                f" on ({type(e).__name__}: {e}): begin with all groups (requires_grad_ False keeps"
                " parameters frozen), or use a scheduler that computes each rate from the one"
                " before, such as cosine, step or plateau"
            ) from e

    def after_epoch(self) -> None:
        """Take the step that follows the training part of an epoch."""
        if self.interval == "epoch" and self.monitor is None:
            self._advance()

    def after_metrics(self, metrics: Mapping[str, float]) -> None:
        """Take the step that needs the epoch's metrics.

        Raises:
            MtfError: the monitored metric is missing.
        """
        if self.monitor is None:
            return
        if self.monitor not in metrics:
            raise MtfError(
                f"scheduler.monitor: no metric {self.monitor!r}. Metrics are {', '.join(metrics)}"
            )
        plateau: Any = self.scheduler  # its step takes a metric, that of others an epoch
        plateau.step(metrics[self.monitor])


# the metric history in the state of ReduceLROnPlateau; the rest are settings
_PLATEAU_HISTORY = frozenset(
    {"best", "num_bad_epochs", "cooldown_counter", "last_epoch", "_last_lr"}
)


@dataclass(frozen=True)
class Length:
    """The length of a training in optimizer steps and in epochs."""

    steps: int
    epochs: int

    def of(self, interval: Interval) -> int:
        """Return the length in the unit of an interval."""
        return self.steps if interval == "step" else self.epochs


@dataclass(frozen=True)
class LengthToCount:
    """The length of a training whose optimizer steps are counted only when somebody asks."""

    count_steps: Callable[[], int]
    epochs: int

    def of(self, interval: Interval) -> int:
        """Return the length in the unit of an interval."""
        return self.count_steps() if interval == "step" else self.epochs


# Short names: the class, its interval, and defaults computed from the length and the learning rates
# of the parameter groups.
_Defaults = Callable[[int, list[float]], Mapping[str, Any]]
_ENDS = frozenset({"T_max", "total_iters", "total_steps", "epochs"})  # keys that set a length
_SHORT: dict[str, tuple[str, Interval, _Defaults]] = {
    "cosine": ("CosineAnnealingLR", "step", lambda total, _: {"T_max": total}),
    "linear": (
        "LinearLR",
        "step",
        lambda total, _: {"start_factor": 1.0, "end_factor": 0.0, "total_iters": total},
    ),
    "polynomial": ("PolynomialLR", "step", lambda total, _: {"total_iters": total}),
    "onecycle": (
        "OneCycleLR",
        "step",
        lambda total, rates: {"max_lr": rates, "total_steps": total},
    ),
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
    config: SchedulerConfig,
    optimizer: Optimizer,
    length: Length | LengthToCount,
    *,
    monitor: str,
    modes: Mapping[str, Mode] = {},
) -> Schedule:
    """Return the schedule that a configuration names.

    Besides the scheduler's own keys, the section takes ``interval`` (``step`` or ``epoch``) and,
    for a scheduler that watches a metric, ``monitor``. ``mode`` says whether lower (``min``) or
    higher values of that metric are better.

    Args:
        config: the section.
        optimizer: the optimizer (not wrapped by Fabric) whose learning rate is scheduled.
        length: the length of the whole training; schedulers without a length of their own get it.
        monitor: the metric to watch unless the section names another.
        modes: whether lower or higher values are better, of the metrics for which it is configured.

    Raises:
        MtfError: a name or key is unknown or missing.
    """
    asked = dict(config.further)
    factory, interval, short = _find(config.type)
    interval = _interval(asked.pop("interval", interval))
    watched = str(asked.pop("monitor", None) or monitor)
    offered: dict[str, Any] = {}
    end = None
    if short is not None:
        rates = [float(group["lr"]) for group in optimizer.param_groups]
        total = length.of(interval)
        offered = dict(_SHORT[short][2](total, rates))
        end = next((k for k in offered if k in _ENDS and not asked.keys() & _ENDS), None)
    if _is_plateau(factory) and "mode" not in asked:
        offered["mode"] = _mode_of(watched, modes)
    if asked.get("cycle_momentum", True):
        _require_momentum(factory, optimizer)
    scheduler = call(
        factory, key="scheduler", asked=asked, offered=offered, parts={"optimizer": optimizer}
    )
    return replace(schedule_of(scheduler, interval, monitor=watched), end=end)


def schedule_of(
    scheduler: lr_scheduler.LRScheduler, interval: Interval | None = None, *, monitor: str
) -> Schedule:
    """Return the schedule of a scheduler, with the usual interval of its class by default."""
    if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
        return Schedule(scheduler, "epoch", monitor)
    if interval is None:
        short = _LONG.get(type(scheduler).__name__.lower())
        interval = _SHORT[short][1] if short else "step"
    return Schedule(scheduler, interval)


Scheduler = lr_scheduler.LRScheduler | Schedule
Schedulers = Scheduler | Mapping[str, Scheduler] | None


def schedules_of(given: Schedulers, *, monitor: str) -> dict[str, Schedule]:
    """Return schedules by the name of their optimizer, see ``optimizers.optimizers_by_name``."""
    if given is None:
        return {}
    schedulers = given if isinstance(given, Mapping) else {OPTIMIZER: given}
    return {
        name: s if isinstance(s, Schedule) else schedule_of(s, monitor=monitor)
        for name, s in schedulers.items()
    }


def check_schedules(schedules: Mapping[str, Schedule], optimizers: Mapping[str, Optimizer]) -> None:
    """Check that each schedule changes the rates of the optimizer that it is given for.

    Raises:
        MtfError: it changes those of another one, or an optimizer has none beside others that do.
    """
    if schedules and schedules.keys() != optimizers.keys():
        raise MtfError(
            f"there are schedulers for {', '.join(schedules)}, and the optimizers are"
            f" {', '.join(optimizers)}: give each optimizer one, such as ConstantLR(factor=1)"
        )
    for name, schedule in schedules.items():
        scheduled: Any = getattr(schedule.scheduler, "optimizer", optimizers[name])
        if getattr(scheduled, "optimizer", scheduled) is not optimizers[name]:  # without Fabric's
            raise MtfError(
                f"the scheduler of {name} was built for another optimizer, whose learning rates"
                " nothing uses: build it with the optimizer that is trained with"
            )


def _find(name: str) -> tuple[Any, Interval, str | None]:
    """Return the class that a name stands for, its interval, and its short name if it has one."""
    if ":" in name:
        return load(name, key="scheduler.type"), "step", None
    short = _LONG.get(name.lower(), name.lower())
    if short in _SHORT:
        class_name, interval, _ = _SHORT[short]
        return getattr(lr_scheduler, class_name), interval, short
    if name.lower() in _CLASSES:
        return _CLASSES[name.lower()], "step", None
    raise unknown_name("scheduler.type", name, {*_SHORT, *_CLASSES})


def _is_plateau(factory: Any) -> bool:
    return isinstance(factory, type) and issubclass(factory, lr_scheduler.ReduceLROnPlateau)


def _require_momentum(factory: Any, optimizer: Optimizer) -> None:
    """Refuse a scheduler that cycles the momentum of an optimizer that has none.

    Raises:
        MtfError: it does.
    """
    is_cyclic = factory in (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR)
    if is_cyclic and not optimizer.defaults.keys() & {"momentum", "betas"}:
        raise MtfError(
            f"scheduler.type: {factory.__name__} also cycles the momentum, and"
            f" {type(optimizer).__name__} has none: set scheduler.cycle_momentum: false, or choose"
            " another optimizer"
        )


def _mode_of(metric: str, modes: Mapping[str, Mode]) -> Mode:
    """Return the direction in which a metric improves.

    Raises:
        MtfError: nothing says it; a guess could lower the rates of a training that goes well.
    """
    known: Mapping[str, Mode] = {"val_accuracy": "max", **modes}
    if metric in known:
        return known[metric]
    if "loss" in metric:
        return "min"
    raise MtfError(
        f"scheduler.mode: are lower or higher values of {metric} better? Set mode: min or mode: max"
    )


def _interval(value: Any) -> Interval:
    if value not in get_args(Interval):
        raise MtfError(f"scheduler.interval: expected step or epoch, got {value!r}")
    interval: Interval = value
    return interval
