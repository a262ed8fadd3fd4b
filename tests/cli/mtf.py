"""The real command line in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


def mtf(
    folder: Path, *args: str, code: int | None = 0, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run `mtf` in a folder; ``code`` is the exit code expected, None for any."""
    done = subprocess.run(
        [sys.executable, "-m", "mtf.cli", *args], cwd=folder, capture_output=True, text=True, timeout=timeout
    )  # fmt: skip
    assert code is None or done.returncode == code, (
        f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def mtf_json(folder: Path, *args: str, code: int | None = 0) -> Any:
    """Run `mtf` and return what it printed, read as JSON."""
    return json.loads(mtf(folder, *args, code=code).stdout)
