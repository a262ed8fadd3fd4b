"""Records every tensor operation: digests of its inputs and outputs, and the line of user code."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mtf.core.vocabulary import json_text
from mtf.trainer.loop.phases import Phase
from mtf.trainer.verify.batch_records import LOADS, digest
from mtf.trainer.verify.user_code import source_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from mtf.trainer.verify.batch_records import BatchPosition
    from mtf.trainer.verify.user_code import UserCode

OPS = "ops.jsonl"
_UNINITIALISED = ("empty", "new_empty", "resize")  # their outputs are uninitialised memory
_MAX_DEPTH = 40  # frames to search for user code
_STEP_PARTS = {
    Phase.TRAIN_BATCH_BACKWARD: " in the backward pass",
    Phase.TRAIN_BATCH_OPTIM_STEP: " in the optimizer step",
}


@dataclass(frozen=True)
class Op:
    """One tensor operation; inputs, rng and output are digests."""

    place: str  # batch and phase
    process: int  # number of the process among those of its training
    name: str
    inputs: str  # tensors that are only read
    numbers: str  # all other arguments, as text
    rng: str  # the generator that it draws from, empty if it draws from none
    output: str
    code: str  # file:line of the user's code, empty if none is on the stack
    text: str  # that line

    @property
    def where(self) -> str:
        """Return the line of code, or the part of a step, as the end of a sentence."""
        if self.code:
            return f" at {self.code}: `{self.text}`"
        return _STEP_PARTS.get(Phase(self.place.rpartition(".")[2]), "")


class OpRecorder(TorchDispatchMode):
    """Records each tensor operation of this process while it is entered."""

    def __init__(
        self,
        folder: Path,
        user_code: UserCode,
        position: BatchPosition,
        phase: Phase,
        process: int,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._user_code = user_code
        self._place = ".".join(map(str, (*position.key, phase)))
        self._process = process
        # a loader that is opened in the middle of an epoch does more than one that is open
        self._only_user_code = phase in LOADS
        self._path = folder / OPS
        self._lines: list[str] = []
        self._pid = os.getpid()

    def __exit__(self, *args: Any) -> None:
        """Write the recorded operations to the file."""
        super().__exit__(*args)  # type: ignore[no-untyped-call]
        if os.getpid() == self._pid:  # a forked data worker must not write them again
            with self._path.open("a") as file:
                file.writelines(self._lines)

    def __torch_dispatch__(
        self, func: Any, _types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Call an operation and record it."""
        kwargs = kwargs or {}
        name = str(func)
        read, numbers = _inputs(func, args, kwargs)
        rng = _generator(func, args, kwargs)
        output = func(*args, **kwargs)
        results = [leaf for leaf in tree_leaves([output, _written(func, args)]) if _is_value(leaf)]
        if results and not any(part in name for part in _UNINITIALISED):
            self._write(name, read, numbers, rng, digest(results))
        return output

    def _write(self, name: str, read: str, numbers: str, rng: str, output: str) -> None:
        file, line = self._user_line()
        if self._only_user_code and not file:
            return
        code = f"{self._user_code.relative_path(file)}:{line}" if file else ""
        text = source_line(file, line)
        op = Op(self._place, self._process, name, read, numbers, rng, output, code, text)
        self._lines.append(json_text.dumps(vars(op)) + "\n")

    def _user_line(self) -> tuple[str, int]:
        frame = sys._getframe(3)  # noqa: SLF001 -- inspect.stack() reads every source file
        for _ in range(_MAX_DEPTH):
            if self._user_code.has_file(frame.f_code.co_filename):
                return frame.f_code.co_filename, frame.f_lineno
            # frames above mtf's own are the entry point, which leads to everything
            if frame.f_back is None or frame.f_globals.get("__name__", "").startswith("mtf."):
                break
            frame = frame.f_back
        return "", 0


def read_ops(folder: Path) -> dict[str, list[Op]]:
    """Return a training's operations by place; of a replayed batch, those of the last process."""
    found: dict[str, list[Op]] = {}
    path = folder / OPS
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.endswith("}"):
            op = Op(**json_text.loads(line))
            at_place = found.setdefault(op.place, [])
            if at_place and at_place[-1].process != op.process:
                at_place.clear()
            at_place.append(op)
    return found


def first_different_op(
    left: Mapping[str, list[Op]], right: Mapping[str, list[Op]]
) -> tuple[Op, Op] | None:
    """Return the first pair of operations that differ in name or output, if any."""
    for place, ours in left.items():
        for a, b in zip(ours, right.get(place, ()), strict=False):
            if (a.name, a.output) != (b.name, b.output):
                return a, b
    return None


def _inputs(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, str]:
    """Return a digest of the tensors that are only read, and all other arguments as text."""
    schema = func._schema.arguments  # noqa: SLF001 -- torch documents it for dispatch modes
    written = {a.name for a in schema if a.alias_info is not None and a.alias_info.is_write}
    named = [*zip([a.name for a in schema], args, strict=False), *kwargs.items()]
    read = [leaf for name, value in named if name not in written for leaf in tree_leaves(value)]
    tensors = [leaf for leaf in read if torch.is_tensor(leaf)]
    others = [leaf for leaf in read if _is_value(leaf) and not torch.is_tensor(leaf)]
    return digest(tensors), ", ".join(map(repr, others))


def _is_value(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor | bool | int | float | complex | str)


def _written(func: Any, args: Sequence[Any]) -> list[Any]:
    schema = func._schema.arguments  # noqa: SLF001 -- as above
    return [
        value
        for argument, value in zip(schema, args, strict=False)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def _generator(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    if torch.Tag.nondeterministic_seeded not in func.tags:
        return ""
    given = [v for v in tree_leaves([args, kwargs]) if isinstance(v, torch.Generator)]
    if given:
        return digest(given[0].get_state())
    state = [torch.get_rng_state()]
    if torch.cuda.is_available():
        state += torch.cuda.get_rng_state_all()
    return digest(state)
