"""Running programs: lines arrive as they are printed, and nothing runs on afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mtf import proc


def test_output_is_yielded_as_lines_and_errors_go_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "echo one; echo oops >&2; printf 'two\\nthree'"
    found = list(proc.lines(("sh", "-c", script), silence_s=30, log=log))
    assert found[:2] == ["one", "two"]
    assert log.read_text() == "oops\n"


def test_closing_the_iterator_kills_the_children_of_the_program(tmp_path: Path) -> None:
    running: Any = proc.lines(
        ("sh", "-c", "sleep 60 & echo $!; wait"), silence_s=30, log=tmp_path / "l"
    )
    pid = int(next(running))
    running.close()
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().split()[2]
        except FileNotFoundError:
            break
        if state == "Z":  # dead, not reaped yet
            break
        time.sleep(0.01)
    else:
        os.kill(pid, 9)
        raise AssertionError("the child still runs")


def test_no_process_of_the_program_writes_after_the_iterator_is_closed(tmp_path: Path) -> None:
    """Otherwise the caller, who removes the folder, finds new files in it."""
    writer = f"while :; do : > {tmp_path}/$RANDOM.$i; i=$((i + 1)); done"
    for _ in range(20):
        running: Any = proc.lines(
            ("bash", "-c", f"for n in 1 2 3; do ({writer}) >&2 & done; echo up; wait"),
            silence_s=30,
            log=tmp_path / "log",
        )
        next(running)
        running.close()
        before = set(tmp_path.iterdir())
        time.sleep(0.01)
        assert set(tmp_path.iterdir()) == before


def test_an_interrupt_during_the_start_of_a_program_kills_it(tmp_path: Path) -> None:
    """It raises KeyboardInterrupt as soon as the program can be killed."""
    code = f"""
import os, pathlib, signal, subprocess, sys
from mtf import proc
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
begin = subprocess.Popen.__init__
def interrupted(self, *args, **kwargs):
    begin(self, *args, **kwargs)
    pathlib.Path({str(tmp_path)!r}, "pid").write_text(str(self.pid))
    os.kill(os.getpid(), signal.SIGINT)
subprocess.Popen.__init__ = interrupted
try:
    next(proc.lines(("cat", "/proc/self/status", "/dev/zero"), silence_s=30, log=pathlib.Path({str(tmp_path)!r}, "log")))
except KeyboardInterrupt:
    print("interrupted")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "interrupted\n", done.stderr
    assert not Path("/proc", (tmp_path / "pid").read_text()).exists()


def test_a_program_does_not_inherit_blocked_signals(tmp_path: Path) -> None:
    lines = proc.lines(("cat", "/proc/self/status"), silence_s=30, log=tmp_path / "log")
    status = dict(line.split(":", 1) for line in lines)
    assert int(status["SigBlk"], 16) == 0


def test_a_silent_program_is_killed(tmp_path: Path) -> None:
    silent = proc.lines(("sleep", "60"), silence_s=0.05, log=tmp_path / "log")
    with pytest.raises(proc.ProgramTimeoutError, match=r"sleep printed nothing for 0\.05 s"):
        list(silent)


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(proc.ProgramMissingError, match="no-such-program"):
        list(proc.lines(("no-such-program",), silence_s=1, log=tmp_path / "log"))
