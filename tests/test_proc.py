"""Running programs: lines arrive as they are printed, and nothing runs on afterwards."""

from __future__ import annotations

import os
import signal
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


def alive(pid: int) -> bool:
    """Return True if a process runs."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


# What a wrapper script of a site may start: each way leaves the session or the process tree.
CHILDREN = {
    "in its group": "sleep 300 &",
    "with its own output": "sleep 300 >/dev/null 2>&1 &",
    "in a group of its own": "timeout 300 sleep 300 &",
    "in a session of its own": "setsid sleep 300 &",
    "without a parent": "setsid -f sleep 300 >/dev/null 2>&1 </dev/null",
    "without open files": f'{sys.executable} -c \'import subprocess as s; s.Popen(["sleep", "300"], start_new_session=True).wait()\' &',
    "ignoring signals": "(trap '' TERM INT HUP; sleep 300; sleep 300) &",
}


@pytest.mark.parametrize("child", CHILDREN.values(), ids=list(CHILDREN))
def test_a_program_that_does_not_answer_ends_with_everything_it_has_started(
    child: str, tmp_path: Path
) -> None:
    note, late = tmp_path / "pids", tmp_path / "late"
    sleeper = tmp_path / "sleep"
    sleeper.write_text(f"#!/bin/sh\necho $$ >> {note}\n/bin/sleep 300\ntouch {late}\n")
    sleeper.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    script = f"{child}\nwhile [ ! -s {note} ]; do /bin/sleep 0.01; done; wait; /bin/sleep 300"
    with pytest.raises(proc.ProgramTimeoutError, match=r"sh did not answer within 1 s"):
        proc.run(("sh", "-c", script), timeout_s=1, env=env)
    pids = [int(pid) for pid in note.read_text().split()]
    assert pids
    assert not any(map(alive, pids))
    assert not late.exists()


def test_a_program_that_has_ended_has_answered_whatever_it_left_behind(tmp_path: Path) -> None:
    done = proc.run(("sh", "-c", "echo 17; sleep 300 & exit 3"), timeout_s=0.5)
    assert done == proc.Output(3, "17\n", "")


def test_an_interrupted_program_ends_at_once(tmp_path: Path) -> None:
    """A terminal interrupts only its own session, and a program runs in one of its own."""
    note = tmp_path / "pid"
    code = f"""
import signal
from mtf import proc
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    proc.run(("sh", "-c", "echo $$ > {note}; sleep 300"), timeout_s=300)
except KeyboardInterrupt:
    print("interrupted")
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as mtf:
        while not (note.exists() and note.read_text()):
            time.sleep(0.01)
        mtf.send_signal(signal.SIGINT)
        assert mtf.communicate()[0] == "interrupted\n"
    assert not alive(int(note.read_text()))
