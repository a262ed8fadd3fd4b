"""Can a job train: does the Python that jobs will use have what the trainer needs."""

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
# finds without importing: torch takes seconds
_PROBE = f"""
from importlib.util import find_spec
def there(name):
    try: return find_spec(name) is not None
    except ImportError: return False
print(*[name for name in {_NEEDED!r} if not there(name)])
"""


def python(checkup: Checkup) -> Iterator[Finding]:
    """Find that the Python of jobs lacks the trainer or torch."""
    needs = checkup.project.settings.slurm_defaults()
    if needs.get("conda") or needs.get("container"):
        return  # only the compute node can tell
    venv = needs.get("venv")
    path = Path(venv).expanduser() / "bin" / "python" if venv else Path(sys.executable)
    if not path.exists():
        yield Finding(
            "error", "the virtual environment of jobs has no Python here", str(path),
            "make it, or correct `environment: {venv: ...}` in mtf.yaml",
        )  # fmt: skip
        return
    answer = proc.run((str(path), "-c", _PROBE), timeout_s=60, cwd=Path("/"))
    lacking = answer.stdout.split() if answer.code == 0 else list(_NEEDED)
    if lacking:
        yield Finding(
            "error", f"the Python of jobs lacks {', '.join(lacking)}", str(path),
            pip_install("train", python=str(path)),
        )  # fmt: skip


THEME = Theme("environment", (python,))
