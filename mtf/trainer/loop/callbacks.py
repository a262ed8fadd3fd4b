"""Callbacks, which are called before and after phases of a training, and the built-in ones.

A callback's ``state_dict`` is part of every checkpoint. No cut lies between a phase and its
callbacks, so a resume never calls one twice.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mtf.errors import MtfError
from mtf.trainer.components.registry import call, load, plugins, unknown_name
from mtf.trainer.compute.plain_attributes import names_set_by
from mtf.trainer.compute.structure import (
    copy_of,
    follow,
    put_buffer,
    put_saved_buffers,
    shape_of,
)
from mtf.trainer.loop.metric_values import merged_over_ranks
from mtf.trainer.loop.phases import Phase

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.loop.loop import Loop
    from mtf.trainer.storage.checkpoint_store import Saved


class Callback:
    """Base class that does nothing: derive from it, and override the methods you need.

    ``training`` is the loop: ``training.state`` (epoch, global_step, metrics), ``training.config``,
    ``training.batch`` and ``training.loss`` (after a resume in the middle of a batch, the batch is
    None and the loss has no graph), ``training.engine.module`` and ``.optimizers``,
    ``training.fabric``; ``training.validated``, the module that is validated (the average of
    ``ema``, for one); ``training.end(reason)`` ends the training at the end of this epoch. With
    several ranks, each rank calls its own callbacks.

    Attributes:
        phases: the phases that ``before`` and ``after`` are called for; the others cost nothing.
    """

    phases: Collection[Phase] = ()

    def on_start(self, training: Loop) -> None:
        """Prepare: called once a process, before all that follows."""

    def before_load(self, training: Loop, saved: Mapping[str, Any]) -> None:
        """Build the structure that a resumed training had; called before its state is loaded.

        That is needed for modules and parameters which the training has added, removed or made
        greater. Parameters that were frozen or unfrozen, groups of parameters and buffers need
        nothing: mtf restores them.

        Args:
            training: the training as it is built.
            saved: the state, not to be changed: ``epoch``, ``global_step`` and ``phase`` of its
                cut, ``model`` (tensors by name), ``optimizers``, ``schedulers`` and ``callbacks``
                (their states by name). Decide by the names and shapes in it: a cut may lie on
                either side of the phase in which a callback changes the structure.
        """

    def on_resume(self, training: Loop) -> None:
        """Set what depends on the place in the training and is no part of its state.

        Called once the whole state is loaded, also that of ``init_from`` with ``load: all``. A
        resume in the middle of an epoch does not come to the epoch's start again: what ``before``
        sets there, such as the weight of a loss, has to be set here as well. Random numbers that
        it draws are not missed later.
        """

    def before(self, phase: Phase, training: Loop) -> None:
        """Act before a phase is executed."""

    def after(self, phase: Phase, training: Loop) -> None:
        """Act after a phase was executed, before the training may stop."""

    def on_validation_end(self, training: Loop, metrics: dict[str, Any]) -> None:
        """Act on the epoch's metrics, or add some, before schedulers and monitors see them.

        It is called on every rank, in evaluation mode and without gradients. A metric is a number;
        the first rank's counts. torchmetrics objects of the model still hold their state, that of
        all ranks. No cut lies between
        it and the end of the epoch.
        """

    def on_checkpoint(self, training: Loop, saved: Saved) -> None:
        """Act on a durable checkpoint; called on the first rank, between two phases.

        A checkpoint written in the background is announced at the next save, or at the end or stop
        of the training: ``saved`` has its epoch and step, ``training`` is further on. The last one
        before a process is killed may never be announced.
        """

    def on_exception(self, training: Loop, error: BaseException) -> None:
        """Act on an error that ends the training; it is raised again afterwards."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resume needs, as containers of tensors, text and numbers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the state that ``state_dict`` returned."""

    def evaluated(self) -> torch.nn.Module | None:
        """Return the module to validate instead of the trained one, None for the trained one."""
        return None


