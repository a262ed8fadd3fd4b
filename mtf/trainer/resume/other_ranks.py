"""Resumes with another number of processes: the same global batches and the same schedule.

A training's batches are made in as many shares as it began with processes. The processes that there
are take them in turn (``data.order``), and accumulate gradients over more or fewer of them, so that
each optimizer step has the same samples as before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch.optim.lr_scheduler import LambdaLR

from mtf.errors import MtfError
from mtf.trainer.data.mixing import deal
from mtf.trainer.loop.phases import Phase
from mtf.trainer.loop.state import TrainMicroState, ValMicroState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mtf.trainer.components.lr_schedulers import Schedule
    from mtf.trainer.compute.rank_sync import RankSync
    from mtf.trainer.data.batches import Batches

RankState = dict[str, Any]


@dataclass(frozen=True)
class Saved:
    """The sharing of batches by the processes of the training that saved a checkpoint.

    Attributes:
        processes: number of processes that saved it.
        shares: number of processes that the training began with.
    """

    processes: int
    shares: int

    @classmethod
    def of(cls, ranks: Sequence[Mapping[str, Any]]) -> Saved:
        """Return it from the state of the ranks; earlier versions of mtf did not save shares."""
        return cls(len(ranks), ranks[0].get("shares") or len(ranks))


def check(saved: Saved, train: Batches, accumulated: int, sync: RankSync) -> str:
    """Return a sentence about how the present processes share the batches.

    All ranks must call it.

    Args:
        saved: how the batches were shared.
        train: the batches of this rank.
        accumulated: batches of one process for an optimizer step, as configured.
        sync: of the present processes.

    Raises:
        MtfError: they cannot take the same batches for each step.
    """
    here, in_step = sync.world_size, saved.shares * accumulated
    was = f"the checkpoint was saved by {_processes(saved.processes)}"
    if saved.processes != saved.shares:
        was += f" of a training that began with {saved.shares}"
    was += f", and now there {'is' if here == 1 else 'are'} {here}"
    try:
        lengths = _lengths(deal(train, saved.shares, here), sync)
    except MtfError as e:
        raise MtfError(
            f"{was}. This data cannot be dealt to another number: {e}. Set slurm.nodes and"
            f" slurm.ntasks_per_node for {_processes(saved.shares)}"
        ) from e
    in_epoch = sum(lengths)
    if in_step % here or in_epoch % here:
        what = f"an optimizer step takes {in_step} batches ({saved.shares} x {accumulated}"
        what += " accumulated)" if accumulated > 1 else " x 1)"
        fitting = [n for n in range(1, in_step + 1) if not (in_step % n or in_epoch % n)]
        raise MtfError(
            f"{was}, which cannot take equally many batches: {what}, and an epoch {in_epoch}. Set"
            f" slurm.nodes and slurm.ntasks_per_node for {_listed(fitting)}"
        )
    own = in_step // here
    return (
        f"{was}: each takes {own} {'batch' if own == 1 else 'batches'} for an optimizer step, so"
        f" that all take {in_step} as before. Random numbers of the model, and the rounding of"
        " sums, will differ"
    )


def lost_metrics(first: RankState) -> str:
    """Return a sentence about torchmetrics objects that begin anew, or an empty text.

    A merged state of all ranks could not be shared out again: reductions such as a mean differ.
    """
    states = [
        attributes for state in first.get("metric_objects", ()) for attributes in state.values()
    ]
    is_training = first["phase"].startswith(("TRAIN_BATCH", "SCHEDULER"))
    if not is_training or not any(attributes.get("_update_count") for attributes in states):
        return ""
    return ". The values of torchmetrics objects for this epoch's training cover the rest of it"


def check_schedules(schedules: Mapping[str, Schedule]) -> None:
    """Check that functions of learning rates, which no checkpoint holds, are as they were.

    Call it when the schedules' state is loaded.

    Raises:
        MtfError: one gives another rate for the same step.
    """
    for schedule in schedules.values():
        scheduler = schedule.scheduler
        if not isinstance(scheduler, LambdaLR):
            continue
        step = scheduler.last_epoch
        functions = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        now = [base * function(step) for base, function in functions]
        if now != scheduler.get_last_lr():
            raise MtfError(
                f"the scheduler's function gives the learning rate {now[0]:.3g} at step {step},"
                f" where the training had {scheduler.get_last_lr()[0]:.3g}: it depends on the"
                " number of processes. Compute it from numbers of the spec, or resume with as many"
                " processes as before"
            )


def state_of(ranks: Sequence[RankState], rank: int, world_size: int) -> RankState:
    """Return the state of one of ``world_size`` ranks that continue the training of ``ranks``.

    An accumulation window that has begun is begun again, and so is a validation.
    """
    first, shares = ranks[0], Saved.of(ranks).shares
    phase, train = Phase(first["phase"]), _sum_of_trains(ranks)
    if first["train"]["window"]:
        phase = Phase.TRAIN_BATCH_LOAD
    if phase.startswith("VAL") or first["val"]["batch"]:
        phase = Phase.VAL_START_EPOCH
    train.batch = train.batch * len(ranks) // world_size
    if rank:  # the first rank has the sums of all
        train = TrainMicroState(batch=train.batch, metrics=train.metrics)
    return {
        **first,
        "phase": str(phase),
        "shares": shares,
        "train": vars(train),
        "val": vars(ValMicroState()),
        "rng": ranks[rank]["rng"] if rank < len(ranks) else None,
        "gradients": None,
        "buffers": {},
        "replaced": [],
        "own_callbacks": None,
        "spreads_buffers": None,
        "metric_objects": [],
    }


def _sum_of_trains(ranks: Sequence[RankState]) -> TrainMicroState:
    """Return the first rank's place, at the beginning of a window, with the values of all ranks."""
    trains = [TrainMicroState.of(state["train"]) for state in ranks]
    for train in trains:
        train.undo_window()
    for train in trains[1:]:
        trains[0].add_sums(train)
    return trains[0]


def _lengths(train: Batches, sync: RankSync) -> list[int]:
    lengths: list[int] = sync.broadcast(sync.gather(len(train)))
    return lengths


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"


def _listed(numbers: Sequence[int]) -> str:
    *most, last = map(str, numbers)
    if not most:
        return _processes(numbers[0])
    return f"{', '.join(most)} or {last} processes"
