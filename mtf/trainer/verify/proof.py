"""The proof: trainings compared bit by bit, whole ones first, then interrupted ones."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._pytree import tree_leaves

from mtf.errors import MtfError
from mtf.trainer.verify import interruption_points
from mtf.trainer.verify.compare_trainings import differences, first_row
from mtf.trainer.verify.inquiry import Inquiry
from mtf.trainer.verify.laboratory import FailedError
from mtf.trainer.verify.one_trial import read_end, read_lives
from mtf.trainer.verify.parallel_trials import T, at_once
from mtf.trainer.verify.recorder import first_difference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mtf.trainer.verify.diagnose import Diagnosis
    from mtf.trainer.verify.laboratory import Laboratory, Order, Training
    from mtf.trainer.verify.parallel_trials import Steps
    from mtf.trainer.verify.trials import Interruption

    Say = Callable[..., None]

_QUICK_S = 2.0  # a training that takes no longer is interrupted twice as often
REPETITION, INTERRUPTION, CHAIN = "repetition", "interruption", "chain"


@dataclass(frozen=True)
class Finding:
    """In what a training differs from the whole one."""

    stage: str
    interruption: str
    places: int  # in the result, that differ
    first: str  # of them: the first tensor
    batch: str  # the first that differs in itself or in its loss; empty: none does
    losses: tuple[float, ...]  # of that batch: whole, then other
    at_resume: bool | None  # whether it is the first batch after the resume
    row: tuple[Any, Any] | None  # the first scalars that differ


@dataclass(frozen=True)
class Trace:
    """What an interruption, or chance, has left in a training."""

    finding: Finding
    ask: Callable[[Inquiry], Diagnosis]  # why


@dataclass
class Verdict:
    """What a proof has come to."""

    exact: bool = True
    trainings: int = 0
    processes: int = 0
    at_once: int = 1  # trainings
    tensors: int = 0  # that were compared of each
    bytes: int = 0  # of these
    finding: Finding | None = None
    cause: Diagnosis | None = None
    seconds: float = field(default_factory=time.monotonic)  # the time of the start, till the end

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "seconds": round(time.monotonic() - self.seconds, 1)}


def prove(lab: Laboratory, order: Order, say: Say) -> Verdict:
    """Make the proof and return what it has come to.

    Args:
        lab: makes the trainings.
        order: what is to be proved.
        say: called with each event's name and facts.

    Raises:
        MtfError: a training fails by itself, so that there is nothing to compare.
    """
    proof = _Proof(lab, order, say)
    trace = proof.search()
    verdict = proof.verdict
    if trace is not None:
        verdict.exact, verdict.finding = False, trace.finding
        verdict.cause = trace.ask(Inquiry(lab, say))
    verdict.processes, verdict.at_once = lab.processes, lab.at_once
    return verdict


class _Proof:
    """What is known so far."""

    def __init__(self, lab: Laboratory, order: Order, say: Say) -> None:
        self._lab = lab
        self._order = order
        self._say = say
        self.verdict = Verdict()
        started = time.monotonic()
        self._whole = self._lab.train()
        self._phases, self._seconds, modules = read_end(self._whole.folder)
        lab.settle(time.monotonic() - started, modules)
        tensors = [leaf for leaf in tree_leaves(self._whole.result) if torch.is_tensor(leaf)]
        self.verdict.trainings = 1
        self.verdict.tensors = len(tensors)
        self.verdict.bytes = sum(t.numel() * t.element_size() for t in tensors)
        say("whole", number=1, seconds=self._seconds, records=len(self._whole.records))

    def search(self) -> Trace | None:
        """Train in every way that should make no difference; return the first trace of any.

        Where a training is not even the same when nobody interrupts it, the others say nothing.
        """
        chosen = self._chosen()
        self._say("plan", phases={name: len(found) for name, found in chosen.items()})
        chain = [self._chain()] if self._phases and self._order.stops else []
        ones = [self._one(phase, each) for phase, found in chosen.items() for each in found]
        found: dict[int, Trace] = {}
        works = [self._again(), *chain, *ones]
        for number, trace in at_once(self._lab.at_once, map(_numbered, enumerate(works))):
            if trace is not None and number == 0:
                return trace
            if trace is not None and number <= min(found, default=number):
                found = {number: trace}
        return next(iter(found.values()), None)

    def _chosen(self) -> dict[str, list[Interruption]]:
        wanted = self._order.phases
        if not self._phases and not wanted:
            return {"": interruption_points.at_moments(self._seconds)}
        often = self._lab.forks and self._seconds <= _QUICK_S
        if chosen := interruption_points.interruptions(self._phases, wanted, often=often):
            return chosen
        there = ", ".join(self._phases) or "none: it is a loop of its own"
        raise MtfError(f"the training never comes to {', '.join(wanted)}. Its phases: {there}")

    def _again(self) -> Steps[Trace | None]:
        """Train once more without an interruption, in an interpreter of its own."""
        again = yield from self._train(fresh=True)
        self._say("whole", number=2, seconds=read_end(again.folder)[1])
        return self._trace(again, REPETITION, ())

    def _one(self, phase: str, interruption: Interruption) -> Steps[Trace | None]:
        trace, _ = yield from self._interrupted([interruption], INTERRUPTION)
        facts = {"kill": interruption.is_kill, "exact": trace is None}
        self._say("interrupted", phase=phase, where=str(interruption), **facts)
        return trace

    def _chain(self) -> Steps[Trace | None]:
        """Interrupt again and again; a training that is complete too soon makes way for another."""
        left, trainings, trace = interruption_points.chain(self._phases, self._order.stops), 0, None
        asked = len(left)
        while left and trace is None:
            trace, suffered = yield from self._interrupted(left, CHAIN)
            trainings += 1
            if not suffered:
                break
            left = left[suffered:]
        facts = {"trainings": trainings, "exact": trace is None}
        self._say("chain", interruptions=asked - len(left), **facts)
        return trace

    def _interrupted(
        self, interruptions: Sequence[Interruption], stage: str
    ) -> Steps[tuple[Trace | None, int]]:
        """Train through interruptions; return the trace that they leave, and how many came."""
        try:
            other = yield from self._train(interruptions)
        except FailedError as e:
            cause = Inquiry.of_failure(str(e))
            finding = Finding(stage, _all_of(interruptions), 0, "", "", (), None, None)
            return Trace(finding, lambda _inquiry: cause), 0
        suffered = read_lives(other.folder) - 1
        return self._trace(other, stage, interruptions), suffered

    def _train(self, interruptions: Sequence[Interruption] = (), **how: Any) -> Steps[Training]:
        self.verdict.trainings += 1
        return self._lab.steps(interruptions, **how)

    def _trace(
        self, other: Training, stage: str, interruptions: Sequence[Interruption]
    ) -> Trace | None:
        finding = self._compare(other, stage, interruptions)
        if finding is None:
            self._lab.discard(other)
            return None
        if stage == REPETITION:
            return Trace(finding, lambda inquiry: inquiry.of_repetition(self._whole, other))
        return Trace(finding, lambda inquiry: inquiry.of_resume(self._whole, other, interruptions))

    def _compare(
        self, other: Training, stage: str, interruptions: Sequence[Interruption]
    ) -> Finding | None:
        found = list(differences(self._whole.result, other.result))
        if not found:
            return None
        batch = first_difference(self._whole.records, other.records)
        return Finding(
            stage=stage,
            interruption=_all_of(interruptions),
            places=len(found),
            first=str(found[0]).removeprefix("/content/"),
            batch=str(batch[0].place) if batch else "",
            losses=tuple(v for record in batch or () for v in record.values[:1]),
            at_resume=_is_at_resume(other, batch[1].place.key) if batch else None,
            row=first_row(self._whole.result["scalars"], other.result["scalars"]),
        )


def _numbered(work: tuple[int, Steps[T]]) -> Steps[tuple[int, T]]:
    return work[0], (yield from work[1])


def _all_of(interruptions: Sequence[Interruption]) -> str:
    return ", ".join(map(str, interruptions))


def _is_at_resume(training: Training, key: tuple[int, bool, int]) -> bool | None:
    """Return whether a batch is the first of the last process; None where there was one only."""
    last = max((record.life for record in training.records.values()), default=1)
    if last == 1:
        return None
    first = next(k for k, record in training.records.items() if record.life == last)
    return bool(first == key)
