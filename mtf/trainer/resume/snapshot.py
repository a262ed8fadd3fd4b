"""A checkpoint's content: a training's whole state as containers of tensors and numbers.

``take`` makes it from a training's parts, ``resume`` and ``put`` load it into them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from mtf.core.vocabulary.experiments import EXECUTION
from mtf.errors import MtfError
from mtf.trainer.compute.digests import digest_of, leaf_digests, with_common, without_common
from mtf.trainer.compute.rng import RNGState, seed_all, seed_at
from mtf.trainer.loop.state import FORMAT, is_readable
from mtf.trainer.resume import other_ranks
from mtf.trainer.resume.compatibility import fit_of, misfit_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.components.lr_schedulers import Schedule
    from mtf.trainer.compute.rank_sync import RankSync
    from mtf.trainer.compute.step import StepEngine
    from mtf.trainer.data.batches import Batches
    from mtf.trainer.loop.callbacks import Callback
    from mtf.trainer.loop.metric_objects import MetricObjects
    from mtf.trainer.loop.state import ResumeState
    from mtf.trainer.storage.scalars import Scalars

Content = dict[str, Any]


@dataclass(frozen=True)
class Resumable:
    """The parts of a training that a checkpoint holds, and those that it must match.

    Attributes:
        scalars: None on all ranks but the first.
    """

    config: ExperimentConfig
    state: ResumeState
    engine: StepEngine
    schedules: Mapping[str, Schedule]
    scalars: Scalars | None
    callbacks: Mapping[str, Callback]
    train: Batches
    rank_sync: RankSync
    metrics: Collection[MetricObjects] = ()

    @property
    def fixed(self) -> Mapping[str, Any]:
        """Return the settings that a resume must not change, which only some data has."""
        return getattr(self.train, "fixed", {})


def take(parts: Resumable) -> Content | None:
    """Return the state at a cut on the first rank, None on the others. All ranks take part.

    Its tensors share memory with the training: copy or write them before the training goes on.
    """
    parts.state.rng = RNGState.capture()
    states = {name: callback.state_dict() for name, callback in parts.callbacks.items()}
    mine = {**_of_this_rank(parts), "callbacks": _own_callbacks(parts, states)}
    ranks = parts.rank_sync.gather(mine)
    if ranks is None:
        return None
    engine, scaler = parts.engine, parts.engine.scaler
    return {
        "version": FORMAT,
        "ranks": ranks,
        "model": engine.module.state_dict(),
        "evaluating": engine.evaluating(),
        "optimizers": {
            name: optimizer.state_dict() for name, optimizer in engine.optimizers.items()
        },
        "schedulers": {
            name: schedule.scheduler.state_dict() for name, schedule in parts.schedules.items()
        },
        "scaler": scaler.state_dict() if scaler else None,
        "callbacks": states,
        "fixed": parts.fixed,
        "config": deciding_settings(parts.config),
        "scalars_bytes": parts.scalars.durable_size() if parts.scalars else 0,
    }


def read(file: Path | BinaryIO) -> Content:
    """Return the content of a checkpoint, its tensors on the CPU; no code in it is executed.

    Raises:
        MtfError: another version of mtf wrote it.
    """
    content: Content = torch.load(file, map_location="cpu", weights_only=True)
    found = content.get("version", FORMAT)  # a user's entry point saves what it likes
    if found != FORMAT and not is_readable(content, found):
        raise MtfError(
            f"the checkpoint has format {found}, and this mtf reads format {FORMAT}: install the"
            " version of mtf that wrote it"
        )
    return content


def resume(parts: Resumable, content: Mapping[str, Any]) -> None:
    """Continue the run that ``content`` is a checkpoint of.

    Raises:
        MtfError: configuration, model, optimizers or number of ranks do not match it.
    """
    _check_config(parts, content)
    _check_fixed(content["fixed"], parts.fixed)
    saved, sync = other_ranks.Saved.of(content["ranks"]), parts.rank_sync
    if saved.processes != sync.world_size:
        accumulated = parts.config.training.gradient_accumulation_steps
        text = other_ranks.check(saved, parts.train, accumulated, sync)
        sync.say(text + other_ranks.lost_metrics(content["ranks"][0]))
    put(parts, content)
    if saved.processes != sync.world_size:
        other_ranks.check_schedules(parts.schedules)
    if parts.scalars is not None:
        parts.scalars.cut_to(content["scalars_bytes"])


def put(parts: Resumable, content: Mapping[str, Any]) -> None:
    """Load the state that ``take`` returned, of this run or of another.

    Raises:
        MtfError: model, optimizers or number of ranks do not match it.
    """
    fit = fit_of(parts.engine.module, content["model"])
    if not fit.is_whole:
        raise MtfError(f"the checkpoint is of another model: {fit}")
    ranks, sync, engine = content["ranks"], parts.rank_sync, parts.engine
    mine = (
        dict(ranks[sync.rank])
        if len(ranks) == sync.world_size
        else other_ranks.state_of(ranks, sync.rank, sync.world_size)
    )
    gradients, buffers, replaced = (mine.pop(key) for key in ("gradients", "buffers", "replaced"))
    own, spreads = mine.pop("callbacks"), mine.pop("spreads_buffers")
    metrics = mine.pop("metrics", [])  # earlier versions did not save it
    parts.state.load(mine, engine.device)
    _load(parts, content)
    if "evaluating" in content:  # earlier versions did not save it
        engine.put_evaluating(content["evaluating"])
    engine.put_buffers({**ranks[0]["buffers"], **buffers}, replaced)
    if gradients is not None:
        engine.put_gradients(gradients)
    if spreads is not None:
        engine.spreads_buffers = spreads
    for objects, state in zip(dict.fromkeys(parts.metrics), metrics, strict=False):
        objects.put(state)
    states = content["callbacks"] if own is None else with_common(own, content["callbacks"])
    for name, callback in parts.callbacks.items():
        if name in states:
            callback.load_state_dict(states[name])
    state = parts.state
    if state.rng is not None:
        state.rng.restore()
    else:
        seed = parts.config.training.seed
        seed_all(seed_at("train", seed, sync.rank, state.epoch, state.global_step))


def _load(parts: Resumable, content: Mapping[str, Any]) -> None:
    """Load weights, optimizers, schedulers and scaler."""
    engine = parts.engine
    for what, present in (("optimizers", engine.optimizers), ("schedulers", parts.schedules)):
        if list(content[what]) != list(present):
            raise MtfError(
                f"the checkpoint has the {what} {', '.join(content[what]) or 'none'}, but this"
                f" training has {', '.join(present) or 'none'}"
            )
    for name, optimizer in engine.optimizers.items():
        if problem := misfit_of(optimizer, content["optimizers"][name]):
            raise MtfError(f"the checkpoint is of another {name}{problem}")
    engine.module.load_state_dict(content["model"])
    for name, optimizer in engine.optimizers.items():
        optimizer.load_state_dict(content["optimizers"][name])
    for name, schedule in parts.schedules.items():
        schedule.scheduler.load_state_dict(content["schedulers"][name])
        # otherwise torch warns of a scheduler that stepped before its optimizer
        vars(engine.optimizers[name])["_opt_called"] = True
    if engine.scaler is not None and content["scaler"] is not None:
        engine.scaler.load_state_dict(content["scaler"])
        # a scaler uses the loaded scale from its next loss on, and an optimizer step may come first
        engine.scaler.scale(torch.zeros((), device=engine.device))


# -- the configuration -----------------------------------------------------------------------------


def deciding_settings(config: ExperimentConfig) -> dict[str, Any]:
    """Return the settings that decide a training's result, by dotted key."""
    plain = config.model_dump(mode="json", exclude=set(EXECUTION) | {"mtf", "init_from"})
    flat: dict[str, Any] = {}
    for section, value in plain.items():
        flat |= (
            {f"{section}.{key}": item for key, item in value.items()}
            if isinstance(value, dict)
            else {section: value}
        )
    return {key: value for key, value in flat.items() if key not in _HARMLESS}


