"""Notes, in a training's own process, what it has computed from which batch."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from mtf.trainer.compute.step import StepEngine
from mtf.trainer.loop.loop import HANDLERS, Loop
from mtf.trainer.loop.phases import Phase

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from mtf.trainer.data.batches import Batches

_PLAIN = (bool, int, float, complex, str, bytes, np.generic, type(None))
RECORDS = "records.jsonl"
_FORWARD = {Phase.TRAIN_BATCH_FORWARD: "training", Phase.VAL_BATCH_FORWARD: "validation"}
LOADS = frozenset({Phase.TRAIN_BATCH_LOAD, Phase.VAL_BATCH_LOAD})
_COMPUTING = LOADS | {*_FORWARD, Phase.TRAIN_BATCH_BACKWARD, Phase.TRAIN_BATCH_OPTIM_STEP}


@dataclass(frozen=True)
class Place:
    """A batch of a training, and the optimizer steps that were done before it."""

    kind: str  # training or validation
    epoch: int
    batch: int
    step: int

    @property
    def key(self) -> tuple[int, bool, int]:
        """Return what tells batches apart, in their order."""
        return self.epoch, self.kind == "validation", self.batch

    def __str__(self) -> str:
        """Return the place in words."""
        return f"{self.kind} batch {self.batch} of epoch {self.epoch} (optimizer step {self.step})"


@dataclass(frozen=True)
class Record:
    """What one batch was, and what it came to. ``life`` counts the processes of a training."""

    place: Place
    life: int
    inputs: str
    values: tuple[float, ...]
    loss: str  # the values' bits


@dataclass
class Recorder:
    """Watches a training from outside: each batch, each result, and how often each phase comes."""

    folder: Path
    life: int
    hook: Callable[[Loop, Phase], AbstractContextManager[Any]] | None = None

    def __post_init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._inputs: list[str] = []
        self._values: list[torch.Tensor] = []

    def install(self) -> None:
        """Put itself around the handlers and between loop and engine."""
        for phase, handler in list(HANDLERS.items()):
            HANDLERS[phase] = self._around(phase, handler)
        placed, compute = StepEngine.placed, StepEngine.compute

        def seen_batch(engine: StepEngine, batch: Any) -> Any:
            self._inputs.append(digest(batch))
            return placed(engine, batch)

        def seen_values(engine: StepEngine, function: Callable[[Any], Any], batch: Any) -> Any:
            found = compute(engine, function, batch)
            self._values += [leaf for leaf in tree_leaves(found) if torch.is_tensor(leaf)]
            return found

        StepEngine.placed = seen_batch  # type: ignore[assignment,method-assign]
        StepEngine.compute = seen_values  # type: ignore[assignment,method-assign]

    def _around(self, phase: Phase, handler: Callable[[Loop], Phase]) -> Callable[[Loop], Phase]:
        def watched(loop: Loop) -> Phase:
            self.counts[phase] = self.counts.get(phase, 0) + 1
            if phase in LOADS:
                self._inputs = []
            self._values = []
            place = place_of(loop, phase)
            with ExitStack() as stack:
                if self.hook is not None and phase in _COMPUTING:
                    stack.enter_context(self.hook(loop, phase))
                following = handler(loop)
            if phase in _FORWARD:
                self._write(place)
            return following

        return watched

    def _write(self, place: Place) -> None:
        record = {
            **vars(place),
            "life": self.life,
            "inputs": digest(self._inputs),
            "values": [float(v.item()) for v in self._values if v.numel() == 1],
            "loss": digest(self._values),
        }
        with (self.folder / RECORDS).open("a") as file:
            file.write(json.dumps(record) + "\n")


def read_records(folder: Path) -> dict[tuple[int, bool, int], Record]:
    """Return a training's records by place, in order; the last life's where it was replayed."""
    found = {}
    for line in _lines(folder / RECORDS):
        value = json.loads(line)
        place = Place(value["kind"], value["epoch"], value["batch"], value["step"])
        found[place.key] = Record(
            place, value["life"], value["inputs"], tuple(value["values"]), value["loss"]
        )
    return dict(sorted(found.items()))


def first_difference(
    left: Mapping[Any, Record], right: Mapping[Any, Record]
) -> tuple[Record, Record] | None:
    """Return the first batch that two trainings do not agree on, as each has it."""
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
            out.update(f"{leaf.dtype}{tuple(leaf.shape)}".encode())
            out.update(_bits(leaf))
        elif isinstance(leaf, np.ndarray):
            out.update(leaf.tobytes())
        else:  # the text of other objects often holds their address
            out.update((repr(leaf) if isinstance(leaf, _PLAIN) else type(leaf).__name__).encode())
    return out.hexdigest()


def shorten(batches: int | None, val_batches: int | None) -> None:
    """Make this process's trainings have no more batches in an epoch than said."""
    original = Loop.__post_init__

    def shortened(loop: Loop) -> None:
        if batches is not None:
            loop.train = First(loop.train, batches)
        if val_batches is not None and loop.validation is not None:
            loop.validation = First(loop.validation, val_batches)
        original(loop)

    Loop.__post_init__ = shortened  # type: ignore[assignment,method-assign]


class First:
    """The first batches of each epoch."""

    def __init__(self, batches: Batches, most: int) -> None:
        self._whole = batches
        self._most = most

    def __getattr__(self, name: str) -> Any:
        """Return what else the whole has."""
        return getattr(self._whole, name)

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return min(self._most, len(self._whole))

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield the batches of an epoch from number ``start`` on."""
        return islice(self._whole.batches(epoch, start), len(self) - start)


def place_of(loop: Loop, phase: Phase) -> Place:
    """Return the batch that a phase is about."""
    state = loop.state
    validates = phase.startswith("VAL")
    batch = state.val.batch if validates else state.train.batch
    kind = "validation" if validates else "training"
    return Place(kind, state.epoch, batch, state.global_step)


def _bits(tensor: torch.Tensor) -> bytes:
    dense = tensor.detach().cpu()
    dense = dense.to_dense() if dense.layout is not torch.strided else dense
    return dense.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _lines(path: Path) -> Iterable[str]:
    if not path.exists():
        return []
    return [line for line in path.read_text().splitlines() if line.endswith("}")]
