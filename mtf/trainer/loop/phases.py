"""The phases of a training, the legal steps between them, and the cuts where it can be saved."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Phase(StrEnum):
    """The instruction that a training executes next."""

    INIT = "INIT"
    TRAIN_START_EPOCH = "TRAIN_START_EPOCH"
    TRAIN_BATCH_LOAD = "TRAIN_BATCH_LOAD"
    TRAIN_BATCH_FORWARD = "TRAIN_BATCH_FORWARD"
    TRAIN_BATCH_BACKWARD = "TRAIN_BATCH_BACKWARD"
    TRAIN_BATCH_OPTIM_STEP = "TRAIN_BATCH_OPTIM_STEP"
    SCHEDULER_BATCH_STEP = "SCHEDULER_BATCH_STEP"
    TRAIN_BATCH_END = "TRAIN_BATCH_END"
    SCHEDULER_EPOCH_STEP = "SCHEDULER_EPOCH_STEP"
    VAL_START_EPOCH = "VAL_START_EPOCH"
    VAL_BATCH_LOAD = "VAL_BATCH_LOAD"
    VAL_BATCH_FORWARD = "VAL_BATCH_FORWARD"
    VAL_BATCH_END = "VAL_BATCH_END"
    EPOCH_END = "EPOCH_END"
    TRAINING_COMPLETE = "TRAINING_COMPLETE"


P = Phase
NEXT: Mapping[Phase, frozenset[Phase]] = {
    P.INIT: frozenset({P.TRAIN_START_EPOCH}),
    P.TRAIN_START_EPOCH: frozenset({P.TRAIN_BATCH_LOAD}),
    P.TRAIN_BATCH_LOAD: frozenset({P.TRAIN_BATCH_FORWARD}),
    P.TRAIN_BATCH_FORWARD: frozenset({P.TRAIN_BATCH_BACKWARD}),
    # inside an accumulation window there is no optimizer step
    P.TRAIN_BATCH_BACKWARD: frozenset({P.TRAIN_BATCH_OPTIM_STEP, P.TRAIN_BATCH_END}),
    P.TRAIN_BATCH_OPTIM_STEP: frozenset({P.SCHEDULER_BATCH_STEP, P.TRAINING_COMPLETE}),
    P.SCHEDULER_BATCH_STEP: frozenset({P.TRAIN_BATCH_END}),
    P.TRAIN_BATCH_END: frozenset({P.TRAIN_BATCH_LOAD, P.SCHEDULER_EPOCH_STEP}),
    P.SCHEDULER_EPOCH_STEP: frozenset({P.VAL_START_EPOCH, P.EPOCH_END}),
    P.VAL_START_EPOCH: frozenset({P.VAL_BATCH_LOAD}),
    P.VAL_BATCH_LOAD: frozenset({P.VAL_BATCH_FORWARD}),
    P.VAL_BATCH_FORWARD: frozenset({P.VAL_BATCH_END}),
    P.VAL_BATCH_END: frozenset({P.VAL_BATCH_LOAD, P.EPOCH_END}),
    P.EPOCH_END: frozenset({P.TRAIN_START_EPOCH, P.TRAINING_COMPLETE}),
    P.TRAINING_COMPLETE: frozenset(),
}

# The replay zone: before these phases the state holds a batch or an autograd graph, which cannot be
# saved and need not be, since parameters do not change and the batch and its random numbers can be
# made again. A stop waits for the end of the zone; a killed process replays it from the last cut.
REPLAYED = frozenset(
    {P.TRAIN_BATCH_FORWARD, P.TRAIN_BATCH_BACKWARD, P.VAL_BATCH_FORWARD, P.VAL_BATCH_END}
)
CUTS = frozenset(Phase) - REPLAYED
