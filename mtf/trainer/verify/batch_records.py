"""Records, inside a training process, the inputs and results of each batch."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from mtf.core.vocabulary import json_text
from mtf.trainer.compute.step import StepEngine
from mtf.trainer.compute.tensor_bits import as_bytes, kind_of, strided_parts
from mtf.trainer.data.epochs import num_batches_in
from mtf.trainer.data.sample_counts import known_samples
from mtf.trainer.loop.loop import HANDLERS, Loop
from mtf.trainer.loop.phases import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from mtf.trainer.data.batches import Batches
    from mtf.trainer.loop.state import ResumeState

    Probe = Callable[[Loop, "BatchPosition", Phase], AbstractContextManager[Any]]

_PLAIN = (bool, int, float, complex, str, bytes, np.generic, type(None))
RECORDS = "records.jsonl"
_FORWARD = {Phase.TRAIN_BATCH_FORWARD: "training", Phase.VAL_BATCH_FORWARD: "validation"}
LOADS = frozenset({Phase.TRAIN_BATCH_LOAD, Phase.VAL_BATCH_LOAD})
_COMPUTING = LOADS | {*_FORWARD, Phase.TRAIN_BATCH_BACKWARD, Phase.TRAIN_BATCH_OPTIM_STEP}


@dataclass(frozen=True)
class BatchPosition:
    """A batch of a training, and the number of optimizer steps before it."""

    kind: str  # training or validation
    epoch: int
    batch: int
    step: int

    @property
    def key(self) -> tuple[int, bool, int]:
        """Return a key that identifies the batch and sorts batches in their order."""
        return self.epoch, self.kind == "validation", self.batch

    def __str__(self) -> str:
        """Return the position in words."""
        return f"{self.kind} batch {self.batch} of epoch {self.epoch} (optimizer step {self.step})"


@dataclass(frozen=True)
class BatchRecord:
    """The inputs of one batch, as a digest, and the values computed from it."""

    position: BatchPosition
    process: int  # number of the process among those of its training
    inputs: str
    values: tuple[float, ...]
    loss: str  # digest of the bits of the values


@dataclass
class BatchRecorder:
    """Records each batch and counts how often each phase occurs, by wrapping loop and engine."""

    folder: Path
    process: int
    probe: Probe | None = None

    def __post_init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._inputs: list[str] = []
        self._values: list[torch.Tensor] = []

    def install(self) -> None:
        """Wrap the handlers of all phases, and the engine's methods."""
        for phase, handler in list(HANDLERS.items()):
            HANDLERS[phase] = self._wrapped(phase, handler)
        placed, compute = StepEngine.placed, StepEngine.compute

        def recording_placed(engine: StepEngine, batch: Any) -> Any:
            self._inputs.append(digest(batch))
            return placed(engine, batch)

        def recording_compute(
            engine: StepEngine, function: Callable[[Any], Any], batch: Any
        ) -> Any:
            result = compute(engine, function, batch)
            self._values += [leaf for leaf in tree_leaves(result) if torch.is_tensor(leaf)]
            return result

        engine_class: Any = StepEngine
        engine_class.placed, engine_class.compute = recording_placed, recording_compute

    def _wrapped(self, phase: Phase, handler: Callable[[Loop], Phase]) -> Callable[[Loop], Phase]:
        def recording(loop: Loop) -> Phase:
            self.counts[phase] = self.counts.get(phase, 0) + 1
            if phase in LOADS:
                self._inputs = []
            self._values = []
            position = position_of(loop.state, phase)
            with ExitStack() as stack:
                if self.probe is not None and phase in _COMPUTING:
                    stack.enter_context(self.probe(loop, position, phase))
                next_phase = handler(loop)
            if phase in _FORWARD:
                self._write(position)
            return next_phase

        return recording

    def _write(self, position: BatchPosition) -> None:
        record = {
            **vars(position),
            "process": self.process,
            "inputs": digest(self._inputs),
            "values": [float(v.item()) for v in self._values if v.numel() == 1],
            "loss": digest(self._values),
        }
        with (self.folder / RECORDS).open("a") as file:
            file.write(json_text.dumps(record) + "\n")


def read_records(folder: Path) -> dict[tuple[int, bool, int], BatchRecord]:
    """Return a training's records by batch, in order; of a replayed batch, the last record."""
    records = {}
    for line in _whole_lines(folder / RECORDS):
        value = json_text.loads(line)
        position = BatchPosition(value["kind"], value["epoch"], value["batch"], value["step"])
        records[position.key] = BatchRecord(
            position, value["process"], value["inputs"], tuple(value["values"]), value["loss"]
        )
    return dict(sorted(records.items()))


