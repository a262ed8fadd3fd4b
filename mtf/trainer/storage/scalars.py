"""The rows of a run, ``scalars.jsonl`` in its folder: the truth, which everything else mirrors."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from mtf.trainer.runtime.console import say

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SCALARS = "scalars.jsonl"


class Scalars:
    """The rows of a run, each once, whatever interrupted it: a resume cuts off what was ahead.

    A row holds no time, so that an interrupted run's file equals an uninterrupted one's. Rows that
    were cut off come again, equal in their bits: the n-th row is the same in every attempt.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / SCALARS
        self._file = self._path.open("ab", buffering=0)
        self._unwritten = bytearray()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; readers see it at once. What a full disk does not take is kept."""
        was_whole = not self._unwritten
        self._unwritten += json.dumps(row).encode() + b"\n"
        try:
            self._write()
        except OSError as e:
            if was_whole:
                say(f"{self._path} cannot be written, and is to be made up for: {e}")

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the rows there are, from the first one on; damaged lines are left out."""
        with self._path.open("rb") as file:
            for line in file:
                try:
                    yield json.loads(line)
                except ValueError:
                    continue

    def durable_size(self) -> int:
        """Return the size in bytes, all of them on disk: what a checkpoint remembers.

        Raises:
            OSError: they are not.
        """
        self._write()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def cut_to(self, size: int) -> None:
        """Return to what a checkpoint remembers (0: a training from its start)."""
        there = self._path.stat().st_size
        if there < size:
            say(f"{SCALARS} has lost rows: {there} bytes of at least {size} are left")
        self._file.truncate(min(size, there))
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self) -> None:
        while self._unwritten:
            del self._unwritten[: self._file.write(self._unwritten)]
