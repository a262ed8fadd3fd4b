"""Checks of the jobs' environment: their Python has what the trainer needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import proc
from mtf.commands.doctor.finding import Checkup, Finding, Theme
from mtf.distribution import pip_install

if TYPE_CHECKING:
    from collections.abc import Iterator

_NEEDED = ("torch", "lightning", "mtf.trainer")
# does not import them: torch takes seconds
_PROBE = f"""
from importlib.util import find_spec
def is_installed(name):
    try: return find_spec(name) is not None
    except ImportError: return False
print(*[name for name in {_NEEDED!r} if not is_installed(name)])
"""


def python(checkup: Checkup) -> Iterator[Finding]:
    """Find a Python of jobs without the trainer or torch."""
    needs = checkup.project.settings.slurm_defaults()
    if needs.get("conda") or needs.get("container"):
        return  # only a compute node has it
    venv = needs.get("venv")
    path = Path(venv).expanduser() / "bin" / "python" if venv else Path(sys.executable)
    if not path.exists():
        yield Finding(
            "error",
            "the jobs' virtual environment has no Python here, so jobs cannot start",
            str(path),
            f"python3 -m venv {venv}, or correct `environment: {{venv: ...}}` in mtf.yaml",
        )
        return
    answer = proc.run((str(path), "-c", _PROBE), timeout_s=60, cwd=Path("/"))
    lacking = answer.stdout.split() if answer.code == 0 else list(_NEEDED)
    if lacking:
        yield Finding(
            "error",
            f"the jobs' Python lacks {', '.join(lacking)}, so jobs cannot train",
            str(path),
            pip_install("train", python=str(path)),
        )


THEME = Theme("environment", (python,))