def first_difference(
    left: Mapping[Any, BatchRecord], right: Mapping[Any, BatchRecord]
) -> tuple[BatchRecord, BatchRecord] | None:
    """Return the two records of the first batch that differs between two trainings, if any."""
    for key in sorted(left.keys() & right.keys()):
        ours, theirs = left[key], right[key]
        if (ours.inputs, ours.loss) != (theirs.inputs, theirs.loss):
            return ours, theirs
    return None


def digest(value: Any) -> str:
    """Return a short digest of the bits of all tensors and numbers in a structure."""
    out = hashlib.blake2b(digest_size=8)
    for leaf in tree_leaves(value):
        if torch.is_tensor(leaf):
            out.update(kind_of(leaf).encode())
            for part in strided_parts(leaf):
                out.update(as_bytes(part).cpu().numpy().tobytes())
        elif isinstance(leaf, np.ndarray):
            out.update(leaf.tobytes())
        else:  # the repr of other objects often contains their address
            out.update((repr(leaf) if isinstance(leaf, _PLAIN) else type(leaf).__name__).encode())
    return out.hexdigest()


def shorten_epochs(batches: int | None, val_batches: int | None) -> None:
    """Limit the batches of each epoch in all trainings of this process."""
    original = Loop.__post_init__

    def shortened(loop: Loop) -> None:
        every_size = loop.config.training.compile
        if batches is not None:
            loop.train = ShortEpochs(loop.train, batches, every_size=every_size)
        if val_batches is not None and loop.validation is not None:
            loop.validation = ShortEpochs(loop.validation, val_batches, every_size=every_size)
        original(loop)

    loop_class: Any = Loop
    loop_class.__post_init__ = shortened


class ShortEpochs:
    """Some batches of each epoch: the first ones and, where it can be sought, the last one.

    The last batch is often smaller. A compiled model treats each size in its own way.

    Args:
        batches: those of whole epochs.
        most: number of batches in a short epoch.
        every_size: also take a batch of each other size, more than ``most`` if need be.
    """

    def __init__(self, batches: Batches, most: int, *, every_size: bool = False) -> None:
        self._whole, self._most = batches, most
        self._can_seek = hasattr(batches, "dealt")  # which data without an order lacks
        self._every_size = every_size and self._can_seek
        self._chosen: dict[int, list[int] | None] = {}  # by epoch: numbers of its batches

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of the whole."""
        return getattr(self._whole, name)

    def __len__(self) -> int:
        """Return the number of batches in the first epoch."""
        return self.num_batches(0) or min(self._most, len(self._whole))

    def num_batches(self, epoch: int) -> int | None:
        """Return the number of batches in an epoch, None if only its end tells it."""
        numbers = self._numbers(epoch)
        return None if numbers is None else len(numbers)

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield the batches of an epoch, from batch ``start`` on."""
        numbers = self._numbers(epoch)
        if numbers is None:
            yield from islice(self._whole.batches(epoch, start), self._most - start)
            return
        left = numbers[start:]
        while left:
            run = sum(1 for i, number in enumerate(left) if number == left[0] + i)
            yield from islice(self._whole.batches(epoch, left[0]), run)
            left = left[run:]

    def samples(self, epoch: int, batch: int) -> Any:
        """Return the indices of the samples of a batch, None if they are not known."""
        known = getattr(self._whole, "samples", lambda *_: None)
        return known(epoch, self._position(epoch, batch))

    def num_samples(self, epoch: int, batch: int) -> int | None:
        """Return the number of samples in a batch, None if it is not known."""
        return known_samples(self._whole, epoch, self._position(epoch, batch))

    def _position(self, epoch: int, batch: int) -> int:
        """Return the number of a batch in the whole epoch."""
        numbers = self._numbers(epoch)
        return batch if numbers is None else numbers[batch]

    def _numbers(self, epoch: int) -> list[int] | None:
        """Return the numbers of the batches in the whole epoch, in order; None: the first ones."""
        if epoch not in self._chosen:
            number = num_batches_in(self._whole, epoch)
            self._chosen = {epoch: None if number is None else self._choice(epoch, number)}
        return self._chosen[epoch]

    def _choice(self, epoch: int, number: int) -> list[int]:
        """Return the batches to take of an epoch that has so many."""
        wanted = {number - 1} if self._can_seek and self._most > 1 else set()
        if self._every_size:
            first: dict[int | None, int] = {}
            for batch in range(number):
                first.setdefault(known_samples(self._whole, epoch, batch), batch)
            wanted |= set(first.values())
        length = max(min(self._most, number), len(wanted))
        return sorted(islice(dict.fromkeys([*wanted, *range(number)]), length))


def position_of(state: ResumeState, phase: Phase) -> BatchPosition:
    """Return the position of the batch that a phase works on."""
    validates = phase.startswith("VAL")
    batch = state.val.batch if validates else state.train.batch
    kind = "validation" if validates else "training"
    return BatchPosition(kind, state.epoch, batch, state.global_step)


def _whole_lines(path: Path) -> Iterable[str]:
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines() if line.endswith("}")]
