"""Finds out why two trainings differ: trains again under probes, or with one setting changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtf.trainer.verify import diagnose
from mtf.trainer.verify.batch_records import first_difference
from mtf.trainer.verify.compare_trainings import difference
from mtf.trainer.verify.diagnose import Diagnosis, Evidence
from mtf.trainer.verify.hidden_state import idle_generators, unequal
from mtf.trainer.verify.one_trial import read_hidden
from mtf.trainer.verify.random_sources import read_sources
from mtf.trainer.verify.tensor_ops import first_different_op, read_ops
from mtf.trainer.verify.training_runner import TrainingFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mtf.trainer.verify.training_runner import Training, TrainingRunner
    from mtf.trainer.verify.trial_process import Interruption

    BatchKey = tuple[int, bool, int]

_AFTER_ALL = (1 << 30, True, 0)  # greater than the key of any batch
_MORE_TRIES = 2


class CauseFinder:
    """Finds the cause of one difference."""

    def __init__(self, runner: TrainingRunner, emit: Callable[..., None]) -> None:
        self._runner = runner
        self._emit = emit

    def explain_repetition(self, first: Training, second: Training) -> Diagnosis:
        """Find the cause why two uninterrupted trainings differ."""
        until = _first_different_key(first, second)
        changes = self._without_workers(first, second)
        self._emit("probing", what="training again under probes")
        left, right = self._probed((), until, **changes), self._probed((), until, **changes)
        # by chance, they may differ at a later batch
        if not _evidence(left, right).shows_difference:
            left, right = (self._probed((), _AFTER_ALL, **changes) for _ in range(2))
        if _equal(left, right):
            return self._explain_processes(until, changes)
        diagnosis = diagnose.why_not_repeatable(_evidence(left, right))
        if diagnosis.kind in {"nondeterministic-kernel", "unknown"}:
            return self._with_deterministic_kernels(diagnosis)
        return diagnosis

    def explain_resume(
        self, whole: Training, other: Training, interruptions: Sequence[Interruption]
    ) -> Diagnosis:
        """Find the cause why an interrupted training differs from equal uninterrupted ones."""
        if not whole.records:
            return diagnose.CUSTOM_LOOP
        until = _first_different_key(whole, other)
        changes = self._without_workers(whole, other)
        self._emit("probing", what="repeating the interruption under probes")
        left = self._probed((), until, **changes)
        right = self._interrupted(left, interruptions, until, **changes)
        if changes and _equal(left, right):
            return diagnose.DATA_WORKERS
        return diagnose.why_not_resumable(_evidence(left, right))

    def _probed(
        self, interruptions: Sequence[Interruption], until: BatchKey, **options: Any
    ) -> Training:
        return self._runner.train(interruptions, probed_to=until, **options)

    def _interrupted(
        self,
        whole: Training,
        interruptions: Sequence[Interruption],
        until: BatchKey,
        **options: Any,
    ) -> Training:
        """Repeat an interruption until the training differs from a whole one, within limits.

        A kill may come before the save that it followed the last time: then nothing is resumed.
        """
        found = self._probed(interruptions, until, **options)
        for _ in range(_MORE_TRIES):
            if not _equal(whole, found):
                break
            found = self._probed(interruptions, until, **options)
        return found

    def _without_workers(self, first: Training, second: Training) -> dict[str, Any]:
        """Return changes that let the probes see how batches are made, if the batches differ."""
        found = first_difference(first.records, second.records)
        if found is None or found[0].inputs == found[1].inputs or not self._runner.num_workers:
            return {}
        return {"num_workers": 0}

    def _explain_processes(self, until: BatchKey, changes: dict[str, Any]) -> Diagnosis:
        """Find the cause where trainings that are forks of one process are equal."""
        if changes:
            left, right = self._runner.train(), self._runner.train()
            if not _equal(left, right):
                return diagnose.DATA_WORKERS
        self._emit("probing", what="training in two new interpreters with PYTHONHASHSEED=0")
        same_hashes = {"PYTHONHASHSEED": "0"}
        left, right = (self._runner.train(fresh=True, env=same_hashes) for _ in range(2))
        if _equal(left, right):
            return diagnose.HASH_ORDER
        left, right = (self._probed((), until, fresh=True, env=same_hashes) for _ in range(2))
        return diagnose.between_processes(_evidence(left, right))

    def _with_deterministic_kernels(self, diagnosis: Diagnosis) -> Diagnosis:
        """Train again with torch's deterministic kernels; return the refined diagnosis."""
        self._emit("probing", what="training with torch.use_deterministic_algorithms(True)")
        try:
            left, right = (self._runner.train(deterministic=True) for _ in range(2))
        except TrainingFailedError as e:
            if "deterministic" in str(e):
                return diagnose.kernel_named_by_torch(str(e))
            return diagnosis
        return diagnose.confirmed(diagnosis) if _equal(left, right) else diagnosis


def _evidence(left: Training, right: Training) -> Evidence:
    return Evidence(
        batches=first_difference(left.records, right.records),
        op=first_different_op(read_ops(left.folder), read_ops(right.folder)),
        sources=tuple(dict.fromkeys((*read_sources(left.folder), *read_sources(right.folder)))),
        hidden=_hidden(left, right),
    )


def _hidden(left: Training, right: Training) -> dict[str, tuple[str, str]]:
    """Return the unsaved state that differs, before the first batch where any does.

    Generators that nobody draws from are left out: without a seed they differ in every process.
    """
    in_left, in_right = read_hidden(left.folder), read_hidden(right.folder)
    found = [
        unequal(in_left[batch], in_right[batch])
        for batch in sorted(in_left.keys() & in_right.keys())
    ]
    idle = idle_generators(list(in_left.values()))
    in_use = [{n: values for n, values in state.items() if n not in idle} for state in found]
    return next(filter(None, in_use), {})


def _first_different_key(left: Training, right: Training) -> BatchKey:
    found = first_difference(left.records, right.records)
    return _AFTER_ALL if found is None else found[0].position.key


def _equal(left: Training, right: Training) -> bool:
    return difference(left.result, right.result) is None
