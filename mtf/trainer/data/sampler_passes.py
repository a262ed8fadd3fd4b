"""The batches that a user's sampler makes in each epoch, repeatable in another process."""

from __future__ import annotations

from itertools import islice
from typing import Any

from mtf.errors import MtfError
from mtf.trainer.compute.rng import TemporarilySeeded, seed_at
from mtf.trainer.data.kept_state import changed_attributes, kept_state
from mtf.trainer.data.own_generators import OwnGenerators
from mtf.trainer.data.user_parts import epoch_setters, is_plain_sampler
from mtf.trainer.runtime.console import say

_LEGACY = ("0.generator", "0.sampler.generator")  # these were the first that mtf seeded


class SamplerPasses:
    """Draws the batches of an epoch, once for each epoch.

    The sampler is told the epoch, and all generators are seeded. So an epoch is the same whichever
    was drawn before, unless the sampler keeps state from pass to pass, such as a count or a list
    that it shuffles in place: then a resume makes the earlier passes again.

    Args:
        sampler: the batch sampler.
        seed: the training's seed.
        reported: whether to report what the user should know.

    Attributes:
        is_plain: whether the sampler is of torch or a list: all epochs have as many batches.
    """

    def __init__(self, sampler: Any, seed: int, *, reported: bool) -> None:
        self._sampler, self._seed, self._reported = sampler, seed, reported
        self._setters = epoch_setters(sampler)
        self._own = OwnGenerators(sampler, reported=reported)
        self.is_plain = is_plain_sampler(sampler)
        self._passes = 0
        self._counts_passes = False
        self._keeps_state = False
        self._has_true_length = True
        self._newest: tuple[tuple[int, int], list[list[int]]] | None = None

    def batches(self, epoch: int, seeded_as: int | None = None) -> list[list[int]]:
        """Return the batches of an epoch.

        Args:
            epoch: that the sampler is told.
            seeded_as: the epoch whose seeds it gets; None: those of ``epoch``.
        """
        key = (epoch, epoch if seeded_as is None else seeded_as)
        if self._newest is None or self._newest[0] != key:
            self._newest = key, self._drawn(*key)
        return self._newest[1]

    def newest(self, seeded_as: int) -> list[list[int]]:
        """Return the batches that were drawn last, or else those of an epoch with these seeds."""
        if self._newest is None or self._newest[0][1] != seeded_as:
            return self.batches(seeded_as)
        return self._newest[1]

    def expected_counts(self, epochs: int) -> list[int]:
        """Return the number of batches in each of the first epochs."""
        first = len(self.batches(0))
        if self.is_plain or self._counts_passes or not self._setters:
            return [first] * epochs
        counts = [first]
        for epoch in range(1, epochs):
            self._newest = None  # it has been told another epoch since
            self._set_epoch(epoch)
            counts.append(len(self._sampler) if self._has_true_length else len(self.batches(epoch)))
        return counts

    def _drawn(self, epoch: int, seeded_as: int) -> list[list[int]]:
        if self._passes == 0 and epoch > 0 and not self.is_plain:
            self._pass(0, 0)  # shows whether it keeps state
        while self._keeps_state and self._passes < epoch:
            self._pass(self._passes, min(self._passes, seeded_as))
        return self._pass(epoch, seeded_as)

    def _pass(self, epoch: int, seeded_as: int) -> list[list[int]]:
        self._set_epoch(epoch)
        said, before = len(self._sampler), self._numbers()
        kept = self._kept()
        place = ("order", self._seed, seeded_as)
        self._own.seed(*place, plain=_LEGACY)
        most = min(10 * said + 10_000, 10_000_000)
        with TemporarilySeeded(seed_at(*place)):
            batches = [list(indices) for indices in islice(self._sampler, most)]
        self._counts_passes |= not self.is_plain and self._numbers() != before
        self._keeps_state |= self._counts_passes or bool(changed_attributes(kept, self._kept()))
        self._passes += 1
        self._check(epoch, len(batches), said, most)
        return batches

    def _set_epoch(self, epoch: int) -> None:
        for set_epoch in self._setters:
            set_epoch(epoch)

    def _check(self, epoch: int, made: int, said: int, most: int) -> None:
        """Compare the number of batches in an epoch with the sampler's length.

        Raises:
            MtfError: there is none, or there is no end.
        """
        name = type(self._sampler).__name__
        if made in {0, most}:
            many = f"{most} batches or more" if made else "no batch"
            raise MtfError(
                f"the sampler {name} makes {many} in epoch {epoch + 1}, and its __len__ says"
                f" {said}: let it end after the batches of one epoch"
            )
        if made == said or not self._has_true_length:
            return
        self._has_true_length = False
        if self._reported:
            say(
                f"the sampler {name} makes {made} batches in epoch {epoch + 1}, and its __len__"
                f" says {said}: all that it makes are used"
            )

    def _numbers(self) -> list[tuple[str, Any]]:
        """Return the plain attributes of the sampler and the one inside it."""
        parts = (self._sampler, getattr(self._sampler, "sampler", None))
        return [
            (name, value)
            for part in parts
            for name, value in getattr(part, "__dict__", {}).items()
            if isinstance(value, int | float | str)
        ]

    def _kept(self) -> dict[str, object]:
        """Return the state that the sampler keeps; only around its first pass, which shows it."""
        if self.is_plain or self._passes > 0:
            return {}
        inner = getattr(self._sampler, "sampler", None)
        own = {f"sampler.{name}": state for name, state in kept_state(inner).items()}
        return {**kept_state(self._sampler), **own}
