"""Warm start: a run begins from another run's checkpoint, which the spec names (``init_from``)."""

from __future__ import annotations

import copy
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf.errors import MtfError
from mtf.trainer.loop.phases import Phase
from mtf.trainer.loop.state import TrainMicroState
from mtf.trainer.resume import other_ranks, snapshot
from mtf.trainer.resume.compatibility import fit_of
from mtf.trainer.resume.same_settings import deciding_settings, differing_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from torch.optim import Optimizer

    from mtf.core.vocabulary.records import Origin
    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.components.lr_schedulers import Schedule
    from mtf.trainer.loop.callbacks import Callback
    from mtf.trainer.resume.snapshot import Content, Resumable
    from mtf.trainer.storage.journal import Journal


def origin_of(config: ExperimentConfig) -> Origin | None:
    """Return the checkpoint that a run begins from, None where its spec names none.

    Raises:
        MtfError: the run that it names was never looked up in the ledger.
    """
    if config.init_from is None:
        return None
    if config.mtf.origin is None:
        raise MtfError(
            f"init_from: {config.init_from.run} was not looked up in the ledger. Submit the run"
            " with mtf sync, which does that"
        )
    return config.mtf.origin


def read_origin(origin: Origin) -> Content:
    """Return the content of a checkpoint whose bytes are those that the ledger recorded.

    Raises:
        MtfError: the file is missing or differs.
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
            f"init_from: the checkpoint of {origin.run} cannot be read: {path}: {e.strerror}."
            " Restore the file, or name another run in init_from"
        ) from e
    raise MtfError(
        f"init_from: {path} is not the checkpoint that the ledger recorded for {origin.run}: its"
        f" sha256 is {found[:12]}..., not {origin.sha256[:12]}.... Restore the file, or name"
        " another run in init_from"
    )


def warm_start(
    parts: Resumable, journal: Journal, before_load: Callable[[Content], None]
) -> list[Callback]:
    """Load what ``init_from`` names; without ``init_from``, do nothing.

    ``load: all`` continues where that training stood. What it has accumulated is loaded: weights,
    optimizer state, counters, callbacks' state, random numbers. What is configured is this run's:
    learning rates, weight decay, and the schedule, which stands where it would stand if this run
    had trained from the start. Only this run's scalars and metrics are logged.

    Returns:
        The callbacks that the other training did not have, and whose INIT phase is due.

    Raises:
        MtfError: the checkpoint is not the recorded one, or does not fit.
    """
    config = parts.config
    origin, asked = origin_of(config), config.init_from
    if origin is None or asked is None:
        return []
    content = read_origin(origin)
    left_out, new = "", []
    if asked.load == "all":
        _check_place(content, origin, config, parts.rank_sync.world_size)
        before_load(snapshot.saved_view(content))
        new = _load_all(parts, content)
    else:
        left_out = _load_weights(parts, content, origin, strict=asked.strict)
    journal.initialised(vars(origin) | {"load": asked.load, "left_out": left_out})
    parts.rank_sync.say(
        f"init_from: loaded {asked.load} of {origin.run}, step {origin.step} (sha256 verified)"
    )
    return new


# -- the weights alone -----------------------------------------------------------------------------


def _load_weights(parts: Resumable, content: Content, origin: Origin, *, strict: bool) -> str:
    """Load the weights that fit; return the names of the others as a text, or ""."""
    weights: dict[str, Any] = content.get("model", content)
    module = parts.engine.module
    fit = fit_of(module, weights)
    if not fit.fitting or (strict and not fit.is_whole):
        hint = ". Set init_from.strict: false to load those that fit" if fit.fitting else ""
        raise MtfError(f"init_from: the weights of {origin.run} do not fit the model: {fit}{hint}")
    if not fit.is_whole:
        parts.rank_sync.say(f"init_from: {len(fit.fitting)} weights are loaded; {fit}")
    module.load_state_dict({name: weights[name] for name in fit.fitting}, strict=False)
    return str(fit)


# -- the whole state -------------------------------------------------------------------------------


def _check_place(content: Content, origin: Origin, config: ExperimentConfig, here: int) -> None:
    """Refuse a checkpoint whose training this run cannot continue.

    Raises:
        MtfError: the checkpoint is not the trainer's, leaves no epoch to train, or lies in
            an epoch of other batches.
    """
    if "ranks" not in content:
        raise MtfError(f"init_from: {origin.run} was trained by a custom loop: set load: weights")
    first, epochs = content["ranks"][0], config.training.max_epochs
    if first["epoch"] >= epochs:
        raise MtfError(
            f"init_from: {origin.run} has trained for {first['epoch']} epochs, and"
            f" training.max_epochs is {epochs}: set a greater number, which counts those epochs too"
        )
    if first["phase"] in _BETWEEN_EPOCHS:
        return
    differing = differing_settings(content["config"], deciding_settings(config))
    if of_batches := [text for key, text in differing.items() if key.startswith(_OF_BATCHES)]:
        raise MtfError(
            f"init_from: {origin.run} stopped inside epoch {first['epoch'] + 1}, and the rest of"
            f" that epoch needs the same batches: {'; '.join(of_batches)}. Restore the settings, or"
            " set load: weights"
        )
    if (shares := other_ranks.Saved.of(content["ranks"]).shares) != here:
        raise MtfError(
            f"init_from: {origin.run} stopped inside epoch {first['epoch'] + 1}, whose batches were"
            f" made for {shares} processes, and now there {'is' if here == 1 else 'are'} {here}."
            f" Set slurm.nodes and slurm.ntasks_per_node for {shares}, or set load: weights"
        )


_BETWEEN_EPOCHS = {Phase.INIT, Phase.TRAIN_START_EPOCH, Phase.TRAINING_COMPLETE}
_OF_BATCHES = (
    "data.",
    "training.batch_size",
    "training.combine",
    "training.gradient_accumulation_steps",
    "training.seed",
)


def _load_all(parts: Resumable, content: Content) -> list[Callback]:
    """Load the whole state; return the callbacks that are new in this run."""
    optimizers, state = parts.engine.optimizers, parts.state
    configured = {name: _settings(one) for name, one in optimizers.items()}
    untouched: dict[str, Any] = {name: {} for name in parts.schedules}
    # between epochs torchmetrics objects are as good as new, and this model may have others
    ranks = [{**of_rank, "metric_objects": []} for of_rank in content["ranks"]]
    model = _without_metric_objects(parts, content)
    snapshot.put(parts, {**content, "ranks": ranks, "model": model, "schedulers": untouched})
    reached = {name: [g["lr"] for g in one.param_groups] for name, one in optimizers.items()}
    for name, optimizer in optimizers.items():
        _set(optimizer, configured[name])
    for name, schedule in parts.schedules.items():
        _advance(schedule, parts, content, name, reached[name])
    state.shares = parts.rank_sync.world_size  # this run's own batches
    if state.phase is Phase.TRAINING_COMPLETE:
        state.phase, state.ended_by = Phase.TRAIN_START_EPOCH, None
        state.train = TrainMicroState()  # gradients that are not finite may have ended an epoch
        for optimizer in optimizers.values():
            optimizer.zero_grad()
    state.best = {}  # the other run's checkpoints
    return [
        callback
        for name, callback in parts.callbacks.items()
        if name not in content["callbacks"] and Phase.INIT in callback.phases
    ]


def _without_metric_objects(parts: Resumable, content: Content) -> dict[str, Any]:
    """Return the state of a model with this model's own torchmetrics objects, as they are."""
    theirs = [path for state in content["ranks"][0].get("metric_objects", ()) for path in state]
    ours = [path for objects in parts.metrics for path in objects.all()]
    own = parts.engine.module.state_dict()
    model: dict[str, Any] = copy.copy(content["model"])  # it keeps the versions of the modules
    for name in [name for name in model if _is_in(name, theirs)]:
        del model[name]
    model.update({name: value for name, value in own.items() if _is_in(name, ours)})
    return model


