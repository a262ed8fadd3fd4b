"""Time of the pre-commit hook: `git commit` of 1 spec of 1,000, with and without it.

The floor is an interpreter that imports what the hook needs and does nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.commands import SPEC
from benchmarks.timing import alternately, init_repository, process_s
from mtf.commands.hooks.install import install
from mtf.git.repo import GitRepo

SPECS = 1000


def make_repository(folder: Path) -> None:
    """Make a repository with ``SPECS`` committed specs and the hooks installed."""
    init_repository(folder)
    (folder / "experiments").mkdir()
    for number in range(SPECS):
        text = SPEC.replace("alone", f"spec_{number}")
        (folder / "experiments" / f"spec_{number}.yaml").write_text(text)
    _git(folder, "add", "-A")
    _git(folder, "commit", "-qm", "first")
    _git(folder, "gc", "-q")  # packed like a clone: loose objects are slower to read
    install(GitRepo(folder))


def commit_s(folder: Path, name: str, *options: str) -> float:
    """Change a file, commit it, and return the seconds that the commit took."""
    path = folder / name
    path.write_text((path.read_text() if path.exists() else "") + f"# {time.time_ns()}\n")
    _git(folder, "add", name)
    return process_s(["git", "commit", "-qm", "next", *options], folder)


def _git(folder: Path, *args: str) -> None:
    subprocess.run(["git", "-C", str(folder), *args], check=True)


def main() -> None:
    """Measure and print the figure."""
    floor = [sys.executable, "-I", "-c", "import click, git, pydantic, ruamel.yaml"]
    spec = "experiments/spec_7.yaml"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_repository(folder)
        checked, other, bare, imports = alternately(
            7,
            lambda: commit_s(folder, spec),
            lambda: commit_s(folder, "notes.txt"),
            lambda: commit_s(folder, spec, "--no-verify"),
            lambda: process_s(floor, folder),
        )
    for title, spent in {
        f"commit 1 of {SPECS:,} specs": checked - bare,
        "commit of no spec": other - bare,
    }.items():
        print(
            f"{title:<28} {spent:6.3f} s   {spent / imports:4.2f} x its imports alone"
            f" ({imports:.3f} s), without git's own {bare:.3f} s"
        )
