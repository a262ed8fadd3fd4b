"""A cache of compiled Jinja templates on disk.

The first script that a process renders takes 2.6 ms of user time with the cache and 9.2 ms without
(measured in turn, on one machine): compiling a template takes longer than rendering it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from jinja2 import BytecodeCache

from mtf import rundir

if TYPE_CHECKING:
    from pathlib import Path

    from jinja2.bccache import Bucket


class CompiledTemplates(BytecodeCache):
    """One file for each template, with the checksum of its source. Errors are ignored.

    Source: jinja2's documentation, Bytecode Cache.
    """

    def __init__(self, folder: Path) -> None:
        """Take a folder that nobody else may write to: mtf executes its content."""
        self._folder = folder

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill a bucket from its file, if there is one."""
        with suppress(OSError), self._path(bucket).open("rb") as file:
            bucket.load_bytecode(file)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Write a compiled template to its file."""
        with suppress(OSError):
            rundir.write_atomically(self._path(bucket), bucket.bytecode_to_string())

    def _path(self, bucket: Bucket) -> Path:
        return self._folder / f"{bucket.key}.template"
