"""Time between a stop signal and the kill: checks that a save fits, decides which write goes on."""

from __future__ import annotations

import math
import time

from mtf.trainer.runtime.console import amount, say

_RESERVE = 1.25  # a shared disk is slower on some days


def needed_lead_s(save_s: float, micro_batch_s: float) -> int:
    """Return the ``slurm.signal_lead`` that a stop needs: one micro-batch to the cut, one save."""
    return max(1, math.ceil(_RESERVE * (save_s + micro_batch_s)))


def short_lead_warning(save_s: float, micro_batch_s: float, size: int, lead_s: int) -> str | None:
    """Return a warning if the signal comes too late for a save, else None.

    Args:
        save_s: expected time of a save, in seconds.
        micro_batch_s: time of a micro-batch, in seconds; the signal may come at its start.
        size: of a checkpoint, in bytes.
        lead_s: time from the signal to the time limit, in seconds.
    """
    if save_s + micro_batch_s <= lead_s:
        return None
    batch = f" after a micro-batch of {micro_batch_s:.0f} s" if micro_batch_s >= 1 else ""
    return (
        f"a checkpoint of {amount(size)} takes about {save_s:.0f} s here{batch}, but the signal"
        f" comes only {lead_s} s before the time limit: training since the last checkpoint would be"
        f" lost. Set slurm.signal_lead: {needed_lead_s(save_s, micro_batch_s)}"
    )


def should_finish_write(
    left_s: float, whole_s: float, grace_s: float | None, *, is_best: bool
) -> bool:
    """Return True if a write under way should end before the write of a newer state begins.

    If it is finished, its checkpoint is durable even if the newer one fails. If it is given up,
    the newer one begins at once; but one of the best checkpoints cannot be made again.

    Args:
        left_s: expected time until the write under way ends, in seconds.
        whole_s: expected time of the newer write, in seconds.
        grace_s: time left for both, in seconds; None: unknown.
        is_best: whether the write under way is of one of the best checkpoints.
    """
    if grace_s is None:
        return is_best or left_s <= whole_s / 2
    both_fit = left_s + whole_s <= grace_s
    only_it_fits = left_s <= grace_s < whole_s
    return both_fit or only_it_fits


class StopBudget:
    """Warns if ``slurm.signal_lead`` is too short, and again when a quarter more is needed."""

    def __init__(self, lead_s: int) -> None:
        self._lead_s = lead_s
        self._since_s, self._first_batch = 0.0, 0
        self._batch_s = 0.0  # 0: unknown
        self._warned_of_s = 0

    def begin(self, batches: int) -> None:
        """Start measuring the time of micro-batches, of which ``batches`` are done."""
        self._since_s, self._first_batch = time.monotonic(), batches

    def count(self, batches: int) -> None:
        """Note how many micro-batches are done."""
        if batches > self._first_batch:
            self._batch_s = (time.monotonic() - self._since_s) / (batches - self._first_batch)

    def check(self, save_s: float, size: int) -> None:
        """Warn if a save of ``save_s`` seconds and ``size`` bytes does not fit into the lead."""
        text = short_lead_warning(save_s, self._batch_s, size, self._lead_s)
        needed = needed_lead_s(save_s, self._batch_s)
        if text is not None and needed > _RESERVE * self._warned_of_s:
            self._warned_of_s = needed
            say(text)
