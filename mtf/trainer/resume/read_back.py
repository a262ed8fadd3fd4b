"""Reads written checkpoints back, as a resume would, before they count as durable.

The first one of a process is read, and each one whose structure differs from the last that was. It
happens in the thread that writes; the file's tensors are not read again, only described.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from mtf.errors import MtfError
from mtf.trainer.resume.compatibility import BEFORE_LOAD, fit_after_rebuild
from mtf.trainer.storage.plain_values import find_unreadable, read_plain, restored

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mtf.trainer.compute.structure import Structure

_ALWAYS_NEW = frozenset({"ranks"})  # what it holds depends on the place in the training


class ReadBack:
    """Checks that a process's checkpoints can be resumed.

    Args:
        built: the structure of the training as it is built; None: not known, as in a loop of the
            user's own.
        has_before_load: whether a callback builds another structure before a state is loaded.
    """

    def __init__(self, built: Structure | None = None, *, has_before_load: bool = False) -> None:
        self._built = None if has_before_load else built
        self._verified: Any = None  # the structure of the last checkpoint that was read

    def check(self, content: Mapping[str, Any], path: Path) -> None:
        """Read a file that was just written, unless one of the same structure was read before.

        Raises:
            MtfError: no resume could go on from it.
        """
        structure = _structure_of(
            {key: value for key, value in content.items() if key not in _ALWAYS_NEW}
        )
        if structure == self._verified:
            return
        try:
            read = restored(read_plain(path, mapped=True))
        except MtfError as e:
            if (key := find_unreadable(content)) is None:
                raise
            raise MtfError(f"{e} ({key})") from e
        if self._built is not None:
            fit = fit_after_rebuild(self._built, read)
            if not fit.is_whole:
                raise MtfError(
                    "this training could not be resumed: the model as it is built does not fit the"
                    f" checkpoint: {fit}. {BEFORE_LOAD}"
                )
        self._verified = structure


def _structure_of(value: Any) -> Any:
    """Return a description that is equal for states with the same names, shapes and types."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape)
    if isinstance(value, dict):
        return {key: _structure_of(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        parts = [_structure_of(part) for part in value]
        are_leaves = all(isinstance(part, type) for part in parts)
        return set(parts) if are_leaves else parts  # the length of a history is no structure
    return type(value)