_HARMLESS = {"data.num_workers", "data.pin_memory"}  # they change how fast batches come, not which


def _check_config(parts: Resumable, content: Mapping[str, Any]) -> None:
    """Refuse to continue the training of another configuration.

    Raises:
        MtfError: a setting that decides the result differs.
    """
    if found := differing_settings(content["config"], deciding_settings(parts.config)):
        fit = fit_of(parts.engine.module, content["model"])
        shapes = "" if fit.is_whole else f" (and of another model: {fit})"
        raise MtfError(
            f"the checkpoint is of another configuration: {'; '.join(found.values())}{shapes}."
            " Restore the settings, or start a new run"
        )


def differing_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Return the keys in which two configurations differ, each with a text of both values.

    A key that only one of them has does not differ where it is unset: the versions of mtf that
    wrote them may know different keys, see ``run_key``.
    """
    return {
        key: f"{key} was {_shown(then, key)} and is {_shown(now, key)}"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key) and not (_is_unset(then, key) and _is_unset(now, key))
    }


def _is_unset(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key)
    return value is None or value is False or value in ([], {})


def _shown(config: Mapping[str, Any], key: str) -> str:
    return repr(config[key]) if key in config else "not set"


def _check_fixed(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key in sorted(then.keys() | now.keys()):
        if then.get(key) != now.get(key):
            raise MtfError(
                f"{key} was {then.get(key)} and is {now.get(key)}: the order of non-seekable data"
                f" (such as an IterableDataset) depends on it. Set {key}: {then.get(key)}"
            )


# -- what differs between ranks --------------------------------------------------------------------


def _of_this_rank(parts: Resumable) -> dict[str, Any]:
    """Return the state that only this rank has.

    Gradients stay on a rank until the end of an accumulation window. Buffers, such as the running
    means of BatchNorm, are broadcast from the first rank at each step and differ until the next.
    The first rank's are in the model's state, except those that are not persistent.
    """
    gradients = parts.engine.gradients() if parts.state.train.window else None
    if gradients and not parts.rank_sync.is_alone:
        gradients = [None if gradient is None else gradient.cpu() for gradient in gradients]
    return {
        **parts.state.plain(),
        "gradients": gradients,
        "buffers": _own_buffers(parts),
        "replaced": parts.engine.replaced_buffers(),
        "spreads_buffers": parts.engine.spreads_buffers,
        "metrics": [objects.state() for objects in dict.fromkeys(parts.metrics)],
    }


def _own_buffers(parts: Resumable) -> dict[str, torch.Tensor]:
    unsaved, sync = parts.engine.unsaved_buffers(), parts.rank_sync
    if sync.is_alone:
        return unsaved
    mine = {name: buffer.cpu() for name, buffer in parts.engine.module.named_buffers()}
    digests = {name: digest_of(buffer) for name, buffer in mine.items()}
    first_digests = sync.broadcast(digests)
    return {
        name: buffer
        for name, buffer in mine.items()
        if digests[name] != first_digests.get(name) or (sync.is_first and name in unsaved)
    }


def _own_callbacks(parts: Resumable, states: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the callbacks' state without what equals the first rank's; None on that rank."""
    sync = parts.rank_sync
    if sync.is_alone:
        return None
    first_digests = sync.broadcast(dict(leaf_digests(states)) if sync.is_first else None)
    return None if sync.is_first else without_common(states, first_digests)
