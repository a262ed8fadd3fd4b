"""A loop's whole state as containers of tensors and numbers, and back: a checkpoint's content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mtf.errors import MtfError
from mtf.trainer.rng import RNGState
from mtf.trainer.state import FORMAT, ResumeState

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mtf.trainer.loop import Loop


def take(loop: Loop) -> dict[str, Any]:
    """Return the state at a cut. All ranks take part; the first one's is the whole.

    The values still share memory with the training: copy or write them before it goes on.
    """
    loop.state.rng = RNGState.capture()
    return {
        "version": FORMAT,
        "world_size": loop.fabric.world_size,
        "ranks": _of_all_ranks(loop, loop.state.plain()),
        "model": loop.engine.module.state_dict(),
        "optimizer": loop.engine.optimizer.state_dict(),
        "scheduler": loop.schedule.scheduler.state_dict() if loop.schedule else None,
        "scaler": loop.engine.scaler.state_dict() if loop.engine.scaler else None,
        "gradients": loop.engine.gradients(),
        "scalars_bytes": loop.scalars.durable_size() if loop.scalars else 0,
    }


def read(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint, its tensors on the CPU; no code in it is executed."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def put(loop: Loop, content: Mapping[str, Any]) -> None:
    """Put a loop into the state that ``take`` returned.

    Raises:
        MtfError: it is of a later version, of another model, or of another number of ranks.
    """
    ranks = content["ranks"]
    if content["version"] <= FORMAT and len(ranks) != loop.fabric.world_size:
        raise MtfError(
            f"the checkpoint was saved by {len(ranks)} processes, and now there are"
            f" {loop.fabric.world_size}: give slurm.nodes and slurm.ntasks_per_node as they were"
        )
    rank = loop.fabric.global_rank if len(ranks) > 1 else 0
    loop.state = ResumeState.read(ranks[rank], loop.fabric.device)
    try:
        loop.engine.module.load_state_dict(content["model"])
        loop.engine.optimizer.load_state_dict(content["optimizer"])
    except (RuntimeError, ValueError) as e:
        raise MtfError(f"the checkpoint does not fit the model or the optimizer: {e}") from e
    if loop.schedule is not None:
        loop.schedule.scheduler.load_state_dict(content["scheduler"])
        # else torch warns that the scheduler is ahead of an optimizer that never stepped here
        vars(loop.engine.optimizer)["_opt_called"] = True
    if loop.engine.scaler is not None:
        loop.engine.scaler.load_state_dict(content["scaler"])
    loop.engine.put_gradients(content["gradients"])
    if loop.scalars is not None:
        loop.scalars.cut_to(content["scalars_bytes"])
    if loop.state.rng is not None:
        loop.state.rng.restore()


def _of_all_ranks(loop: Loop, plain: dict[str, Any]) -> list[dict[str, Any]]:
    if loop.fabric.world_size == 1:
        return [plain]
    gathered: list[Any] = [None] * loop.fabric.world_size
    torch.distributed.all_gather_object(gathered, plain)
    return gathered
