"""Keeps templates as jinja2 has compiled them: to compile one takes longer than all it renders."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from jinja2 import BytecodeCache

from mtf import rundir

if TYPE_CHECKING:
    from pathlib import Path

    from jinja2.bccache import Bucket


class CompiledTemplates(BytecodeCache):
    """A file for each template, which holds its source's checksum too. What fails is done without.

    Source: jinja2's documentation, Bytecode Cache.
    """

    def __init__(self, folder: Path) -> None:
        """Name a folder that nobody else may write to: what is in it is executed."""
        self._folder = folder

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill a bucket, where its template is there."""
        with suppress(OSError), self._path(bucket).open("rb") as file:
            bucket.load_bytecode(file)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep what has been compiled."""
        with suppress(OSError):
            rundir.write_atomically(self._path(bucket), bucket.bytecode_to_string())

    def _path(self, bucket: Bucket) -> Path:
        return self._folder / f"{bucket.key}.template"
