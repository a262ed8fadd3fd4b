"""Whether a save fits into the time that a signal leaves: said before it hurts."""

from __future__ import annotations

import math
import time

from mtf.trainer.runtime.console import amount, say

# A shared disk is not as fast on every day.
_RESERVE = 1.25


def needed_lead_s(save_s: float, micro_batch_s: float) -> int:
    """Return the lead of the signal that a stop needs: one micro-batch to the cut, one save."""
    return max(1, math.ceil(_RESERVE * (save_s + micro_batch_s)))


def warning(save_s: float, micro_batch_s: float, size: int, lead_s: int) -> str | None:
    """Return what to say of a lead that is too short, None of one that is enough.

    Args:
        save_s: expected time of a save, in seconds.
        micro_batch_s: time of a micro-batch, in seconds; the signal may come at its start.
        size: of a checkpoint, in bytes.
        lead_s: time from the signal to the limit, in seconds.
    """
    if save_s + micro_batch_s <= lead_s:
        return None
    batch = f" after a micro-batch of {micro_batch_s:.0f} s" if micro_batch_s >= 1 else ""
    return (
        f"a checkpoint of {amount(size)} takes about {save_s:.0f} s here{batch}, and the signal"
        f" before the time limit comes only {lead_s} s ahead: work since the last checkpoint would"
        f" be lost. Set slurm.signal_lead: {needed_lead_s(save_s, micro_batch_s)}"
    )


def should_finish_write(
    left_s: float, whole_s: float, grace_s: float | None, *, is_best: bool
) -> bool:
    """Return whether a write under way is finished before that of a newer state begins.

    Finished, it is durable whatever becomes of the newer one; given up, the newer one begins at
    once. One of the best checkpoints would be lost for good.

    Args:
        left_s: expected time to its end, in seconds.
        whole_s: expected time of the newer one's write, in seconds.
        grace_s: time that is left, in seconds; None: unknown.
        is_best: whether it is one of the best.
    """
    if grace_s is None:
        return is_best or left_s <= whole_s / 2
    both_fit = left_s + whole_s <= grace_s
    only_it_fits = left_s <= grace_s < whole_s
    return both_fit or only_it_fits


class Watch:
    """Says that the lead of the signal is too short, and again when more is needed by a quarter."""

    def __init__(self, lead_s: int) -> None:
        self._lead_s = lead_s
        self._since_s, self._first = 0.0, 0
        self._batch_s = 0.0  # not known yet
        self._said = 0

    def begin(self, batches: int) -> None:
        """Take the time of micro-batches from here on; so many are done."""
        self._since_s, self._first = time.monotonic(), batches

    def count(self, batches: int) -> None:
        """Note how many micro-batches are done."""
        if batches > self._first:
            self._batch_s = (time.monotonic() - self._since_s) / (batches - self._first)

    def look(self, save_s: float, size: int) -> None:
        """Compare the expected time of a save, in seconds, with the lead."""
        text = warning(save_s, self._batch_s, size, self._lead_s)
        needed = needed_lead_s(save_s, self._batch_s)
        if text is not None and needed > _RESERVE * self._said:
            self._said = needed
            say(text)
