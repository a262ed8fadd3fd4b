"""From what was seen of two trainings that differ to the likely cause and its cure: pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mtf.trainer.verify.hidden_state import GENERATOR
from mtf.trainer.verify.random_sources import CLOCK, UNSEEDED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.trainer.verify.ops import Op
    from mtf.trainer.verify.random_sources import Source
    from mtf.trainer.verify.recorder import Record

_MOST = 5  # names in one sentence


@dataclass(frozen=True)
class Evidence:
    """What two trainings that should be equal showed under the probes."""

    first: tuple[Record, Record] | None = None  # the first batch that differs
    op: tuple[Op, Op] | None = None  # the first operation that differs
    sources: tuple[Source, ...] = ()  # what the user's code reads that nobody repeats
    hidden: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # unsaved, and unequal

    @property
    def batch_differs(self) -> bool:
        """Return whether the data differ, before anything is computed from them."""
        return self.first is not None and self.first[0].inputs != self.first[1].inputs

    @property
    def says_something(self) -> bool:
        """Return whether the trainings differ where they were looked into."""
        return self.op is not None or bool(self.hidden) or self.batch_differs

    @property
    def is_kernel(self) -> bool:
        """Return whether an operation made something else of the same."""
        if self.op is None:
            return False
        a, b = self.op
        return (a.name, a.inputs, a.numbers, a.rng) == (b.name, b.inputs, b.numbers, b.rng)


@dataclass(frozen=True)
class Diagnosis:
    """Why an interrupted training does not equal an uninterrupted one, and what to do."""

    kind: str
    text: str
    cure: str


_SEEDED = (
    "draw from random, numpy.random or torch's own functions instead: mtf seeds these for every"
    " batch, in every worker"
)
_OWN_STATE = (
    "put it into the checkpoint (register_buffer in a model, or get_extra_state and"
    " set_extra_state; state_dict in a callback), or make it a function of what is passed in"
)


def why_not_repeatable(seen: Evidence) -> Diagnosis:
    """Return why two trainings that nobody interrupted differ."""
    clock = _source(seen, CLOCK)
    unseeded = _source(seen, UNSEEDED)
    generators = [name for name, values in seen.hidden.items() if values[1].startswith(GENERATOR)]
    if seen.is_kernel:
        return _kernel(seen)
    if clock is not None and (unseeded is None or _is_at(seen, clock)):
        return _reads_clock(clock)
    if unseeded is not None:
        return Diagnosis(
            "unseeded-generator", f"{unseeded} has no seed: `{unseeded.text}`", _SEEDED
        )
    if generators:
        text = f"{_some(generators)}: a generator of its own that starts anew in each process"
        return Diagnosis("unseeded-generator", text, _SEEDED)
    return _unknown(seen, "each training makes other numbers")


def confirmed(cause: Diagnosis) -> Diagnosis:
    """Return the cause where torch's deterministic kernels make all trainings equal."""
    text = cause.text if cause.kind == "nondeterministic-kernel" else "a kernel of torch"
    text += "; with torch.use_deterministic_algorithms(True) the training repeats"
    return Diagnosis("nondeterministic-kernel", text, _DETERMINISTIC)


def why_not_resumable(seen: Evidence) -> Diagnosis:
    """Return why an interrupted training differs where uninterrupted ones are equal."""
    clock = _source(seen, CLOCK)
    if clock is not None and (not seen.hidden or _is_at(seen, clock)):
        return _reads_clock(clock)
    if seen.hidden:
        return _outside(seen)
    if seen.is_kernel:
        return _kernel(seen)
    return _unknown(seen, "the resumed training goes on otherwise")


def kernel_named(message: str) -> Diagnosis:
    """Return the cause where torch itself names the operation that has no deterministic form."""
    first = message.strip().splitlines()[0] if message.strip() else "an operation"
    return Diagnosis("nondeterministic-kernel", first[:300], _DETERMINISTIC)


