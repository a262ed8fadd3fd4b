"""A terminal shows the progress of a training; a file gets plain lines only."""

from __future__ import annotations

import os
import pty
import re
import sys
import threading
from typing import TYPE_CHECKING

from mtf.trainer.loop.loop import HANDLERS
from mtf.trainer.loop.phases import Phase
from mtf.trainer.runtime.console import say
from tests.trainer.hard_training import COMPLETE, HARD, in_child
from tests.trainer.runs import events, make_run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from mtf.trainer.loop.loop import Loop

WITH_WORKERS = {"num_workers": 1}


def read_until_cursor_is_restored(terminal: int, into: bytearray) -> None:
    while not into.endswith(b"\x1b[?25h"):
        into += os.read(terminal, 65536)


def print_at_epoch_ends(terminal: int) -> None:
    """Make this process write to a terminal, and print a line at the end of each epoch."""
    os.environ["TERM"] = "xterm-256color"
    os.dup2(terminal, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    handler = HANDLERS[Phase.EPOCH_END]

    def printing(loop: Loop) -> Phase:
        say(f"epoch {loop.state.epoch} is over")
        return handler(loop)

    HANDLERS[Phase.EPOCH_END] = printing


def test_a_terminal_shows_the_progress_and_every_line_printed(tmp_path: Path) -> None:
    run = make_run(tmp_path, base=HARD, data=WITH_WORKERS)
    ours, terminal = pty.openpty()
    drawn = bytearray()
    reader = threading.Thread(target=read_until_cursor_is_restored, args=(ours, drawn), daemon=True)
    reader.start()
    assert in_child(run, lambda: print_at_epoch_ends(terminal)) == COMPLETE
    reader.join(60)
    assert not reader.is_alive()
    os.close(terminal)
    os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode())
    assert "epoch 2/2 · step 6/6" in text
    assert "loss " in text
    lines = text.replace("\r", "\n").splitlines()
    assert "mtf: epoch 0 is over" in lines
    assert "mtf: epoch 1 is over" in lines


def test_a_file_gets_no_progress_bar(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert in_child(make_run(tmp_path, base=HARD)) == COMPLETE
    assert "step" not in capfd.readouterr().err


def test_the_journal_holds_the_speed_and_the_rows_do_not(tmp_path: Path) -> None:
    run = make_run(tmp_path, base=HARD)
    assert in_child(run) == COMPLETE
    last = events(run, "progress")[-1]
    assert last["steps_per_s"] > 0
    assert last["samples_per_s"] > last["steps_per_s"]
    assert last["eta_s"] == 0
    assert "_per_s" not in (run / "scalars.jsonl").read_text()
