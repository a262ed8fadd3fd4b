"""The proof: trainings compared bit by bit, whole ones first, then interrupted ones."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from mtf.errors import MtfError
from mtf.trainer.verify import places
from mtf.trainer.verify.compare import differences, first_row
from mtf.trainer.verify.inquiry import Inquiry
from mtf.trainer.verify.laboratory import FailedError
from mtf.trainer.verify.process import read_end, read_lives
from mtf.trainer.verify.recorder import first_difference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mtf.trainer.verify.diagnose import Cause
    from mtf.trainer.verify.laboratory import Laboratory, Order, Training
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


@dataclass
class Verdict:
    """What a proof has come to."""

    exact: bool = True
    trainings: int = 0
    finding: Finding | None = None
    cause: Cause | None = None
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
    if proof.repeats():
        proof.interrupt()
    return proof.verdict


class _Proof:
    """What is known so far."""

    def __init__(self, lab: Laboratory, order: Order, say: Say) -> None:
        self._lab = lab
        self._order = order
        self._say = say
        self.verdict = Verdict()
        self._suffered = 0
        started = time.monotonic()
        self._whole = self._train()
        self._phases, self._seconds, modules = read_end(self._whole.folder)
        lab.settle(time.monotonic() - started, modules)
        say("whole", number=1, seconds=self._seconds, records=len(self._whole.records))

    def repeats(self) -> bool:
        """Return whether a second training, in an interpreter of its own, equals the first."""
        again = self._train(fresh=True)
        self._say("whole", number=2, seconds=read_end(again.folder)[1])
        finding = self._compare(again, REPETITION)
        if finding is None:
            self._lab.discard(again)
            return True
        self._blame(finding, Inquiry(self._lab, self._say).of_repetition(self._whole, again))
        return False

    def interrupt(self) -> None:
        """Interrupt at each place in turn, then again and again; ask why after the first trace."""
        chosen = self._chosen()
        self._say("plan", phases={name: len(found) for name, found in chosen.items()})
        for phase, found in chosen.items():
            for interruption in found:
                self._one(phase, interruption)
        if self._phases and self._order.stops:
            self._chain()

    def _chosen(self) -> dict[str, list[Interruption]]:
        wanted = self._order.phases
        if not self._phases and not wanted:
            return {"": places.at_moments(self._seconds)}
        often = self._lab.forks and self._seconds <= _QUICK_S
        if chosen := places.interruptions(self._phases, wanted, often=often):
            return chosen
        there = ", ".join(self._phases) or "none: it is a loop of its own"
        raise MtfError(f"the training never comes to {', '.join(wanted)}. Its phases: {there}")

    def _one(self, phase: str, interruption: Interruption) -> None:
        exact = self._is_exact([interruption], INTERRUPTION)
        facts = {"kill": interruption.is_kill, "exact": exact}
        self._say("interrupted", phase=phase, where=str(interruption), **facts)

    def _chain(self) -> None:
        """Interrupt again and again; a training that is complete too soon makes way for another."""
        left, exact, trainings = places.chain(self._phases, self._order.stops), True, 0
        asked = len(left)
        while left and exact:
            self._suffered = 0
            exact = self._is_exact(left, CHAIN)
            trainings += 1
            if not self._suffered:
                break
            left = left[self._suffered :]
        self._say("chain", interruptions=asked - len(left), trainings=trainings, exact=exact)

    def _is_exact(self, interruptions: Sequence[Interruption], stage: str) -> bool:
        other = self._resumed(interruptions, stage)
        if other is None:
            return False
        self._suffered = read_lives(other.folder) - 1
        finding = self._compare(other, stage, interruptions)
        if finding is None:
            self._lab.discard(other)
            return True
        if self.verdict.exact:
            inquiry = Inquiry(self._lab, self._say)
            self._blame(finding, inquiry.of_resume(self._whole, other, interruptions))
        return False

    def _resumed(self, interruptions: Sequence[Interruption], stage: str) -> Training | None:
        try:
            return self._train(interruptions)
        except FailedError as e:
            if self.verdict.exact:
                where = ", ".join(map(str, interruptions))
                finding = Finding(stage, where, 0, "", "", (), None, None)
                self._blame(finding, Inquiry.of_failure(str(e)))
            return None

    def _train(self, interruptions: Sequence[Interruption] = (), **how: Any) -> Training:
        self.verdict.trainings += 1
        return self._lab.train(interruptions, **how)

    def _compare(
        self, other: Training, stage: str, interruptions: Sequence[Interruption] = ()
    ) -> Finding | None:
        found = list(differences(self._whole.result, other.result))
        if not found:
            return None
        batch = first_difference(self._whole.records, other.records)
        return Finding(
            stage=stage,
            interruption=", ".join(map(str, interruptions)),
            places=len(found),
            first=str(found[0]).removeprefix("/content/"),
            batch=str(batch[0].place) if batch else "",
            losses=tuple(v for record in batch or () for v in record.values[:1]),
            at_resume=_is_at_resume(other, batch[1].place.key) if batch else None,
            row=first_row(self._whole.result["scalars"], other.result["scalars"]),
        )

    def _blame(self, finding: Finding, cause: Cause) -> None:
        self.verdict.exact = False
        self.verdict.finding = finding
        self.verdict.cause = cause


def _is_at_resume(training: Training, key: tuple[int, bool, int]) -> bool | None:
    """Return whether a batch is the first of the last process; None where there was one only."""
    last = max((record.life for record in training.records.values()), default=1)
    if last == 1:
        return None
    first = next(k for k, record in training.records.items() if record.life == last)
    return bool(first == key)
