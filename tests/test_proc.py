"""A program's lines arrive as it prints them; with the iteration, all that it started ends."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from mtf import proc


def test_lines_arrive_and_errors_go_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = "echo one; echo oops >&2; printf 'two\\nthree'"
    found = list(proc.lines(("sh", "-c", script), silence_s=30, log=log))
    assert found[:2] == ["one", "two"]
    assert log.read_text() == "oops\n"


def test_whoever_gives_up_leaves_nothing_running(tmp_path: Path) -> None:
    running = proc.lines(("sh", "-c", "sleep 60 & echo $!; wait"), silence_s=30, log=tmp_path / "l")
    pid = int(next(running))
    running.close()
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().split()[2]
        except FileNotFoundError:
            break
        if state == "Z":  # dead; nobody has asked yet
            break
        time.sleep(0.01)
    else:
        os.kill(pid, 9)
        raise AssertionError("it runs on")


def test_a_silent_program_is_ended(tmp_path: Path) -> None:
    silent = proc.lines(("sleep", "60"), silence_s=0.05, log=tmp_path / "log")
    with pytest.raises(proc.ProgramTimeoutError, match=r"sleep said nothing for 0\.05 s"):
        list(silent)


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(proc.ProgramMissingError, match="no-such-program"):
        list(proc.lines(("no-such-program",), silence_s=1, log=tmp_path / "log"))