def _is_in(name: str, paths: Collection[str]) -> bool:
    return any(name.startswith(f"{path}.") for path in paths)


def _settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    return [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]


def _set(optimizer: Optimizer, settings: list[dict[str, Any]]) -> None:
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        parameters = group["params"]
        group.clear()
        group.update({"params": parameters, **own})


def _advance(
    schedule: Schedule, parts: Resumable, content: Content, name: str, reached: list[Any]
) -> None:
    """Bring a schedule from its own beginning to where the training stands."""
    saved = content["schedulers"].get(name, {})
    if schedule.monitor is None:
        schedule.skip(_ticks(schedule, parts, content, saved))
    elif "num_bad_epochs" in saved:  # a plateau: its rates are the outcome of what it has seen
        schedule.take_over_history(saved)
        for group, rate in zip(parts.engine.optimizers[name].param_groups, reached, strict=True):
            group["lr"] = rate


def _ticks(schedule: Schedule, parts: Resumable, content: Content, saved: Mapping[str, Any]) -> int:
    """Return the number of steps that the schedule would have taken by now."""
    then, now = content["config"], deciding_settings(parts.config)
    keys = ("scheduler.type", "scheduler.interval")
    if "last_epoch" in saved and all(then.get(key) == now.get(key) for key in keys):
        return int(saved["last_epoch"])
    return parts.state.global_step if schedule.interval == "step" else parts.state.epoch
