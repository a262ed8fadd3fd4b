"""DDP warm-up: dummy passes after which a restarted process sums gradients in the usual order.

DDP rebuilds its buckets after a process's first backward pass. So it would reduce the first step
after a restart in another layout, which gives other sums with three or more ranks (measured, see
tests/trainer/test_ranks.py). No state that could be saved would prevent that.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

from mtf.errors import MtfError
from mtf.trainer.compute.digests import digest_of
from mtf.trainer.compute.rng import RNGState
from mtf.trainer.compute.structure import overwrite
from mtf.trainer.data.epochs import open_epoch

if TYPE_CHECKING:
    from mtf.trainer.loop.loop import Loop

_PASSES = 2  # one is enough by default, a static graph needs two


def warm_up(loop: Loop) -> None:
    """Compute gradients as training will, then restore all state. Needed for several ranks only.

    Raises:
        MtfError: several ranks cannot train like this.
    """
    if loop.rank_sync.is_alone:
        return
    if loop.objective.takes_turns:
        raise MtfError(
            "optimizers that take turns need a single process: set slurm.nodes: 1 and"
            " slurm.ntasks_per_node: 1"
        )
    rng, module = RNGState.capture(), loop.engine.module
    metrics = copy.deepcopy(loop.train_metrics.state())
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    batch = loop.engine.placed(next(open_epoch(loop.train, 0, 0)))
    _refuse_equal_batches(loop, batch)
    for _ in range(_PASSES):
        loop.engine.delay_exchange(delayed=False)
        loop.engine.backward(loop.engine.compute(loop.objective.loss, batch).mean)
    for parameter in module.parameters():
        parameter.grad = None
    for name, buffer in module.named_buffers():
        if name in buffers:  # the first pass may have made more
            overwrite(buffer, buffers[name])
    loop.train_metrics.put(metrics)
    rng.restore()


def _refuse_equal_batches(loop: Loop, batch: Any) -> None:
    """Refuse non-seekable data, which mtf cannot split, if it gives all ranks the same batch.

    Raises:
        MtfError: it does, and the batch's samples differ from each other.
    """
    if not getattr(loop.train, "fixed", {}):
        return
    tensors = [leaf for leaf in tree_leaves(batch) if isinstance(leaf, torch.Tensor)]
    differ = any(t.dim() and len(t) > 1 and bool((t != t[:1]).any()) for t in tensors)
    by_rank = loop.rank_sync.gather([digest_of(tensor) for tensor in tensors])
    are_equal = by_rank is not None and all(digests == by_rank[0] for digests in by_rank)
    if loop.rank_sync.broadcast(are_equal) and differ:
        raise MtfError(
            f"all {loop.rank_sync.world_size} ranks begin with the same batch. An iterable data set"
            " must split its samples between the ranks: use torch.distributed.get_rank() and"
            " get_world_size()"
        )
