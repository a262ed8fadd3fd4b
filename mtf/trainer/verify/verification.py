"""Verifies a training: compares an uninterrupted training bit by bit with interrupted ones."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

from mtf.errors import MtfError
from mtf.trainer.verify import diagnose, interruption_points
from mtf.trainer.verify.batch_records import first_difference
from mtf.trainer.verify.compare_trainings import differences, first_row
from mtf.trainer.verify.find_cause import CauseFinder
from mtf.trainer.verify.one_trial import read_end, read_process_count
from mtf.trainer.verify.parallel_trials import T, run_parallel
from mtf.trainer.verify.training_runner import TrainingFailedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mtf.trainer.verify.diagnose import Diagnosis
    from mtf.trainer.verify.parallel_trials import Steps
    from mtf.trainer.verify.training_runner import Training, TrainingRunner, VerifyRequest
    from mtf.trainer.verify.trial_process import Interruption

    Emit = Callable[..., None]

_QUICK_S = 2.0  # trainings up to this length are interrupted twice as often
REPETITION, INTERRUPTION, CHAIN = "repetition", "interruption", "chain"


@dataclass(frozen=True)
class Finding:
    """How a training differs from the first, uninterrupted one."""

    stage: str
    interruption: str
    places: int  # number of places in the result that differ
    first: str  # the first of these places, usually a tensor
    batch: str  # the first batch whose inputs or loss differ; empty if none does
    losses: tuple[float, ...]  # of that batch, in the first training and in this one
    at_resume: bool | None  # whether it is the first batch after the resume
    row: tuple[Any, Any] | None  # the first rows of scalars that differ


@dataclass(frozen=True)
class Deviation:
    """A training that differs, and how to find out why."""

    finding: Finding
    explain: Callable[[CauseFinder], Diagnosis]


@dataclass
class Verdict:
    """The outcome of a verification."""

    exact: bool = True
    trainings: int = 0
    processes: int = 0
    at_once: int = 1  # trainings that ran in parallel
    tensors: int = 0  # compared in each training
    bytes: int = 0  # of these tensors
    finding: Finding | None = None
    cause: Diagnosis | None = None
    seconds: float = field(default_factory=time.monotonic)  # the time of the start

    def plain(self) -> dict[str, Any]:
        """Return the verdict as JSON values, with the seconds that it took."""
        return {**asdict(self), "seconds": round(time.monotonic() - self.seconds, 1)}


def verify(runner: TrainingRunner, request: VerifyRequest, emit: Emit) -> Verdict:
    """Verify a training and return the verdict.

    Args:
        runner: runs the trainings.
        request: where and how often to interrupt.
        emit: called with the name and the facts of each event.

    Raises:
        MtfError: a training fails by itself, so that there is nothing to compare.
    """
    verification = _Verification(runner, request, emit)
    deviation = verification.first_deviation()
    verdict = verification.verdict
    if deviation is not None:
        verdict.exact, verdict.finding = False, deviation.finding
        verdict.cause = deviation.explain(CauseFinder(runner, emit))
    verdict.processes, verdict.at_once = runner.processes, runner.at_once
    return verdict


class _Verification:
    """Trains once without interruptions, then in all other ways, and compares the results."""

    def __init__(self, runner: TrainingRunner, request: VerifyRequest, emit: Emit) -> None:
        self._runner = runner
        self._request = request
        self._emit = emit
        self.verdict = Verdict()
        started = time.monotonic()
        self._whole = self._runner.train()
        self._phases, self._seconds, modules = read_end(self._whole.folder)
        runner.prepare_parallel(time.monotonic() - started, modules)
        tensors = [leaf for leaf in tree_leaves(self._whole.result) if torch.is_tensor(leaf)]
        self.verdict.trainings = 1
        self.verdict.tensors = len(tensors)
        self.verdict.bytes = sum(t.numel() * t.element_size() for t in tensors)
        emit("whole", number=1, seconds=self._seconds, records=len(self._whole.records))

    def first_deviation(self) -> Deviation | None:
        """Train in every way that should change nothing; return the first deviation, if any.

        If already two uninterrupted trainings differ, that deviation is the one to explain.
        """
        chosen = self._interruptions()
        self._emit("plan", phases={name: len(found) for name, found in chosen.items()})
        chain = [self._chain()] if self._phases and self._request.stops else []
        single = [self._single(phase, i) for phase, found in chosen.items() for i in found]
        first: tuple[int, Deviation] | None = None
        tasks = [self._repetition(), *chain, *single]
        for number, deviation in run_parallel(
            self._runner.at_once, map(_numbered, enumerate(tasks))
        ):
            if deviation is not None and number == 0:
                return deviation
            if deviation is not None and (first is None or number < first[0]):
                first = number, deviation
        return None if first is None else first[1]

    def _interruptions(self) -> dict[str, list[Interruption]]:
        wanted = self._request.phases
        if not self._phases and not wanted:
            return {"": interruption_points.at_moments(self._seconds)}
        often = self._runner.forks and self._seconds <= _QUICK_S
        if chosen := interruption_points.interruptions(self._phases, wanted, often=often):
            return chosen
        phases = ", ".join(self._phases) or "none, as its loop is a custom one"
        raise MtfError(f"the training never reaches {', '.join(wanted)}. Its phases: {phases}")

    def _repetition(self) -> Steps[Deviation | None]:
        """Train once more without an interruption, in a new interpreter."""
        again = yield from self._train(fresh=True)
        self._emit("whole", number=2, seconds=read_end(again.folder)[1])
        return self._deviation(again, REPETITION, ())

    def _single(self, phase: str, interruption: Interruption) -> Steps[Deviation | None]:
        deviation, _ = yield from self._interrupted([interruption], INTERRUPTION)
        facts = {"kill": interruption.is_kill, "exact": deviation is None}
        self._emit("interrupted", phase=phase, where=str(interruption), **facts)
        return deviation

    def _chain(self) -> Steps[Deviation | None]:
        """Interrupt a training again and again, and further trainings until none is left."""
        left = interruption_points.chain(self._phases, self._request.stops)
        planned, trainings, deviation = len(left), 0, None
        while left and deviation is None:
            deviation, count = yield from self._interrupted(left, CHAIN)
            trainings += 1
            if not count:
                break
            left = left[count:]
        facts = {"trainings": trainings, "exact": deviation is None}
        self._emit("chain", interruptions=planned - len(left), **facts)
        return deviation

    def _interrupted(
        self, interruptions: Sequence[Interruption], stage: str
    ) -> Steps[tuple[Deviation | None, int]]:
        """Train with interruptions; return the deviation, and how many took place."""
        try:
            other = yield from self._train(interruptions)
        except TrainingFailedError as e:
            diagnosis = diagnose.resume_fails(str(e))
            finding = Finding(stage, _joined(interruptions), 0, "", "", (), None, None)
            return Deviation(finding, lambda _: diagnosis), 0
        count = read_process_count(other.folder) - 1
        return self._deviation(other, stage, interruptions), count

    def _train(self, interruptions: Sequence[Interruption] = (), **options: Any) -> Steps[Training]:
        self.verdict.trainings += 1
        return self._runner.steps(interruptions, **options)

    def _deviation(
        self, other: Training, stage: str, interruptions: Sequence[Interruption]
    ) -> Deviation | None:
        finding = self._finding(other, stage, interruptions)
        if finding is None:
            self._runner.discard(other)
            return None
        if stage == REPETITION:
            return Deviation(finding, lambda f: f.explain_repetition(self._whole, other))
        return Deviation(finding, lambda f: f.explain_resume(self._whole, other, interruptions))

    def _finding(
        self, other: Training, stage: str, interruptions: Sequence[Interruption]
    ) -> Finding | None:
        found = list(differences(self._whole.result, other.result))
        if not found:
            return None
        batch = first_difference(self._whole.records, other.records)
        return Finding(
            stage=stage,
            interruption=_joined(interruptions),
            places=len(found),
            first=str(found[0]).removeprefix("/content/"),
            batch=str(batch[0].position) if batch else "",
            losses=tuple(v for record in batch or () for v in record.values[:1]),
            at_resume=_is_at_resume(other, batch[1].position.key) if batch else None,
            row=first_row(self._whole.result["scalars"], other.result["scalars"]),
        )


def _numbered(task: tuple[int, Steps[T]]) -> Steps[tuple[int, T]]:
    return task[0], (yield from task[1])


def _joined(interruptions: Sequence[Interruption]) -> str:
    return ", ".join(map(str, interruptions))


def _is_at_resume(training: Training, key: tuple[int, bool, int]) -> bool | None:
    """Return True if a batch is the first of the last process, None if there was only one."""
    last = max((record.process for record in training.records.values()), default=1)
    if last == 1:
        return None
    first = next(k for k, record in training.records.items() if record.process == last)
    return bool(first == key)