class EarlyStopping(Callback):
    """Ends the training when a metric has not improved for some epochs.

    Args:
        monitor: the metric.
        mode: ``min`` or ``max``.
        patience: number of epochs without improvement after which the training ends.
        min_delta: an improvement must be greater than this.
    """

    phases = (Phase.EPOCH_END,)

    def __init__(
        self, monitor: str, mode: str = "min", patience: int = 5, min_delta: float = 0.0
    ) -> None:
        self._monitor, self._mode = monitor, mode
        self._patience, self._min_delta = patience, min_delta
        self._best: float | None = None
        self._waited = 0

    def after(self, phase: Phase, training: Loop) -> None:
        """Compare the epoch's metric with the best so far.

        Raises:
            MtfError: the metric does not exist.
        """
        del phase
        metrics = training.state.metrics
        if self._monitor not in metrics:
            raise MtfError(
                f"callbacks.early_stopping.monitor: no metric {self._monitor!r}. Metrics are"
                f" {', '.join(metrics)}"
            )
        value = metrics[self._monitor]
        if self._is_better(value):
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited >= self._patience:
            best = "" if self._best is None else f", best {self._best:g}"
            training.end(
                f"early stopping: {self._monitor} has not improved for {self._waited} epochs{best}"
            )

    def _is_better(self, value: float) -> bool:
        if math.isnan(value) or self._best is None:
            return not math.isnan(value)
        gain = self._best - value if self._mode == "min" else value - self._best
        return gain > self._min_delta

    def state_dict(self) -> dict[str, Any]:
        """Return the best value and the number of epochs since."""
        return {"best": self._best, "waited": self._waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the saved state."""
        self._best, self._waited = state["best"], state["waited"]


class EMA(Callback):
    """Keeps an exponential moving average of the weights, and validates with it.

    Buffers are copied. Checkpoints hold the average under ``callbacks``, with the names of the
    module's state.

    Args:
        decay: weight of the average so far at each update, from 0 to below 1.
        every_n_steps: optimizer steps between two updates.
        evaluate: whether validation runs on the average.
    """

    phases = (Phase.INIT, Phase.TRAIN_BATCH_OPTIM_STEP)

    def __init__(self, decay: float = 0.999, every_n_steps: int = 1, *, evaluate: bool = True):
        self._decay, self._every, self._evaluate = decay, every_n_steps, evaluate
        self._average: AveragedModel | None = None
        self._trained: torch.nn.Module | None = None

    def on_start(self, training: Loop) -> None:
        """Make a copy of the module for the average."""
        self._trained = module = training.engine.module
        averages = get_ema_multi_avg_fn(self._decay)
        self._average = AveragedModel(torch.nn.Identity(), multi_avg_fn=averages)
        self._average.module = copy_of(module)
        self._average.n_averaged.fill_(1)  # at 0, an update would copy
        self._average.eval()

    def after(self, phase: Phase, training: Loop) -> None:
        """Start from the present weights, and add the weights after each step."""
        assert self._average is not None
        if phase is Phase.INIT:  # a warm start may have loaded other weights
            self._average.module.load_state_dict(training.engine.module.state_dict())
        elif training.state.global_step % self._every == 0:
            follow(self._average.module, training.engine.module)
            self._average.update_parameters(training.engine.module)

    def state_dict(self) -> dict[str, Any]:
        """Return the average."""
        assert self._average is not None
        module = self._average.module
        held = module.state_dict()
        unsaved = {name: b for name, b in module.named_buffers() if name not in held}
        return {"average": held, "buffers": unsaved}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from the saved average."""
        assert self._average is not None
        assert self._trained is not None
        module, held = self._average.module, state["average"]
        if not _has_parameters_of(held, module):
            follow(module, self._trained)  # whose structure is restored already
        put_saved_buffers(module, held, dict(module.named_parameters()))
        module.load_state_dict(held)
        unsaved = dict.fromkeys(n for n, _ in module.named_buffers() if n not in held)
        for name, value in {**unsaved, **state["buffers"]}.items():
            path, _, last = name.rpartition(".")
            put_buffer(module.get_submodule(path), last, value, persistent=False)

    def evaluated(self) -> torch.nn.Module | None:
        """Return the averaged module."""
        return self._average.module if self._average is not None and self._evaluate else None


def _has_parameters_of(held: Mapping[str, Any], module: torch.nn.Module) -> bool:
    """Return True if a module's parameters fit a saved state, before its buffers do."""
    modules = {name for name, _ in module.named_modules()}
    return all(name.rpartition(".")[0] in modules for name in held) and all(
        name in held and shape_of(parameter) in (None, shape_of(held[name]))
        for name, parameter in module.named_parameters()
    )


def overrides_before_load(callback: Callback) -> bool:
    """Return True if a callback builds another structure before a state is loaded."""
    return type(callback).before_load is not Callback.before_load


def build_callbacks(config: ExperimentConfig, *, monitor: str) -> dict[str, Callback]:
    """Return the callbacks of a configuration by name.

    Args:
        config: has the section ``callbacks``.
        monitor: the metric to watch where the section names none.

    Raises:
        MtfError: a type or key is unknown.
    """
    section = config.callbacks
    built: dict[str, Callback] = {}
    if section.ema is not None:
        built["ema"] = EMA(**section.ema.model_dump())
    for name, given in section.further.items():
        built[name] = _custom(name, given)
    if (stopping := section.early_stopping) is not None:
        watched = stopping.monitor or monitor
        mode = stopping.mode or (config.checkpoint.mode if watched == monitor else "min")
        built["early_stopping"] = EarlyStopping(
            watched, mode, stopping.patience, stopping.min_delta
        )
    return built


Handler = Callable[["Loop"], Phase]
# phases of which a resume may skip those that came before
_ONCE_AN_EPOCH = frozenset(
    {
        *(Phase.INIT, Phase.TRAIN_START_EPOCH, Phase.SCHEDULER_EPOCH_STEP),
        *(Phase.VAL_START_EPOCH, Phase.EPOCH_END),
    }
)


def with_callbacks(
    handlers: Mapping[Phase, Handler], callbacks: Collection[Callback]
) -> dict[Phase, Handler]:
    """Return the handlers of the phases, with calls of the callbacks around them."""
    wrapped = dict(handlers)
    for phase, handler in handlers.items():
        interested = [callback for callback in callbacks if phase in callback.phases]
        if interested or (
            callbacks and phase is Phase.EPOCH_END
        ):  # ``training.end`` takes effect there
            called = [_Watched(c) if phase in _ONCE_AN_EPOCH else c for c in interested]
            wrapped[phase] = functools.partial(_call_around, phase, handler, called)
    return wrapped


def _call_around(
    phase: Phase, handler: Handler, interested: list[Callback], training: Loop
) -> Phase:
    for callback in interested:
        callback.before(phase, training)
    following = handler(training)
    for callback in interested:
        callback.after(phase, training)
    ends = phase is Phase.EPOCH_END and training.state.ended_by is not None
    return Phase.TRAINING_COMPLETE if ends else following


class _Watched(Callback):
    """Calls a callback, and says once that it sets what a resume would lack."""

    def __init__(self, callback: Callback) -> None:
        self._callback = callback
        cls, base = type(callback), Callback
        # then it sets it after a resume too
        self._is_done = (
            cls.on_resume is not base.on_resume or cls.load_state_dict is not base.load_state_dict
        )

    def before(self, phase: Phase, training: Loop) -> None:
        self._watch(self._callback.before, phase, training)

    def after(self, phase: Phase, training: Loop) -> None:
        self._watch(self._callback.after, phase, training)

    def _watch(self, call: Callable[[Phase, Loop], None], phase: Phase, training: Loop) -> None:
        calling = functools.partial(call, phase, training)
        if self._is_done:
            calling()
        elif changed := names_set_by(calling, training.engine.module):
            self._is_done = True
            training.say(
                f"the callback {type(self._callback).__name__} sets {', '.join(changed[:5])} at"
                f" {phase}, and no checkpoint holds that: a resume would go on without it. Set it"
                " in on_resume(training) too, or make it a buffer of the model"
            )


def with_own_metrics(
    callbacks: Collection[Callback], training: Loop, metrics: dict[str, float]
) -> dict[str, float]:
    """Call each ``on_validation_end``; return the metrics with those that it adds or replaces.

    Raises:
        MtfError: a callback sets a metric to something that is no number.
    """
    base = Callback.on_validation_end
    called = [one for one in callbacks if type(one).on_validation_end is not base]
    if not called:
        return metrics
    training.engine.enter_evaluation()
    with torch.no_grad(), merged_over_ranks(training.val_metrics, training.rank_sync):
        for callback in called:
            seen: dict[str, Any] = dict(metrics)
            callback.on_validation_end(training, seen)
            metrics = metrics | {name: _number(callback, name, v) for name, v in seen.items()}
    training.engine.leave_evaluation()
    shared: dict[str, float] = training.rank_sync.broadcast(metrics)
    return shared


def _number(callback: Callback, name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError) as e:
        raise MtfError(
            f"{type(callback).__name__}.on_validation_end sets the metric {name!r} to a"
            f" {type(value).__name__}: set it to a number"
        ) from e


def _custom(name: str, given: Any) -> Callback:
    asked = dict(given)
    target = asked.pop("type")
    key = f"callbacks.{name}"
    if ":" in target:
        factory = load(target, key=f"{key}.type")
    elif (point := plugins("mtf.callbacks").get(target)) is not None:
        factory = point.load()
    else:
        raise unknown_name(f"{key}.type", target, set(plugins("mtf.callbacks")))
    made = call(factory, key=key, asked=asked, offered={})
    if not isinstance(made, Callback):
        raise MtfError(
            f"{key}.type: {target} must return an mtf.trainer.Callback, got a {type(made).__name__}"
        )
    return made
