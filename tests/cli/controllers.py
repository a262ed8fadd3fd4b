"""Controllers in processes of their own, and the lease that a controller holds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.cli.lab import wait_until
from tests.repos import git

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Controller:
    """A running `mtf sync --watch`."""

    def __init__(self, folder: Path, *args: str) -> None:
        self.log = folder.parent / f"watch-{time.monotonic_ns()}.log"
        with self.log.open("w") as log:
            # a shell starts background processes with INT ignored, nohup with HUP
            with_signals = ("env", "--default-signal=INT,HUP")
            command = [*with_signals, sys.executable, "-m", "mtf.cli", "sync", "--watch", *args]
            self.process = subprocess.Popen(
                command, cwd=folder, stderr=log, stdin=subprocess.DEVNULL
            )

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_for(self, text: str) -> None:
        wait_until(lambda: text in self.output, lambda: self.output)

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(60)


@contextmanager
def watching(folder: Path, *args: str) -> Iterator[Controller]:
    controller = Controller(folder, *args)
    try:
        yield controller
    finally:
        if controller.process.poll() is None:
            controller.process.kill()
            controller.process.wait()
    assert "Traceback" not in controller.output, controller.output


def lease(folder: Path, cluster: str = "default") -> dict[str, object]:
    text = git(
        folder / "lab.git", "show", f"refs/mtf/controller/{cluster}:holder.json", check=False
    )
    found: dict[str, object] = json.loads(text) if text else {}
    return found