_DETERMINISTIC = (
    "call torch.use_deterministic_algorithms(True) where the model is made (slower), or use"
    " another operation: https://docs.pytorch.org/docs/stable/notes/randomness.html"
)
HASH_ORDER = Diagnosis(
    "hash-order",
    "the training depends on the order of a set of texts (or on hash()), which is another one in"
    " each process: with PYTHONHASHSEED=0 it repeats",
    "sort it: sorted(names) in place of set(names)",
)
WORKERS = Diagnosis(
    "data-workers",
    "it depends on the worker process that makes a batch: without workers (num_workers: 0) there"
    " is no difference",
    "derive samples from their index alone, not from the worker's id or from what a worker has"
    " made before",
)


OWN_LOOP = Diagnosis(
    "own-loop",
    "the loop, one of its own, does not go on from all that it draws from",
    "save in run.checkpoint, and put back after run.resume: weights, optimizer, scheduler, the"
    " states of all generators, the place in the data; or let run.trainer(...) do it",
)


def between_processes(seen: Evidence) -> Diagnosis:
    """Return the cause where trainings differ between interpreters, and not within one."""
    if seen.sources:
        return why_not_repeatable(seen)
    text = "two interpreters come to other results, two forks of one do not"
    return Diagnosis("per-process", text, "look for what is computed when a module is imported")


def _kernel(seen: Evidence) -> Diagnosis:
    assert seen.op is not None
    op = seen.op[0]
    text = f"{op.name} makes other bits of the same tensors{op.where}"
    return Diagnosis("nondeterministic-kernel", text, _DETERMINISTIC)


def _reads_clock(source: Source) -> Diagnosis:
    text = f"the training reads the clock: {source}: `{source.text}`"
    return Diagnosis("reads-clock", text, "count steps (or epochs) instead of seconds")


def _outside(seen: Evidence) -> Diagnosis:
    names = _ranked(seen)
    values = [f"{name} ({_both(*seen.hidden[name])})" for name in names]
    generator = any(seen.hidden[name][0].startswith(GENERATOR) for name in names)
    if generator:
        text = f"a generator that advances and is in no checkpoint: {_some(values)}"
        return Diagnosis("generator-outside", text, _SEEDED)
    text = f"state outside the checkpoint: {_some(values)}"
    if seen.op is not None and seen.op[0].code:
        text += f". It shows{seen.op[0].where}"
    return Diagnosis("state-outside", text, _OWN_STATE)


def _both(whole: str, resumed: str) -> str:
    if whole.startswith(GENERATOR) and resumed.startswith(GENERATOR):
        return "elsewhere in its sequence after the resume"
    return f"{whole} without the interruption, {resumed} after it"


def _ranked(seen: Evidence) -> list[str]:
    """Return the names of unsaved state; those alone that the differing line of code is about."""
    names = list(seen.hidden)
    if seen.op is not None:
        said = [name for name in names if name.split(" (")[0].rpartition(".")[2] in seen.op[0].text]
        names = said or names
    if seen.batch_differs:
        names.sort(key=lambda name: not seen.hidden[name][0].startswith(GENERATOR))
    return names


def _unknown(seen: Evidence, what: str) -> Diagnosis:
    where = ""
    if seen.batch_differs:
        where = ", in the data, before anything is computed"
    elif seen.op is not None:
        a, b = seen.op
        where = f", first in {a.name}{a.where}"
        if a.numbers != b.numbers:
            where += f", which gets {a.numbers[:60]} and then {b.numbers[:60]}"
        elif a.rng != b.rng:
            where += ", whose generator is in another state"
    return Diagnosis(
        "unknown", what + where, "run it again with --keep and compare the two folders"
    )


def _source(seen: Evidence, kind: str) -> Source | None:
    """Return the source of a kind: the one on the differing line of code, else the first."""
    found = [source for source in seen.sources if source.kind == kind]
    return next((s for s in found if _is_at(seen, s)), found[0] if found else None)


def _is_at(seen: Evidence, source: Source) -> bool:
    return seen.op is not None and seen.op[0].code == f"{source.file}:{source.line}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _MOST} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more
