"""Asks why trainings differ: makes them again under probes, or with one thing changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtf.trainer.verify import diagnose
from mtf.trainer.verify.compare_trainings import difference
from mtf.trainer.verify.diagnose import Diagnosis, Evidence
from mtf.trainer.verify.hidden_state import idle_generators, unequal
from mtf.trainer.verify.laboratory import FailedError
from mtf.trainer.verify.one_trial import read_hidden
from mtf.trainer.verify.ops import first_op, read_ops
from mtf.trainer.verify.random_sources import read_sources
from mtf.trainer.verify.recorder import first_difference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mtf.trainer.verify.laboratory import Laboratory, Training
    from mtf.trainer.verify.trials import Interruption

    Key = tuple[int, bool, int]

_ALL = (1 << 30, True, 0)  # after every batch


class Inquiry:
    """Finds the cause of one difference."""

    def __init__(self, lab: Laboratory, say: Callable[..., None]) -> None:
        self._lab = lab
        self._say = say

    def of_repetition(self, whole: Training, again: Training) -> Diagnosis:
        """Return why two uninterrupted trainings differ."""
        to = _first_key(whole, again)
        changes = self._without_workers(whole, again)
        self._say("probing", what="more trainings under probes")
        one, two = self._probed((), to, **changes), self._probed((), to, **changes)
        if not _evidence(one, two).says_something:  # chance may let them differ later than before
            one, two = self._probed((), _ALL, **changes), self._probed((), _ALL, **changes)
        if _equal(one, two):
            return self._between_processes(to, changes)
        cause = diagnose.why_not_repeatable(_evidence(one, two))
        if cause.kind in {"nondeterministic-kernel", "unknown"}:
            return self._with_deterministic_kernels(cause)
        return cause

    def of_resume(
        self, whole: Training, other: Training, interruptions: Sequence[Interruption]
    ) -> Diagnosis:
        """Return why an interrupted training differs from whole ones, which are equal."""
        if not whole.records:
            return diagnose.OWN_LOOP
        to = _first_key(whole, other)
        changes = self._without_workers(whole, other)
        self._say("probing", what="the interruption once more, under probes")
        one, two = self._probed((), to, **changes), self._probed(interruptions, to, **changes)
        if changes and _equal(one, two):
            return diagnose.WORKERS
        return diagnose.why_not_resumable(_evidence(one, two))

    @staticmethod
    def of_failure(message: str) -> Diagnosis:
        """Return the cause where an interrupted training does not even go on."""
        return Diagnosis(
            "resume-fails", message, "see the output that is named there; a state_dict of your own"
            " may hold tensors, numbers, text and containers of these only",
        )  # fmt: skip

    def _probed(self, interruptions: Sequence[Interruption], to: Key, **how: Any) -> Training:
        return self._lab.train(interruptions, probed_to=to, **how)

    def _without_workers(self, whole: Training, other: Training) -> dict[str, Any]:
        """Return what brings the making of batches into sight, where it is they that differ."""
        first = first_difference(whole.records, other.records)
        if first is None or first[0].inputs == first[1].inputs or not self._lab.num_workers:
            return {}
        return {"num_workers": 0}

    def _between_processes(self, to: Key, changes: dict[str, Any]) -> Diagnosis:
        """Return the cause where forks of one process agree: without workers, or in general."""
        if changes:
            one, two = self._lab.train(), self._lab.train()
            if not _equal(one, two):
                return diagnose.WORKERS
        self._say("probing", what="two new interpreters with PYTHONHASHSEED=0")
        alike = {"PYTHONHASHSEED": "0"}
        one, two = (self._lab.train(fresh=True, env=alike) for _ in range(2))
        if _equal(one, two):
            return diagnose.HASH_ORDER
        one, two = (self._probed((), to, fresh=True, env=alike) for _ in range(2))
        return diagnose.between_processes(_evidence(one, two))

    def _with_deterministic_kernels(self, cause: Diagnosis) -> Diagnosis:
        """Return the cause once torch has had its say on kernels."""
        self._say("probing", what="torch.use_deterministic_algorithms(True)")
        try:
            one, two = (self._lab.train(deterministic=True) for _ in range(2))
        except FailedError as e:
            named = "deterministic" in str(e)
            return diagnose.kernel_named(str(e)) if named else cause
        return diagnose.confirmed(cause) if _equal(one, two) else cause


def _evidence(one: Training, two: Training) -> Evidence:
    first = first_difference(one.records, two.records)
    return Evidence(
        first=first,
        op=first_op(read_ops(one.folder), read_ops(two.folder)),
        sources=tuple(dict.fromkeys((*read_sources(one.folder), *read_sources(two.folder)))),
        hidden=_hidden(one, two),
    )


def _hidden(one: Training, two: Training) -> dict[str, tuple[str, str]]:
    """Return the unsaved state that is unequal before the first batch before which any is.

    A generator that nobody draws from is left out: without a seed, no two processes have it equal.
    """
    ours, theirs = read_hidden(one.folder), read_hidden(two.folder)
    found = [unequal(ours[place], theirs[place]) for place in sorted(ours.keys() & theirs.keys())]
    idle = idle_generators(list(ours.values()))
    moving = [{n: values for n, values in each.items() if n not in idle} for each in found]
    return next(filter(None, moving), {})


def _first_key(one: Training, two: Training) -> Key:
    first = first_difference(one.records, two.records)
    return _ALL if first is None else first[0].place.key


def _equal(one: Training, two: Training) -> bool:
    return difference(one.result, two.result) is None
