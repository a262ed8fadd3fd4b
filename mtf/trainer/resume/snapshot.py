"""A loop's whole state as containers of tensors and numbers, and back: a checkpoint's content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import torch

from mtf.core.vocabulary.experiments import EXECUTION
from mtf.errors import MtfError
from mtf.trainer.compute.digests import digest_of, leaf_digests, with_common, without_common
from mtf.trainer.compute.rng import RNGState, seed_all, seed_at
from mtf.trainer.loop.phases import Phase
from mtf.trainer.loop.state import FORMAT, ResumeState, ValMicroState
from mtf.trainer.resume.compatibility import fit_of, misfit_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.loop.callbacks import Callback
    from mtf.trainer.loop.loop import Loop

Content = dict[str, Any]


def take(loop: Loop, callbacks: Mapping[str, Callback]) -> Content | None:
    """Return the state at a cut on the first rank, None on the others. All ranks take part.

    The values still share memory with the training: copy or write them before it goes on.
    """
    loop.state.rng = RNGState.capture()
    states = {name: callback.state_dict() for name, callback in callbacks.items()}
    mine = {**_of_this_rank(loop), "callbacks": _own_callbacks(loop, states)}
    ranks = loop.rank_sync.gather(mine)
    if ranks is None:
        return None
    scaler = loop.engine.scaler
    return {
        "version": FORMAT,
        "ranks": ranks,
        "model": loop.engine.module.state_dict(),
        "optimizers": {name: one.state_dict() for name, one in loop.engine.optimizers.items()},
        "schedulers": {name: one.scheduler.state_dict() for name, one in loop.schedules.items()},
        "scaler": scaler.state_dict() if scaler else None,
        "callbacks": states,
        "fixed": getattr(loop.train, "fixed", {}),
        "config": deciding(loop.config),
        "scalars_bytes": loop.scalars.durable_size() if loop.scalars else 0,
    }


def read(file: Path | BinaryIO) -> Content:
    """Return the content of a checkpoint, its tensors on the CPU; no code in it is executed.

    Raises:
        MtfError: it was written by a later version.
    """
    content: Content = torch.load(file, map_location="cpu", weights_only=True)
    return migrated(content)


def migrated(content: Content) -> Content:
    """Return a checkpoint's content in today's format.

    Raises:
        MtfError: it was written by a later version.
    """
    if "version" not in content:
        return content  # that of an entry point of the user
    if content["version"] > FORMAT:
        raise MtfError(
            f"the checkpoint has format {content['version']}, this mtf reads up to {FORMAT}:"
            " install the version of mtf that wrote it"
        )
    while content["version"] < FORMAT:
        content = _STEPS[content["version"]](content)
    return content


def put(loop: Loop, callbacks: Mapping[str, Callback], content: Mapping[str, Any]) -> None:
    """Put a loop into the state that ``take`` returned.

    Raises:
        MtfError: it is of another configuration, model or optimizer, or cannot be continued by so
            many ranks.
    """
    ranks, here = content["ranks"], loop.fabric.world_size
    _check_same(loop, content)
    _check_fixed(content["fixed"], getattr(loop.train, "fixed", {}))
    rank = loop.fabric.global_rank
    mine = dict(ranks[rank]) if len(ranks) == here else _redealt(loop, ranks)
    gradients, buffers = mine.pop("gradients"), mine.pop("buffers")
    replaced, own = mine.pop("replaced", []), mine.pop("callbacks", None)
    spreads = mine.pop("spreads_buffers", None)
    loop.state = ResumeState.read(mine, loop.fabric.device)
    _load(loop, content["model"], content)
    loop.engine.put_buffers({**ranks[0]["buffers"], **buffers}, replaced)
    if gradients is not None:
        loop.engine.put_gradients(gradients)
    if spreads is not None:
        loop.engine.spreads_buffers = spreads
    states = content["callbacks"] if own is None else with_common(own, content["callbacks"])
    for name, callback in callbacks.items():
        if name in states:
            callback.load_state_dict(states[name])
    if loop.scalars is not None:
        loop.scalars.cut_to(content["scalars_bytes"])
    loop.take_up()
    if loop.state.rng is not None:
        loop.state.rng.restore()
    else:
        state = loop.state
        seed_all(seed_at("train", loop.config.training.seed, rank, state.epoch, state.global_step))


def _load(loop: Loop, weights: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    engine = loop.engine
    for what, there in (("optimizers", engine.optimizers), ("schedulers", loop.schedules)):
        if list(content[what]) != list(there):
            raise MtfError(
                f"the checkpoint has the {what} {', '.join(content[what]) or 'none'}, and now there"
                f" are {', '.join(there) or 'none'}"
            )
    for name, optimizer in engine.optimizers.items():
        if problem := misfit_of(optimizer, content["optimizers"][name]):
            raise MtfError(f"the checkpoint is of another {name}{problem}")
    engine.module.load_state_dict(weights)
    for name, optimizer in engine.optimizers.items():
        optimizer.load_state_dict(content["optimizers"][name])
    for name, schedule in loop.schedules.items():
        schedule.scheduler.load_state_dict(content["schedulers"][name])
        # else torch warns that the scheduler is ahead of an optimizer that never stepped here
        vars(engine.optimizers[name])["_opt_called"] = True
    if engine.scaler is not None and content["scaler"] is not None:
        engine.scaler.load_state_dict(content["scaler"])
        # it takes a scale up at its first loss, and the next phase may be the optimizer's step
        engine.scaler.scale(torch.zeros((), device=loop.fabric.device))


def deciding(config: ExperimentConfig) -> dict[str, Any]:
    """Return what of a configuration decides the result, by dotted key."""
    plain = config.model_dump(mode="json", exclude=set(EXECUTION) | {"mtf", "init_from"})
    flat: dict[str, Any] = {}
    for section, value in plain.items():
        flat |= (
            {f"{section}.{key}": item for key, item in value.items()}
            if isinstance(value, dict)
            else {section: value}
        )
    return {key: value for key, value in flat.items() if key not in _HARMLESS}


def _check_same(loop: Loop, content: Mapping[str, Any]) -> None:
    """Refuse to go on with what another configuration or another model has begun.

    Raises:
        MtfError: they differ.
    """
    now = deciding(loop.config)
    found = differing(content.get("config") or now, now)
    fit = fit_of(loop.engine.module, content["model"])
    if found:
        shapes = "" if fit.is_whole else f" (its model is another one: {fit})"
        raise MtfError(
            f"the checkpoint is of another configuration: {'; '.join(found.values())}{shapes}. Put"
            " it back, or start a run of its own"
        )
    if not fit.is_whole:
        raise MtfError(f"the checkpoint is of another model: {fit}")


def differing(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """Return, for each key that two configurations differ in, what it was and is.

    A key that one of them lacks is unset there: another version of mtf has it, see ``run_key``.
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


