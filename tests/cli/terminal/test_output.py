"""What commands print to a terminal, to a pipe, and while they wait."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mtf.cli.terminal.output import inform, print_plan
from mtf.cli.terminal.table_output import print_table
from mtf.core.vocabulary.states import RunState
from mtf.framework.live_display import show_progress
from mtf.report.tables import Columns
from tests.core.planner.worlds import experiment, record

if TYPE_CHECKING:
    from collections.abc import Callable

PLAN = "+ new\n- gone\n~ changed\n! restored\n= kept\n+3 no symbol\nerror: wrong\nplain"
RUN = record(experiment())


class Terminal(io.StringIO):
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], str]:
    """Return a function that returns what another one prints to a terminal."""

    def capture(print_something: Callable[[], None]) -> str:
        terminal = Terminal()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            print_something()
        return terminal.getvalue()

    return capture


def test_a_terminal_shows_the_lines_of_a_plan_in_the_colours_of_their_symbols(
    printed: Callable[[Callable[[], None]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR")
    lines = printed(lambda: print_plan(PLAN)).splitlines()
    green, red, yellow, magenta, cyan = "32", "31", "33", "35", "36"
    starts = [re.match("\x1b\\[(\\d+)m", line) for line in lines]
    colours = [start and start[1] for start in starts]
    assert colours == [green, red, yellow, magenta, cyan, None, red, None]
    assert "\n".join(re.sub("\x1b\\[\\d+m", "", line) for line in lines) == PLAN


def test_no_color_turns_colours_off(printed: Callable[[Callable[[], None]], str]) -> None:
    assert printed(lambda: print_plan(PLAN)) == PLAN + "\n"


def test_a_pipe_gets_plain_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR")
    print_plan(PLAN)
    print_table(Columns(["A", "B"], [["1", "2"]]))
    assert capsys.readouterr().out == PLAN + "\nA  B\n1  2\n"


def test_a_terminal_gets_a_drawn_table(printed: Callable[[Callable[[], None]], str]) -> None:
    text = printed(lambda: print_table(Columns(["A", "B"], [["1", "2"]])))
    assert "─" in text
    assert text != "A  B\n1  2\n"


def test_progress_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    inform("a line")
    assert capsys.readouterr() == ("", "a line\n")


def test_a_pipe_gets_one_line_for_each_change_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    failed = replace(RUN, state=RunState.FAILED, reason="ValueError")
    with show_progress() as update:
        for records in ([RUN], [RUN], [failed], [failed]):
            update(records)
    assert capsys.readouterr().err.splitlines() == [
        "pending    alone",
        "           1 run: 1 pending",
        "failed     alone (ValueError)",
        "           1 run: 1 failed",
    ]
