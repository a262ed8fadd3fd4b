"""Passes that make a restarted process sum its gradients in the order of one that never stopped.

DDP rebuilds its buckets after a process's first backward pass, and so reduces the first step after
a restart in another layout, which from three ranks on gives other sums. Source: measured, see the
tests; no state that could be saved makes up for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

from mtf.errors import MtfError
from mtf.trainer.compute.digests import digest_of
from mtf.trainer.compute.rng import RNGState

if TYPE_CHECKING:
    from mtf.trainer.loop.loop import Loop

_PASSES = 2  # one does for the default, a static graph needs two


def warm_up(loop: Loop) -> None:
    """Compute gradients as training will, and leave no trace. One rank alone needs nothing.

    Raises:
        MtfError: several ranks cannot train like this.
    """
    if loop.rank_sync.is_alone:
        return
    if loop.objective.takes_turns:
        raise MtfError(
            "optimizers that take turns train on one process only: give slurm.nodes: 1 and"
            " slurm.ntasks_per_node: 1"
        )
    rng, module = RNGState.capture(), loop.engine.module
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    batch = loop.engine.placed(next(loop.train.batches(0, 0)))
    _say_if_all_are_alike(loop, batch)
    for _ in range(_PASSES):
        loop.engine.hold_back(held=False)
        loop.engine.backward(loop.engine.compute(loop.objective.loss, batch))
    for parameter in loop.engine.parameters:
        parameter.grad = None
    with torch.no_grad():
        for name, buffer in module.named_buffers():
            buffer.copy_(buffers[name])
    rng.restore()


def _say_if_all_are_alike(loop: Loop, batch: Any) -> None:
    """Say that data which cannot be sought, and so not be dealt out, are the same for each rank."""
    if not getattr(loop.train, "fixed", {}):
        return
    tensors = (leaf for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor))
    firsts = loop.rank_sync.gather([digest_of(tensor) for tensor in tensors])
    if firsts is not None and all(first == firsts[0] for first in firsts):
        loop.say(
            f"all {len(firsts)} ranks begin with the same batch: an iterable data set deals its"
            " samples out itself, by torch.distributed.get_rank() and get_world_size()"
        )
