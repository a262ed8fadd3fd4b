"""``scalars.jsonl`` in the run folder: the rows of scalars, which wandb and others mirror."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary import json_text
from mtf.trainer.runtime.console import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SCALARS = "scalars.jsonl"


class Scalars:
    """The rows of a run: a resume removes those after its checkpoint, and they are written again.

    A row holds no time of day, so that the file of an interrupted run equals that of an
    uninterrupted one: the n-th row is the same in every attempt.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / SCALARS
        self._file = self._path.open("ab", buffering=0)
        self._unwritten = bytearray()  # rows that a full disk did not take

    def append(self, row: Mapping[str, Any]) -> None:
        """Append a row; readers see it at once. A full disk delays it to a later call."""
        was_whole = not self._unwritten
        self._unwritten += json_text.dumps(row).encode() + b"\n"
        try:
            self._write()
        except OSError as e:
            if was_whole:
                say(f"could not write {self._path}: {e}. Its rows are kept and written later")

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows from the first one on, without damaged lines."""
        with self._path.open("rb") as file:
            for line in file:
                try:
                    yield json_text.loads(line)
                except ValueError:
                    continue

    def durable_size(self) -> int:
        """Make all rows durable and return the file's size in bytes, for a checkpoint.

        Raises:
            OSError: the disk does not take them.
        """
        self._write()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def cut_to(self, size: int) -> None:
        """Remove the rows after a checkpoint; ``size`` is the file's size recorded there."""
        found = self._path.stat().st_size
        if found < size:
            say(f"{self._path} has lost rows: it has {found} bytes instead of at least {size}")
        self._file.truncate(min(size, found))
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self) -> None:
        while self._unwritten:
            del self._unwritten[: self._file.write(self._unwritten)]
