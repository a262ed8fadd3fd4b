"""Diagnoses why two trainings differ, and names a cure, from what the probes recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mtf.trainer.verify.hidden_state import (
    ABSENT,
    GENERATOR,
    METRIC,
    OPTIMIZER,
    REQUIRES_GRAD,
    WEIGHTS,
)
from mtf.trainer.verify.random_sources import CLOCK, UNSEEDED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.trainer.verify.batch_records import BatchRecord
    from mtf.trainer.verify.random_sources import Source
    from mtf.trainer.verify.tensor_ops import Op

_MOST_NAMES = 5  # in one sentence


@dataclass(frozen=True)
class Evidence:
    """What the probes recorded of two trainings that should be equal."""

    batches: tuple[BatchRecord, BatchRecord] | None = None  # the first batch that differs
    op: tuple[Op, Op] | None = None  # the first operation that differs
    sources: tuple[Source, ...] = ()  # user code that reads the clock or an unseeded generator
    hidden: Mapping[str, tuple[str, str]] = field(
        default_factory=dict
    )  # unsaved state that differs

    @property
    def batch_differs(self) -> bool:
        """Return True if the batch itself differs, before anything is computed from it."""
        return self.batches is not None and self.batches[0].inputs != self.batches[1].inputs

    @property
    def shows_difference(self) -> bool:
        """Return True if the trainings differ in what was probed."""
        return self.op is not None or bool(self.hidden) or self.batch_differs

    @property
    def is_kernel(self) -> bool:
        """Return True if an operation gave different outputs for equal inputs."""
        if self.op is None:
            return False
        a, b = self.op
        return (a.name, a.inputs, a.numbers, a.rng) == (b.name, b.inputs, b.numbers, b.rng)


@dataclass(frozen=True)
class Diagnosis:
    """Why an interrupted training differs from an uninterrupted one, and what to do."""

    kind: str
    text: str
    cure: str


_USE_GLOBAL_GENERATORS = (
    "draw from random, numpy.random or torch's global functions instead: mtf seeds them for every"
    " batch, in every worker"
)
_SAVE_STATE = (
    "save it in the checkpoint (register_buffer or get_extra_state and set_extra_state in a model,"
    " state_dict in a callback), set it again in the on_resume(training) of a callback, or compute"
    " it from the arguments; a data set computes each sample from its index, and from the epoch"
    " that mtf passes to its set_epoch(epoch)"
)
_USE_DETERMINISTIC = (
    "call torch.use_deterministic_algorithms(True) where the model is built (slower), or use"
    " another operation: https://docs.pytorch.org/docs/stable/notes/randomness.html"
)
# kinds of state in objects of torch and torchmetrics: what is wrong, and the cure
_OBJECTS = {
    OPTIMIZER: (
        "an optimizer or scheduler that the trainer does not know is not in the checkpoint",
        "return it from the model's configure_optimizers(config): the trainer then steps and saves"
        " it; or save its state_dict() in the get_extra_state of the model",
    ),
    METRIC: (
        "the state of a torchmetrics object outside of the model is not in the checkpoint",
        "assign the object to an attribute of the model (self.f1 = ...): mtf then saves, computes"
        " and resets it",
    ),
    WEIGHTS: (
        "a module that the model does not register is not in the checkpoint",
        "assign it to an attribute of the model, or put it in an nn.ModuleList or nn.ModuleDict in"
        " place of a list or dict",
    ),
    REQUIRES_GRAD: (
        "parameters are frozen or unfrozen where the resume does not do it",
        "set requires_grad where a resume comes too: in a callback's on_resume(training)",
    ),
}
HASH_ORDER = Diagnosis(
    "hash-order",
    "the training depends on hash() or on the order of a set of strings, which is different in"
    " each process: with PYTHONHASHSEED=0 the training repeats",
    "sort the set: sorted(names) instead of set(names)",
)
DATA_WORKERS = Diagnosis(
    "data-workers",
    "a batch depends on the data worker that makes it: without workers (num_workers: 0) there is no"
    " difference",
    "compute each sample from its index alone, not from the worker's id or from earlier samples",
)
CUSTOM_LOOP = Diagnosis(
    "own-loop",
    "the custom training loop does not restore all of its state after an interruption",
    "save in run.checkpoint, and restore after run.resume: weights, optimizer, scheduler, the"
    " states of all random generators, the position in the data; or let run.trainer(...) do it",
)


def resume_fails(message: str) -> Diagnosis:
    """Return the diagnosis of an interrupted training that cannot resume at all."""
    return Diagnosis(
        "resume-fails",
        message,
        "read the full output; a custom state_dict may return only tensors, numbers, strings, and"
        " containers of these",
    )


def why_not_repeatable(seen: Evidence) -> Diagnosis:
    """Diagnose two uninterrupted trainings that differ."""
    clock = _source(seen, CLOCK)
    unseeded = _source(seen, UNSEEDED)
    generators = [name for name, values in seen.hidden.items() if values[1].startswith(GENERATOR)]
    if seen.is_kernel:
        return _kernel(seen)
    if clock is not None and (unseeded is None or _is_at(seen, clock)):
        return _reads_clock(clock)
    if unseeded is not None:
        text = f"{unseeded} has no seed: `{unseeded.text}`"
        return Diagnosis("unseeded-generator", text, _USE_GLOBAL_GENERATORS)
    if generators:
        text = f"a random generator starts with another seed in each process: {_listed(generators)}"
        return Diagnosis("unseeded-generator", text, _USE_GLOBAL_GENERATORS)
    return _unknown(seen, "each training computes different numbers")


def why_not_resumable(seen: Evidence) -> Diagnosis:
    """Diagnose an interrupted training that differs although uninterrupted ones are equal."""
    clock = _source(seen, CLOCK)
    if clock is not None and (not seen.hidden or _is_at(seen, clock)):
        return _reads_clock(clock)
    if seen.hidden:
        return _outside_checkpoint(seen)
    if seen.is_kernel:
        return _kernel(seen)
    return _unknown(seen, "the resumed training continues differently")


def between_processes(seen: Evidence) -> Diagnosis:
    """Diagnose trainings that differ in two interpreters, but not in two forks of one."""
    if seen.sources:
        return why_not_repeatable(seen)
    text = "two interpreters compute different results, two forks of one interpreter do not"
    return Diagnosis("per-process", text, "look for values computed when a module is imported")


def confirmed(diagnosis: Diagnosis) -> Diagnosis:
    """Return a diagnosis, confirmed by torch's deterministic kernels making trainings equal."""
    is_kernel = diagnosis.kind == "nondeterministic-kernel"
    text = diagnosis.text if is_kernel else "an operation of torch is not deterministic"
    text += "; with torch.use_deterministic_algorithms(True) the training repeats"
    return Diagnosis("nondeterministic-kernel", text, _USE_DETERMINISTIC)


