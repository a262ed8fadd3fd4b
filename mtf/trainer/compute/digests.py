"""Digests of tensors and containers, so that ranks save only what the first rank does not have."""

from __future__ import annotations

import copy
import hashlib
from typing import TYPE_CHECKING, Any

import torch

from mtf.trainer.compute.tensor_bits import as_bytes, kind_of, strided_parts

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SAME = ("as the first rank",)  # stands for an equal value; part of the checkpoint format

Path = tuple[Any, ...]  # of keys and indices


def digest_of(tensor: torch.Tensor) -> str:
    """Return a digest of a tensor's bits."""
    out = hashlib.sha256()
    for part in strided_parts(tensor):
        out.update(as_bytes(part).cpu().numpy().tobytes())
    return out.hexdigest()


def leaf_digests(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Yield the path and the digest of each leaf of nested containers."""
    parts = _parts(value)
    if parts is None:
        yield path, _digest(value)
        return
    for key, part in parts:
        yield from leaf_digests(part, (*path, key))


def without_common(value: Any, first_digests: Mapping[Path, str], path: Path = ()) -> Any:
    """Return nested containers without the leaves that equal the first rank's, on the CPU.

    Args:
        value: this rank's containers.
        first_digests: the digests of the first rank's leaves.
        path: place of ``value`` in the whole.
    """
    parts = _parts(value)
    if parts is None:
        if first_digests.get(path) == _digest(value):
            return _SAME
        return value.detach().cpu() if isinstance(value, torch.Tensor) else value
    shares = {key: without_common(part, first_digests, (*path, key)) for key, part in parts}
    return _with(value, shares)


def with_common(share: Any, first: Any) -> Any:
    """Undo ``without_common``: put back the leaves that equal those of ``first``."""
    if share == _SAME:
        return first
    parts = _parts(share)
    if parts is None:
        return share
    first_parts = dict(_parts(first) or ())
    return _with(share, {key: with_common(part, first_parts.get(key)) for key, part in parts})


def _parts(value: Any) -> list[tuple[Any, Any]] | None:
    """Return a container's parts by key or index, None for any other value."""
    if isinstance(value, dict):
        return list(value.items())
    return list(enumerate(value)) if type(value) in (list, tuple) else None


def _with(container: Any, parts: Mapping[Any, Any]) -> Any:
    if not isinstance(container, dict):
        return type(container)(parts.values())
    other = copy.copy(container)  # keeps the attributes of a state_dict: its modules' versions
    other.update(parts)
    return other


def _digest(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{kind_of(value)} {digest_of(value)}"
    return f"{type(value).__name__} {value!r}"
