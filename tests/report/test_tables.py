"""Tables as aligned text, CSV and Markdown."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from mtf.report.tables import Columns, count, render_csv, render_markdown, render_plain, render_rich

CELLS = st.text(
    st.characters(categories=("L", "N", "P", "Zs"), exclude_characters="\n\r"), max_size=8
)


@pytest.mark.parametrize(("number", "text"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs")])
def test_nouns_are_plural_except_for_one(number: int, text: str) -> None:
    assert count(number, "run") == text


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=5))
def test_columns_of_plain_text_begin_at_the_same_place(rows: list[tuple[str, ...]]) -> None:
    table = Columns(["A", "B", "C"], rows)
    lines = render_plain(table).split("\n")
    assert len(lines) == 1 + len(rows)
    starts = [0]
    for i in (0, 1):
        width = max(len(line[i]) for line in [table.headings, *rows])
        starts.append(starts[-1] + width + 2)
    for line, cells in zip(lines, [table.headings, *rows], strict=True):
        padded = line.ljust(200)
        assert all(padded[at:].startswith(cell) for at, cell in zip(starts, cells, strict=True))
        assert line == line.rstrip(" ")


def test_a_title_comes_first() -> None:
    assert render_plain(Columns(["A"], [["x"]], "Title")) == "Title\nA\nx"


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5))
def test_csv_without_formulas_reads_back_as_it_was(rows: list[tuple[str, ...]]) -> None:
    rows = [tuple(cell.lstrip("=+-@") for cell in row) for row in rows]
    text = render_csv(Columns(["A", "B"], rows))
    assert [tuple(row) for row in csv.reader(io.StringIO(text))] == [("A", "B"), *rows]


def test_markdown_escapes_what_would_end_a_cell() -> None:
    assert render_markdown(Columns(["a"], [["x|y"]])) == "| a |\n| --- |\n| <code>x&#124;y</code> |"


def test_a_terminal_shows_states_in_colour_and_cuts_no_name() -> None:
    name = "search/" + "x" * 200
    console = Console(
        width=60, force_terminal=True, color_system="standard", no_color=False, file=io.StringIO()
    )
    console.print(render_rich(Columns(["RUN", "STATE"], [[name, "failed"]])))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "\x1b[31mfailed" in text
    assert text.count("x") == 200
