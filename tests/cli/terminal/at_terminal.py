"""Runs `mtf` at a pseudo-terminal, with an answer typed to its question."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def at_terminal(folder: Path, *args: str, answer: str) -> tuple[int, str]:
    """Return the exit code and everything that a person at the terminal sees."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mtf.cli", *args]
    process = subprocess.Popen(command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, answer.encode() + b"\n")
    seen = b""
    try:
        while part := os.read(ours, 65536):
            seen += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    return process.wait(60), seen.decode().replace("\r\n", "\n")
