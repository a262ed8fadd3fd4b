"""Begins a run from another one's checkpoint, which the ledger has named with its sha256."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf.errors import MtfError
from mtf.trainer.loop.phases import Phase
from mtf.trainer.loop.state import TrainMicroState
from mtf.trainer.resume import snapshot
from mtf.trainer.resume.compatibility import fit_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer

    from mtf.core.vocabulary.records import Origin
    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.components.lr_schedulers import Schedule
    from mtf.trainer.loop.callbacks import Callback
    from mtf.trainer.loop.loop import Loop


def origin_of(config: ExperimentConfig) -> Origin | None:
    """Return the checkpoint that a run is to begin from, None where its spec names none.

    Raises:
        MtfError: it names one that was never looked up in the ledger.
    """
    if config.init_from is None:
        return None
    if config.mtf.origin is None:
        raise MtfError(
            f"init_from: {config.init_from.run} was not looked up in the ledger: mtf sync does that"
            " when it submits a run"
        )
    return config.mtf.origin


def read_origin(origin: Origin) -> snapshot.Content:
    """Return the content of the checkpoint that a run begins from: of the bytes that were verified.

    Raises:
        MtfError: it is not there, or not what the ledger has recorded.
    """
    path = Path(origin.path)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            if found == origin.sha256:
                file.seek(0)
                return snapshot.read(file)
    except OSError as e:
        raise MtfError(
            f"init_from: the checkpoint of {origin.run} cannot be read: {path}: {e.strerror}. Put"
            " it back, or let init_from name another run"
        ) from e
    raise MtfError(
        f"init_from: {path} is not the checkpoint that the ledger has recorded for"
        f" {origin.run}: its sha256 is {found[:12]}..., recorded is {origin.sha256[:12]}...."
        " Put it back, or let init_from name another run"
    )


def warm_start(loop: Loop, callbacks: Mapping[str, Callback], config: ExperimentConfig) -> None:
    """Put the loop where ``init_from`` says; without it, do nothing.

    ``load: all`` goes on where that training stood. What it has gathered is taken up: weights,
    optimizers' state, counters, callbacks' state, random numbers. What is set is this run's own:
    learning rates, weight decay, the schedule, which stands where it would stand had this run
    trained from the start. What is logged is this run's alone.

    Raises:
        MtfError: the checkpoint is not what was recorded, or does not fit.
    """
    origin, asked = origin_of(config), config.init_from
    if origin is None or asked is None:
        return
    content = read_origin(origin)
    left_out = ""
    if asked.load == "all":
        _check_place(content, origin, config)
        _take_up_all(loop, callbacks, content)
    else:
        left_out = _load_weights(loop, content, origin, strict=asked.strict)
    loop.journal.initialised(vars(origin) | {"load": asked.load, "left_out": left_out})
    loop.say(f"init_from: {asked.load} of {origin.run}, step {origin.step} (sha256 verified)")


# -- the weights alone -----------------------------------------------------------------------------


def _load_weights(loop: Loop, content: snapshot.Content, origin: Origin, *, strict: bool) -> str:
    """Load those that fit; return in words which do not."""
    weights: dict[str, Any] = content.get("model", content)
    module = loop.engine.module
    fit = fit_of(module, weights)
    if not fit.fitting or (strict and not fit.is_whole):
        hint = ". init_from.strict: false takes those that fit" if fit.fitting else ""
        raise MtfError(f"init_from: the weights of {origin.run} do not fit the model: {fit}{hint}")
    if not fit.is_whole:
        loop.say(f"init_from: {len(fit.fitting)} weights are taken; {fit}")
    module.load_state_dict({name: weights[name] for name in fit.fitting}, strict=False)
    return str(fit)


# -- all of a training -----------------------------------------------------------------------------


def _check_place(content: snapshot.Content, origin: Origin, config: ExperimentConfig) -> None:
    """Refuse a place that this run cannot go on from.

    Raises:
        MtfError: there is none, it is the end, or it lies in an epoch of other batches.
    """
    if "ranks" not in content:
        raise MtfError(f"init_from: {origin.run} has saved states of its own: say load: weights")
    first, epochs = content["ranks"][0], config.training.max_epochs
    if first["epoch"] >= epochs:
        raise MtfError(
            f"init_from: {origin.run} has trained for {first['epoch']} epochs, and"
            f" training.max_epochs is {epochs}: say more, they are counted on"
        )
    then = content.get("config")  # None: an early version's
    if first["phase"] in _BETWEEN_EPOCHS or then is None:
        return
    differing = snapshot.differing(then, snapshot.deciding(config))
    if of_batches := [text for key, text in differing.items() if key.startswith(_OF_BATCHES)]:
        raise MtfError(
            f"init_from: {origin.run} stopped inside epoch {first['epoch'] + 1}, whose other"
            f" batches are not to be had: {'; '.join(of_batches)}. Put it back, or say"
            " load: weights"
        )


_BETWEEN_EPOCHS = {Phase.INIT, Phase.TRAIN_START_EPOCH, Phase.TRAINING_COMPLETE}
_OF_BATCHES = (
    "data.", "training.batch_size", "training.combine", "training.gradient_accumulation_steps",
    "training.seed",
)  # fmt: skip


def _take_up_all(loop: Loop, callbacks: Mapping[str, Callback], content: snapshot.Content) -> None:
    settings = {name: _settings(one) for name, one in loop.engine.optimizers.items()}
    untouched: dict[str, Any] = {name: {} for name in loop.schedules}
    own = {"scalars_bytes": 0, "fixed": getattr(loop.train, "fixed", {}), "config": None}
    snapshot.put(loop, callbacks, {**content, **own, "schedulers": untouched})
    reached = {name: _rates(one) for name, one in loop.engine.optimizers.items()}
    for name, optimizer in loop.engine.optimizers.items():
        _set(optimizer, settings[name])
    for name, schedule in loop.schedules.items():
        _move_on(schedule, loop, content, name, reached[name])
    for name, callback in callbacks.items():
        if name not in content["callbacks"] and Phase.INIT in callback.phases:
            callback.before(Phase.INIT, loop)  # it was not there at that beginning
            callback.after(Phase.INIT, loop)
    state = loop.state
    if state.phase is Phase.TRAINING_COMPLETE:
        state.phase, state.ended_by = Phase.TRAIN_START_EPOCH, None
        state.train = TrainMicroState()  # gradients that are not finite may have ended an epoch
        loop.take_up()
        for optimizer in loop.engine.optimizers.values():
            optimizer.zero_grad()
    state.best = {}  # those are files of the other run


def _settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


def _rates(optimizer: Optimizer) -> list[Any]:
    return [group["lr"] for group in optimizer.param_groups]


def _set(optimizer: Optimizer, settings: list[dict[str, Any]]) -> None:
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        parameters = group["params"]
        group.clear()
        group.update({"params": parameters, **own})


def _move_on(
    schedule: Schedule, loop: Loop, content: snapshot.Content, name: str, reached: list[Any]
) -> None:
    """Bring a schedule from its own beginning to where the training stands."""
    there = content["schedulers"].get(name, {})
    if schedule.monitor is None:
        schedule.skip(_ticks(schedule, loop, content, there))
    elif "num_bad_epochs" in there:  # it has followed a metric, and its rates are what came of it
        schedule.take_over_history(there)
        for group, rate in zip(loop.engine.optimizers[name].param_groups, reached, strict=True):
            group["lr"] = rate


def _ticks(
    schedule: Schedule, loop: Loop, content: snapshot.Content, there: Mapping[str, Any]
) -> int:
    """Return how often a schedule would have taken its step by now."""
    then, now = content.get("config"), snapshot.deciding(loop.config)
    keys = ("scheduler.type", "scheduler.interval")
    if "last_epoch" in there and (then is None or all(then.get(k) == now.get(k) for k in keys)):
        return int(there["last_epoch"])
    return loop.state.global_step if schedule.interval == "step" else loop.state.epoch