_HARMLESS = {"data.num_workers", "data.pin_memory"}  # they change how fast batches come, not which


def _check_fixed(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for key in sorted(then.keys() | now.keys()):
        if then.get(key) != now.get(key):
            raise MtfError(
                f"{key} was {then.get(key)} and is {now.get(key)} now: the order of data that"
                " cannot be sought depends on it. Put it back"
            )


# -- what differs between ranks --------------------------------------------------------------------


def _of_this_rank(loop: Loop) -> dict[str, Any]:
    """Return what only this rank knows.

    Gradients stay on a rank until the end of an accumulation window. Buffers, such as the running
    means of BatchNorm, are the first rank's at each step, and one's own until the next. Those of
    the first rank stand with the model, but for the ones that a model's state does not hold.
    """
    gradients = loop.engine.gradients() if loop.state.train.window else None
    if gradients and not loop.rank_sync.is_alone:
        gradients = [None if gradient is None else gradient.cpu() for gradient in gradients]
    return {
        **loop.state.plain(),
        "gradients": gradients,
        "buffers": _own_buffers(loop),
        "replaced": loop.engine.replaced_buffers(),
        "spreads_buffers": loop.engine.spreads_buffers,
    }


def _own_buffers(loop: Loop) -> dict[str, torch.Tensor]:
    unsaved = loop.engine.unsaved_buffers()
    if loop.rank_sync.is_alone:
        return unsaved
    mine = {name: buffer.cpu() for name, buffer in loop.engine.module.named_buffers()}
    sums = {name: digest_of(buffer) for name, buffer in mine.items()}
    first = loop.rank_sync.broadcast(sums)
    is_first = loop.fabric.is_global_zero
    return {
        name: buffer
        for name, buffer in mine.items()
        if sums[name] != first.get(name) or (is_first and name in unsaved)
    }


def _own_callbacks(loop: Loop, states: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what the callbacks' states have on this rank alone, say averages of its buffers."""
    if loop.rank_sync.is_alone:
        return None
    firsts = loop.rank_sync.broadcast(
        dict(leaf_digests(states)) if loop.fabric.is_global_zero else None
    )
    return None if loop.fabric.is_global_zero else without_common(states, firsts)


def _redealt(loop: Loop, ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the state of this rank where there were more or fewer: the samples stay exact."""
    here, rank, first = loop.fabric.world_size, loop.fabric.global_rank, ranks[0]
    if not hasattr(loop.train, "samples_used"):
        raise MtfError(
            f"the checkpoint was saved by {len(ranks)} processes, and now there are {here}. This"
            " data cannot be dealt out anew: give slurm.nodes and slurm.ntasks_per_node as they"
            " were"
        )
    loop.say(
        f"the checkpoint was saved by {len(ranks)} processes, and now there are {here}: each sample"
        " of the epoch is used once as before, but sums of floating-point numbers will differ"
    )
    train = dict(first["train"])
    begun = loop.train.after_samples(train["offset"]) if train["offset"] else loop.train  # type: ignore[attr-defined]
    train |= {"offset": begun.samples_used(train["batch"], len(ranks)), "batch": 0}
    validates = first["phase"].startswith("VAL")
    return {
        **first,
        "train": train,
        "val": vars(ValMicroState()),
        "phase": str(Phase.VAL_START_EPOCH) if validates else first["phase"],
        "rng": ranks[rank]["rng"] if rank < len(ranks) else None,
        "gradients": _mean([one["gradients"] for one in ranks]),
        "buffers": {},
        "replaced": [],
        "callbacks": None,
        "spreads_buffers": None,
    }


def _mean(of_ranks: list[list[torch.Tensor | None] | None]) -> list[torch.Tensor | None] | None:
    """Return the mean of the ranks' gradients, which is what their exchange comes to."""
    if of_ranks[0] is None:
        return None
    together = zip(*[one for one in of_ranks if one is not None], strict=True)
    return [
        None if any(g is None for g in gradients) else sum(gradients) / len(of_ranks)
        for gradients in together
    ]


# -- earlier formats -------------------------------------------------------------------------------


def _from_1(content: Content) -> Content:
    """One optimizer, one scheduler, no callbacks; gradients beside the ranks."""
    scheduler = content["scheduler"]
    gradients = content["gradients"]
    ranks = [
        {**one, "gradients": gradients if one["train"]["window"] else None, "buffers": {}}
        for one in content["ranks"]
    ]
    return {
        **content,
        "version": 2,
        "ranks": [{**one, "version": 2} for one in ranks],
        "optimizers": {"optimizer": content["optimizer"]},
        "schedulers": {} if scheduler is None else {"optimizer": scheduler},
        "callbacks": {},
        "fixed": {},
        "config": None,
    }


_STEPS = {1: _from_1}
