"""Times whole processes and functions in turn, so that a machine's drift hits both alike."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


def process_s(args: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None) -> float:
    """Return the wall time of a process, in seconds.

    Raises:
        RuntimeError: it failed.
    """
    start = time.perf_counter()
    done = subprocess.run(
        args,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    spent = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"{' '.join(args)}: {done.stdout}{done.stderr}")
    return spent


def in_turn(rounds: int, *works: Callable[[], float]) -> list[float]:
    """Run each work once a round, round by round; return each one's least, in seconds.

    What disturbs a measure only ever adds to it, and it does not add to all alike.
    """
    spent: list[list[float]] = [[] for _ in works]
    for number in range(rounds + 1):
        for place, work in enumerate(works):
            seconds = work()
            if number:  # the first round warms up
                spent[place].append(seconds)
    return [min(s) for s in spent]


def init_repository(folder: Path) -> None:
    """Make ``folder`` a git repository with an author."""
    settings = (("init", "-q", "-b", "main"), ("config", "user.name", "b"))
    for args in (*settings, ("config", "user.email", "b@localhost")):
        subprocess.run(["git", "-C", str(folder), *args], check=True)
