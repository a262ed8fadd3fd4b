"""Reads the results of trainings and compares them bit by bit."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch

from mtf import rundir
from mtf.core.vocabulary import json_text
from mtf.errors import MtfError
from mtf.trainer.compute.tensor_bits import kind_of, same_bits
from mtf.trainer.storage.checkpoint_store import CheckpointStore
from mtf.trainer.storage.scalars import SCALARS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_FIRST = ("model", "gradients", "optimizer", "scheduler", "scaler")  # most telling first
_TIMESTAMPS = frozenset({"timestamp"})


@dataclass(frozen=True)
class Difference:
    """One place where two results differ, and by how much."""

    where: str  # like /content/model/layers.0.weight
    detail: str

    def __str__(self) -> str:
        """Return the place and the amount."""
        return f"{self.where}: {self.detail}"


def result(run: Path) -> dict[str, Any]:
    """Return the last checkpoint and the scalars of a finished training, without time stamps.

    Raises:
        MtfError: there is no intact checkpoint.
    """
    newest = CheckpointStore(run / rundir.CHECKPOINTS, keep_last=1).newest_intact()
    if newest is None:
        raise MtfError(f"{run}: the training saved no checkpoint, so there is nothing to compare")
    content = _read(newest.path)
    for rank in content.get("ranks", []):
        for name in _TIMESTAMPS & rank.keys():
            del rank[name]
    scalars = run / SCALARS
    return {
        "content": _ordered(content),
        "scalars": scalars.read_bytes() if scalars.exists() else b"",
    }


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # torch raises many kinds
        line = next((line for line in str(e).splitlines() if "nsupported" in line), str(e))
        reason = line.partition(" Please")[0].strip(" .")
        raise MtfError(
            f"{path}: a resume cannot read this checkpoint: {reason}. Let state_dict() return only"
            " tensors, numbers, strings, and containers of these"
        ) from e
    return content


def difference(left: Any, right: Any) -> str | None:
    """Return the first place where two results differ in their bits, or None if they are equal."""
    first = next(differences(left, right), None)
    return None if first is None else str(first)


def differences(left: Any, right: Any, where: str = "") -> Iterator[Difference]:
    """Yield each place where two results differ in their bits."""
    if type(left) is not type(right):
        yield Difference(where, f"{type(left).__name__}, then {type(right).__name__}")
    elif isinstance(left, dict):
        yield from _of_dicts(left, right, where)
    elif isinstance(left, list | tuple):
        if len(left) != len(right):
            yield Difference(where, f"{len(left)} entries, then {len(right)}")
        for i, (a, b) in enumerate(zip(left, right, strict=False)):
            yield from differences(a, b, f"{where}/{i}")
    elif (detail := _of_values(left, right)) is not None:
        yield Difference(where, detail)


def first_row(left: bytes, right: bytes) -> tuple[Any, Any] | None:
    """Return the first pair of rows in which two scalars files differ; None for a missing row."""
    for ours, theirs in zip_longest(left.splitlines(), right.splitlines()):
        if ours != theirs:
            return _row(ours), _row(theirs)
    return None


def _row(line: bytes | None) -> Any:
    return None if line is None else json_text.loads(line)


def _ordered(content: Mapping[str, Any]) -> dict[str, Any]:
    names = [name for name in _FIRST if name in content]
    return {name: content[name] for name in [*names, *(n for n in content if n not in names)]}


def _of_values(left: Any, right: Any) -> str | None:
    if isinstance(left, torch.Tensor):
        return None if same_bits(left, right) else _amount(left, right)
    if left == right or (left != left and right != right):  # noqa: PLR0124 -- NaN
        return None
    return _first_line(left, right) if isinstance(left, bytes) else f"{left!r}, then {right!r}"


def _of_dicts(left: dict[Any, Any], right: dict[Any, Any], where: str) -> Iterator[Difference]:
    for key, value in left.items():
        if key in right:
            yield from differences(value, right[key], f"{where}/{key}")
        else:
            yield Difference(f"{where}/{key}", "present, then missing")
    for key in right.keys() - left.keys():
        yield Difference(f"{where}/{key}", "missing, then present")


def _amount(left: torch.Tensor, right: torch.Tensor) -> str:
    kinds = [kind_of(left), kind_of(right)]
    if kinds[0] != kinds[1]:
        return ", then ".join(kinds)
    if left.is_nested or not left.numel() or left.dtype.is_complex:
        return "different values"
    distance = (_dense(left) - _dense(right)).abs()
    if not distance.any():
        is_strided = left.layout is torch.strided
        how = "with different bits, such as 0.0 and -0.0" if is_strided else "in another order"
        return f"equal values {how}"
    count, most = int((distance != 0).sum()), float(distance.max())
    return f"{count} of {distance.numel()} values, by {most:.3g} at most"


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_quantized:
        tensor = tensor.dequantize()
    return (tensor if tensor.layout is torch.strided else tensor.to_dense()).double()


def _first_line(left: bytes, right: bytes) -> str:
    rows = first_row(left, right)
    return "different bytes" if rows is None else ", then ".join(map(json_text.dumps, rows))
