"""Thousands of syncs in one controller, which must not leak memory, files or processes.

    python -m tests.soak.watch [--ticks 500]

The controller is the real one, in this process, over a real repository with a remote and jobs of
the local executor (small shell programs, so that the ticks are what costs). It waits for nothing
between two ticks. Meanwhile specs come and go, a broken one among them, the remote vanishes now and
then, and the ledger moves under it. Printed: memory, open files, threads and children once it is
warm, half-way and at the end. Exit code 1 when one of them has grown.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mtf.commands import act_on_runs
from mtf.commands.controller.watch_loop import watch
from mtf.commands.sync import sync_lock
from mtf.errors import MtfError
from mtf.project.project import open_project
from mtf.reconcile.gather import Options
from tests.cli.lab import make_lab, push, spec, stop_jobs

WARM = 0.1  # of the ticks: caches are full then
_MORE_KIB = 8 * 1024  # memory may grow by so much: the allocator keeps it
TEMPLATE = "#!/bin/bash\ntrue {{ command }}\nexit 1\n"
SETTINGS = """\
executor: local
runs_root: runs
local: {max_parallel: 2}
retry: {max_attempts: 1, backoff: 0}
"""


@dataclass(frozen=True)
class Held:
    """The resources that a process holds."""

    rss_kib: int
    files: int
    threads: int
    children: int

    @classmethod
    def now(cls) -> Held:
        gc.collect()
        status = Path("/proc/self/status").read_text()
        rss = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
        me = os.getpid()
        children = Path(f"/proc/self/task/{me}/children").read_text().split()
        return cls(
            int(rss),
            sum(1 for _ in Path("/proc/self/fd").iterdir()),
            threading.active_count(),
            len(children),
        )


class Soak:
    """Simulates people and faults around a controller, between its syncs."""

    def __init__(self, folder: Path, ticks: int) -> None:
        self.folder, self.ticks = folder, ticks
        self.lab = make_lab(folder, {"s0.yaml": spec("s0")}, settings=SETTINGS)
        push(self.lab, {"templates/local.sh.j2": TEMPLATE})
        self.tick = 0
        self.held: list[Held] = []
        self.logged: Counter[str] = Counter()
        self.began = time.monotonic()

    def say(self, line: str) -> None:
        self.logged[line.split(" ", 1)[0]] += 1

    def pause(self, seconds: float) -> bool:
        """Replace the controller's pause: no waiting, and something changes meanwhile."""
        if seconds == 0:
            self.tick += 1
            self._happen()
            if self.tick in (max(2, int(self.ticks * WARM)), self.ticks // 2, self.ticks):
                self.held.append(Held.now())
                print(f"after {self.tick} ticks: {self.held[-1]}", flush=True)
        return self.tick >= self.ticks

    def _happen(self) -> None:
        away, there = self.folder / "away.git", self.folder / "lab.git"
        match self.tick % 100:
            case 10:
                push(self.lab, {f"experiments/s{self.tick // 100 % 5}.yaml": spec(f"n{self.tick}")})
            case 30:
                push(self.lab, {"experiments/bad.yaml": "kind: experiment\n"})
            case 40:
                self.lab.git("rm", "-q", "experiments/bad.yaml")
                push(self.lab, {})
            case 60:
                there.rename(away)
            case 65:
                away.rename(there)
            case 80:
                self._cancel()
            case _:
                pass

    def _cancel(self) -> None:
        project = open_project(self.lab.path)
        try:
            with sync_lock(project, wait_s=10):
                act_on_runs.cancel(project, [f"n{self.tick - 70}"], publish=True, say=self.say)
        except MtfError as e:
            self.logged[f"cancel: {e}"] += 1

    def run(self) -> None:
        """Watch for so many ticks."""
        project = open_project(self.lab.path)
        watch(project, Options(), publish=True, interval_s=1e-6, say=self.say, pause=self.pause)

    def report(self) -> bool:
        """Print the figures; return True if none of them grew."""
        ended = self.tick / (time.monotonic() - self.began)
        print(f"{self.tick} ticks, {ended:.1f} a second; logged: {dict(self.logged)}")
        first, last = self.held[0], self.held[-1]
        return (
            last.rss_kib - first.rss_kib <= _MORE_KIB
            and last.files <= first.files
            and last.threads <= first.threads
            and last.children <= max(first.children, 1)  # the local executor's worker
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--ticks", type=int, default=500)
    ticks = parser.parse_args().ticks
    for role in ("AUTHOR", "COMMITTER"):
        os.environ |= {f"GIT_{role}_NAME": "Soak", f"GIT_{role}_EMAIL": "soak@localhost"}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            soak = Soak(Path(folder), ticks)
            soak.run()
            flat = soak.report()
        finally:
            stop_jobs(Path(folder))
    sys.exit(0 if flat else 1)


if __name__ == "__main__":
    main()
