"""Measures processes and functions alternately, so that a machine's drift affects all alike."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path


def process_s(args: Sequence[str], cwd: Path, env: Mapping[str, str] | None = None) -> float:
    """Run a process and return its wall time in seconds.

    Raises:
        RuntimeError: the process failed.
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


def alternately(rounds: int, *measures: Callable[[], float]) -> list[float]:
    """Take each measure once a round and return the minimum of each, in seconds.

    The minimum, because disturbances only ever add time. The first round is a warm-up.
    """
    seconds: list[list[float]] = [[] for _ in measures]
    for number in range(rounds + 1):
        for results, measure in zip(seconds, measures, strict=True):
            result = measure()
            if number:
                results.append(result)
    return [min(results) for results in seconds]


def init_repository(folder: Path) -> None:
    """Make a folder a git repository with an author."""
    settings = (("init", "-q", "-b", "main"), ("config", "user.name", "b"))
    for args in (*settings, ("config", "user.email", "b@localhost")):
        subprocess.run(["git", "-C", str(folder), *args], check=True)