def kernel_named_by_torch(message: str) -> Diagnosis:
    """Return the diagnosis from torch's error on an operation without a deterministic form."""
    first = message.strip().splitlines()[0] if message.strip() else "an operation"
    return Diagnosis("nondeterministic-kernel", first[:300], _USE_DETERMINISTIC)


def _kernel(seen: Evidence) -> Diagnosis:
    assert seen.op is not None
    op = seen.op[0]
    text = f"{op.name} gives different bits for equal inputs{op.where}"
    return Diagnosis("nondeterministic-kernel", text, _USE_DETERMINISTIC)


def _reads_clock(source: Source) -> Diagnosis:
    text = f"the training reads the clock: {source}: `{source.text}`"
    return Diagnosis("reads-clock", text, "count steps or epochs instead of seconds")


def _outside_checkpoint(seen: Evidence) -> Diagnosis:
    names = _relevant(seen)
    values = [f"{name} ({_both(*seen.hidden[name])})" for name in names]
    if any(seen.hidden[name][0].startswith(GENERATOR) for name in names):
        text = f"a random generator is not in the checkpoint: {_listed(values)}"
        return Diagnosis("generator-outside", text, _USE_GLOBAL_GENERATORS)
    for kind, (what, cure) in _OBJECTS.items():
        if of_kind := [n for n in names if _is_of(kind, n, seen.hidden[n])]:
            listed = _listed([f"{name} ({_both(*seen.hidden[name])})" for name in of_kind])
            return Diagnosis(f"{kind.replace('_', '-')}-outside", f"{what}: {listed}", cure)
    text = f"state outside the checkpoint: {_listed(values)}"
    if seen.op is not None and seen.op[0].code:
        text += f". It is used{seen.op[0].where}"
    return Diagnosis("state-outside", text, _SAVE_STATE)


def _both(whole: str, resumed: str) -> str:
    if whole.startswith(GENERATOR) and resumed.startswith(GENERATOR):
        return "at another place in its sequence after the resume"
    if any(whole.startswith(f"{kind} ") for kind in _OBJECTS):
        return "missing after the resume" if resumed == ABSENT else "in another state after it"
    return f"{whole} without the interruption, {resumed} after it"


def _is_of(kind: str, name: str, values: tuple[str, str]) -> bool:
    if kind == REQUIRES_GRAD:
        return name.endswith(f".{REQUIRES_GRAD}")
    return any(value.startswith(f"{kind} ") for value in values)


def _relevant(seen: Evidence) -> list[str]:
    """Return the names of unsaved state, only those on the differing line of code if any are."""
    names = list(seen.hidden)
    if seen.op is not None:
        text = seen.op[0].text
        on_line = [name for name in names if name.split(" (")[0].rpartition(".")[2] in text]
        names = on_line or names
    if seen.batch_differs:  # then a generator is the likely cause
        names.sort(key=lambda name: not seen.hidden[name][0].startswith(GENERATOR))
    return names


def _unknown(seen: Evidence, what: str) -> Diagnosis:
    where = ""
    if seen.batch_differs:
        where = ", first in the data of a batch"
    elif seen.op is not None:
        a, b = seen.op
        where = f", first in {a.name}{a.where}"
        if a.numbers != b.numbers:
            where += f", which gets {a.numbers[:60]} and then {b.numbers[:60]}"
        elif a.rng != b.rng:
            where += ", whose generator is in a different state"
    cure = "run mtf verify-resume again with --keep, and compare the two folders"
    return Diagnosis("unknown", what + where, cure)


def _source(seen: Evidence, kind: str) -> Source | None:
    """Return the source of a kind: the one on the differing line of code, else the first."""
    found = [source for source in seen.sources if source.kind == kind]
    return next((s for s in found if _is_at(seen, s)), found[0] if found else None)


def _is_at(seen: Evidence, source: Source) -> bool:
    return seen.op is not None and seen.op[0].code == f"{source.file}:{source.line}"


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
