"""Begins a run from another one's checkpoint, which the ledger has named with its sha256."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mtf.errors import MtfError
from mtf.trainer import snapshot
from mtf.trainer.fitting import fit_of
from mtf.trainer.phases import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.spec.schema import ExperimentConfig, Origin
    from mtf.trainer.callbacks import Callback
    from mtf.trainer.loop import Loop


def read_origin(origin: Origin) -> snapshot.Content:
    """Return the content of the checkpoint that a run begins from, verified.

    Raises:
        MtfError: it is not there, or not what the ledger has recorded.
    """
    path = Path(origin.path)
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as e:
        raise MtfError(
            f"init_from: the checkpoint of {origin.run} cannot be read: {path}: {e.strerror}"
        ) from e
    if found != origin.sha256:
        raise MtfError(
            f"init_from: {path} is not the checkpoint that the ledger has recorded for"
            f" {origin.run}: its sha256 is {found[:12]}..., recorded is {origin.sha256[:12]}..."
        )
    return snapshot.read(path)


def warm_start(loop: Loop, callbacks: Mapping[str, Callback], config: ExperimentConfig) -> None:
    """Put the loop where ``init_from`` says; without it, do nothing.

    ``load: all`` goes on where that training ended: weights, optimizers, counters, callbacks and
    random numbers are taken up, and the schedule's position, with this run's own length. What is
    logged is this run's alone.

    Raises:
        MtfError: the checkpoint is not what was recorded, or does not fit.
    """
    origin, asked = config.mtf.origin, config.init_from
    if origin is None or asked is None:
        return
    content = read_origin(origin)
    if asked.load == "all":
        _take_up_all(loop, callbacks, content, origin)
    else:
        _load_weights(loop, content, origin, strict=asked.strict)
    loop.journal.initialised(origin.run, origin.path, origin.sha256, asked.load)
    loop.say(f"init_from: {asked.load} of {origin.run}, step {origin.step} (sha256 verified)")


def _load_weights(loop: Loop, content: snapshot.Content, origin: Origin, *, strict: bool) -> None:
    weights: dict[str, Any] = content.get("model", content)
    module = loop.engine.module
    fit = fit_of(module, weights)
    if not fit.fitting or (strict and not fit.is_whole):
        hint = ". init_from.strict: false takes those that fit" if fit.fitting else ""
        raise MtfError(f"init_from: the weights of {origin.run} do not fit the model: {fit}{hint}")
    if not fit.is_whole:
        loop.say(f"init_from: {len(fit.fitting)} weights are taken; {fit}")
    with torch.no_grad():
        own = module.state_dict()
        for name in fit.fitting:
            own[name].copy_(weights[name])


def _take_up_all(
    loop: Loop, callbacks: Mapping[str, Callback], content: snapshot.Content, origin: Origin
) -> None:
    if "ranks" not in content:
        raise MtfError(f"init_from: {origin.run} has saved states of its own: say load: weights")
    rows = {"scalars_bytes": 0, "fixed": getattr(loop.train, "fixed", {}), "config": None}
    untouched: dict[str, Any] = {name: {} for name in loop.schedules}
    snapshot.put(loop, callbacks, {**content, **rows, "schedulers": untouched})
    for name, schedule in loop.schedules.items():
        if name in content["schedulers"]:
            schedule.take_over(content["schedulers"][name])
    state, epochs = loop.state, loop.config.training.max_epochs
    if state.phase is Phase.TRAINING_COMPLETE:
        if state.epoch >= epochs:
            raise MtfError(
                f"init_from: {origin.run} has trained for {state.epoch} epochs, and"
                f" training.max_epochs is {epochs}: say more, they are counted on"
            )
        state.phase, state.ended_by = Phase.TRAIN_START_EPOCH, None
    state.best = {}  # those are files of the other run
