"""Writes the weights of a checkpoint as a file that other programs read: .pt or .safetensors."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import torch

from mtf import rundir
from mtf.core.vocabulary import json_text
from mtf.distribution import pip_install
from mtf.errors import MtfError
from mtf.trainer.resume.checkpoint_manager import averaged_in, read_verified, weights_in

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SAFETENSORS = ".safetensors"


def export(
    checkpoint: Path,
    sha256: str,
    target: Path,
    facts: Mapping[str, Any],
    *,
    average: bool,
) -> dict[str, Any]:
    """Write a checkpoint's weights, and beside them ``<target>.json`` with the facts.

    Args:
        checkpoint: written by the trainer, or by a loop of its own.
        sha256: of the checkpoint, as it is recorded.
        target: ends in .pt or .safetensors; it is replaced if it exists.
        facts: on the run: JSON values. A .safetensors file holds them too.
        average: take the averaged weights of ``callbacks.ema``.

    Returns:
        The number of tensors and of parameters, the size in bytes, the sha256, and notes.

    Raises:
        MtfError: the checkpoint is not the recorded one or holds no such weights, or a value in it
            does not fit the format.
        OSError: a file cannot be read or written.
    """
    content = read_verified(checkpoint, sha256)
    weights = averaged_in(content, checkpoint) if average else weights_in(content, checkpoint)
    tensors = {k: v.detach() for k, v in weights.items() if isinstance(v, torch.Tensor)}
    plain: Mapping[str, Any] = {**weights, **tensors}
    temporary = rundir.temporary_path(target)
    try:
        if target.suffix == SAFETENSORS:
            _write_safetensors(plain, temporary, facts)
        else:
            torch.save(dict(plain), temporary)
        with temporary.open("rb") as file:
            digest = {"sha256": hashlib.file_digest(file, "sha256").hexdigest()}
        size = temporary.stat().st_size
        text = json_text.dumps({**facts, **digest}, indent=2) + "\n"
        rundir.write_atomically(target.with_name(f"{target.name}.json"), text.encode())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    has_average = not average and "average" in content.get("callbacks", {}).get("ema", {})
    counts = {"tensors": len(tensors), "parameters": sum(t.numel() for t in tensors.values())}
    return {**counts, "bytes": size, **digest, "has_average": has_average}


def _write_safetensors(weights: Mapping[str, Any], path: Path, facts: Mapping[str, Any]) -> None:
    try:
        from safetensors.torch import save_file
    except ModuleNotFoundError as e:
        raise MtfError(
            "safetensors is not installed for the jobs of this run. Run"
            f" {pip_install('train')} in their environment, or name a file that ends in .pt"
        ) from e
    if others := [name for name, value in weights.items() if not isinstance(value, torch.Tensor)]:
        raise MtfError(
            f"{others[0]} is no tensor, and {SAFETENSORS} files hold nothing else. Name a file that"
            " ends in .pt"
        )
    seen: set[int] = set()
    own: dict[str, torch.Tensor] = {}
    for name, tensor in weights.items():  # tensors that share memory, or have gaps, are refused
        place = tensor.untyped_storage().data_ptr()
        is_plain = tensor.is_contiguous() and place not in seen
        own[name] = tensor if is_plain else tensor.clone(memory_format=torch.contiguous_format)
        seen.add(place)
    save_file(own, path, {key: _text(value) for key, value in facts.items()})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_text.dumps(value)
