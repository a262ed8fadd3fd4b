"""A checkpoint's content: a training's whole state as containers of tensors and numbers.

``content_of`` makes it from a training's parts, ``resume`` and ``put`` load it into them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from mtf.errors import MtfError
from mtf.trainer.compute.digests import digest_of, leaf_digests, with_common, without_common
from mtf.trainer.compute.rng import RNGState, seed_all, seed_at
from mtf.trainer.compute.structure import names_by_group, put_requires_grad, requires_grad_of
from mtf.trainer.loop.state import FORMAT, is_readable
from mtf.trainer.resume import other_ranks
from mtf.trainer.resume.compatibility import load_weights, misfit_of, misplaced
from mtf.trainer.resume.optimizer_state import load_optimizer, optimizer_state
from mtf.trainer.resume.rebuild import rebuild
from mtf.trainer.resume.same_settings import check_config, check_fixed, deciding_settings
from mtf.trainer.resume.scheduler_state import load_scheduler, scheduler_state
from mtf.trainer.storage.plain_values import read_plain, restored, simplified

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
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


def gather(parts: Resumable) -> list[dict[str, Any]] | None:
    """Return the ranks' own states at a cut on the first rank, None on the others.

    All ranks take part.

    Raises:
        MtfError: the state could not be loaded again, or is not trained.
    """
    parts.engine.refuse_untrained()
    parts.state.rng = RNGState.capture()
    mine = {**_of_this_rank(parts), "own_callbacks": _own_callbacks(parts)}
    return parts.rank_sync.gather(mine)


def content_of(parts: Resumable, ranks: list[dict[str, Any]]) -> Content:
    """Return the state at a cut, with what ``gather`` returned. On the first rank.

    Its tensors share memory with the training: copy or write them before the training goes on.

    Raises:
        MtfError: a part of the state could not be loaded again.
        OSError: the rows of scalars that belong to it could not be made durable.
    """
    engine, scaler = parts.engine, parts.engine.scaler
    content = {
        "version": FORMAT,
        "ranks": ranks,
        "model": engine.module.state_dict(),
        "requires_grad": requires_grad_of(engine.module),
        "evaluating": engine.evaluating(),
        "groups": names_by_group(engine.module, engine.optimizers),
        "built_groups": dict(engine.built.groups),
        "optimizers": {
            name: optimizer_state(name, optimizer) for name, optimizer in engine.optimizers.items()
        },
        "schedulers": {
            name: scheduler_state(schedule.scheduler) for name, schedule in parts.schedules.items()
        },
        "scaler": scaler.state_dict() if scaler else None,
        "callbacks": _callback_states(parts),
        "fixed": parts.fixed,
        "config": deciding_settings(parts.config),
        "scalars_bytes": parts.scalars.durable_size() if parts.scalars else 0,
    }
    return simplified(content)


def _callback_states(parts: Resumable) -> dict[str, Any]:
    return {name: callback.state_dict() for name, callback in parts.callbacks.items()}


def read(file: Path | BinaryIO) -> Content:
    """Return the content of a checkpoint, its tensors on the CPU; no code in it is executed.

    Raises:
        MtfError: it cannot be read, or another version of mtf wrote it.
    """
    content = read_plain(file)
    found = content.get("version", FORMAT)  # a user's entry point saves what it likes
    if found != FORMAT and not is_readable(content, found):
        raise MtfError(
            f"the checkpoint has format {found}, and this mtf reads format {FORMAT}: install the"
            " version of mtf that wrote it"
        )
    return restored(content)


def resume(
    parts: Resumable, content: Mapping[str, Any], before_load: Callable[[Content], None]
) -> None:
    """Continue the run that ``content`` is a checkpoint of.

    Args:
        parts: the training.
        content: its state.
        before_load: called with the state once it is known to be of this configuration.

    Raises:
        MtfError: configuration, model, optimizers or number of ranks do not match it.
    """
    check_config(parts.config, parts.engine.module, content)
    check_fixed(content["fixed"], parts.fixed)
    saved, sync = other_ranks.Saved.of(content["ranks"]), parts.rank_sync
    if saved.processes != sync.world_size:
        accumulated = parts.config.training.gradient_accumulation_steps
        text = other_ranks.check(saved, parts.train, accumulated, sync)
        sync.say(text + other_ranks.lost_metrics(content["ranks"][0]))
    before_load(saved_view(content))
    rebuild(parts.engine, content)
    put(parts, content)
    if saved.processes != sync.world_size:
        other_ranks.check_schedules(parts.schedules)
    if parts.scalars is not None:
        parts.scalars.cut_to(content["scalars_bytes"])


def saved_view(content: Mapping[str, Any]) -> Content:
    """Return a state as ``Callback.before_load`` gets it: with its place beside it."""
    first = content["ranks"][0]
    return {**content, **{name: first[name] for name in ("epoch", "global_step", "phase")}}


def put(parts: Resumable, content: Mapping[str, Any]) -> None:
    """Load the state that ``content_of`` returned, of this run or of another.

    Raises:
        MtfError: model, optimizers or number of ranks do not match it.
    """
    ranks, sync, engine = content["ranks"], parts.rank_sync, parts.engine
    mine = (
        dict(ranks[sync.rank])
        if len(ranks) == sync.world_size
        else other_ranks.state_of(ranks, sync.rank, sync.world_size)
    )
    gradients, buffers, replaced = (mine.pop(key) for key in ("gradients", "buffers", "replaced"))
    states = _callbacks_of(mine, content)
    spreads = mine.pop("spreads_buffers")
    metrics = mine.pop("metric_objects", [])  # earlier versions did not save it
    parts.state.load(mine, engine.device)
    put_requires_grad(engine.module, content.get("requires_grad", {}))
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
    """Load weights, optimizers, schedulers and scaler.

    Raises:
        MtfError: torch does not accept them.
    """
    engine = parts.engine
    for what, present in (("optimizers", engine.optimizers), ("schedulers", parts.schedules)):
        if list(content[what]) != list(present):
            raise MtfError(
                f"the checkpoint has the {what} {', '.join(content[what]) or 'none'}, but this"
                f" training has {', '.join(present) or 'none'}"
            )
    names = names_by_group(engine.module, engine.optimizers)
    for name, optimizer in engine.optimizers.items():
        saved_names = content.get("groups", names)[name]
        problem = misfit_of(optimizer, content["optimizers"][name])
        if problem := problem or misplaced(names[name], saved_names):
            raise MtfError(f"the checkpoint is of another {name}{problem}")
    load_weights(engine.module, content["model"])
    for name, optimizer in engine.optimizers.items():
        load_optimizer(optimizer, content["optimizers"][name])
    for name, schedule in parts.schedules.items():
        load_scheduler(schedule.scheduler, content["schedulers"][name])
        # otherwise torch warns of a scheduler that stepped before its optimizer
        vars(engine.optimizers[name])["_opt_called"] = True
    if engine.scaler is not None and content["scaler"] is not None:
        engine.scaler.load_state_dict(content["scaler"])
        # a scaler uses the loaded scale from its next loss on, and an optimizer step may come first
        engine.scaler.scale(torch.zeros((), device=engine.device))


# -- what differs between ranks --------------------------------------------------------------------


def _of_this_rank(parts: Resumable) -> dict[str, Any]:
    """Return the state that only this rank has.

    Gradients stay on a rank until the end of an accumulation window. Buffers, such as the running
    means of BatchNorm, are broadcast from the first rank at each step and differ until the next.
    The first rank's are in the model's state, except those that are not persistent.
    """
    gradients = parts.engine.gradients() if parts.state.train.window else None
    if gradients and not parts.rank_sync.is_alone:
        gradients = {n: None if g is None else g.cpu() for n, g in gradients.items()}
    return {
        **parts.state.plain(),
        "gradients": gradients,
        "buffers": _own_buffers(parts),
        "replaced": parts.engine.replaced_buffers(),
        "spreads_buffers": parts.engine.spreads_buffers,
        "metric_objects": [objects.state() for objects in dict.fromkeys(parts.metrics)],
    }


def _own_buffers(parts: Resumable) -> dict[str, torch.Tensor | None]:
    unsaved, sync = parts.engine.unsaved_buffers(), parts.rank_sync
    if sync.is_alone:
        return unsaved
    mine: dict[str, torch.Tensor | None] = {
        name: buffer.cpu() for name, buffer in parts.engine.module.named_buffers()
    }
    mine |= {name: None for name, buffer in unsaved.items() if buffer is None}
    digests = {n: None if buffer is None else digest_of(buffer) for n, buffer in mine.items()}
    first_digests = sync.broadcast(digests)
    return {
        name: buffer
        for name, buffer in mine.items()
        if digests[name] != first_digests.get(name) or (sync.is_first and name in unsaved)
    }


def _own_callbacks(parts: Resumable) -> dict[str, Any] | None:
    """Return the callbacks' state without what equals the first rank's; None on that rank."""
    sync = parts.rank_sync
    if sync.is_alone:
        return None
    plain = simplified(
        {"callbacks": _callback_states(parts)}
    )  # with the kinds of this rank's values
    first_digests = sync.broadcast(dict(leaf_digests(plain)) if sync.is_first else None)
    return None if sync.is_first else without_common(plain, first_digests)


def _callbacks_of(mine: dict[str, Any], content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the state of this rank's callbacks, and take it out of ``mine``."""
    earlier, own = mine.pop("callbacks", None), mine.pop("own_callbacks", None)
    first: Mapping[str, Any] = content["callbacks"]
    if own is not None:
        plain = with_common(own, simplified({"callbacks": first}))
        states: Mapping[str, Any] = restored(plain)["callbacks"]
        return states
    if earlier is not None:  # earlier versions did not simplify it
        first = with_common(earlier, first)
    return first
