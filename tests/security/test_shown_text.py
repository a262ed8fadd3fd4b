"""Nothing that a job, a spec, a commit or SLURM says acts on the person who reads it."""

from __future__ import annotations

import ast
import json
import sys
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from mtf.cli.terminal.output import print_log
from mtf.core.vocabulary.shown_text import code, harmless, markdown_cell, one_line
from mtf.errors import Problem
from mtf.report.problems import render_problems
from mtf.report.tables import Columns, render_csv, render_markdown, render_plain, render_rich
from tests.cli.lab import SETTINGS, make_lab, spec, sync_until
from tests.cli.mtf import mtf

if TYPE_CHECKING:
    import pytest

NASTY = "\x1b[2J\x1b]0;owned\x07\u202egnp\u200b\u2066\ufeff\x9b31m\r\x00\u2028\U000e0041"
CLI = Path(__file__).parents[2] / "mtf/cli"


def test_every_character_that_is_not_shown_is_escaped() -> None:
    invisible = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    acting = [
        chr(n) for n in range(sys.maxunicode + 1) if unicodedata.category(chr(n)) in invisible
    ]
    left = [c for c in acting if harmless(c) == c]
    assert left == ["\t", "\n"]
    assert not any(one_line(c) == c for c in acting)
    assert harmless("naïve 日本語 ✅ ⚠️ ±é") == "naïve 日本語 ✅ ⚠️ ±é"


@given(st.text())
def test_json_stays_the_same_json(text: str) -> None:
    for ensure_ascii in (True, False):
        shown = harmless(json.dumps({text: [text]}, ensure_ascii=ensure_ascii, indent=2))
        assert json.loads(shown) == {text: [text]}


@given(st.text())
def test_shown_text_is_on_one_line_and_shown_again_the_same(text: str) -> None:
    shown = one_line(text)
    assert harmless(shown) == shown
    assert len(shown.splitlines()) <= 1


def test_tables_show_nasty_cells_and_headings_as_text() -> None:
    table = Columns(["RUN", f"[link=x]{NASTY}"], [[f"a\nb{NASTY}", "[red]@all"]], title=NASTY)
    plain = render_plain(table)
    assert plain.count("\n") == 2
    assert harmless(plain) == plain
    drawn = render_rich(table)
    cells = [*drawn.columns[0].cells, *drawn.columns[1].cells]
    assert [str(c) for c in cells] == [one_line(f"a\nb{NASTY}"), "[red]@all"]
    assert str(drawn.columns[1].header) == one_line(f"[link=x]{NASTY}")


def test_markdown_shows_no_markup_links_mentions_or_html() -> None:
    for text in (
        "@all",
        "<img src=x>",
        "[a](http://x)",
        "`a`|b",
        "a\n# b",
        "#12",
        "www.x.org",
        "*a*",
    ):
        for shown in (markdown_cell(text), code(text)):
            assert shown.startswith(("`", "<code>"))
            assert shown.endswith(("`", "</code>"))
        row = render_markdown(Columns(["A", "B"], [[text, "1"]])).split("\n")[2]
        assert row.count("|") == 3
    assert render_markdown(Columns(["A"], [["lr=0.1, x_y/2"]])).endswith("| lr=0.1, x_y/2 |")


def test_a_spreadsheet_runs_no_formula() -> None:
    text = render_csv(Columns(["A"], [["=cmd()"], ["@x"], ["+1+x"], ["-0.5"], ["1e-3"], ["a"]]))
    assert text.split("\n") == ["A", "'=cmd()", "'@x", "'+1+x", "-0.5", "1e-3", "a", ""]


def test_a_message_or_path_begins_no_line_of_its_own() -> None:
    problem = Problem("a\n::error::b.yaml", 1, 1, "x\n::add-mask::y\r::stop-commands::z")
    for style in ("text", "github"):
        lines = harmless(render_problems([problem], style)).split("\n")
        assert [line for line in lines if line.startswith("::")] in ([], lines[:1])
        assert not any(line.startswith(("::add", "::stop", "::error::")) for line in lines)


def test_the_command_line_prints_through_one_door() -> None:
    doors = {"click.echo", "click.secho", "print", "sys.stdout.write", "sys.stderr.write"}
    found = {
        path.name
        for path in CLI.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in doors
    }
    assert found == {"output.py"}


def test_a_jobs_output_gives_a_ci_system_no_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = "::set-output name=x::y\n \t::error::z\n:\x1b[0m:x\na::b ##[group]c\n##vso[task]\n"
    for name in ("CI", "TF_BUILD"):
        monkeypatch.delenv(name, raising=False)
    print_log(said)
    assert capsys.readouterr().out == said.replace("\x1b[0m", "")
    monkeypatch.setenv("CI", "true")
    print_log(said)
    quoted = ": :set-output name=x::y\n \t: :error::z\n: :x\na::b ## [group]c\n## vso[task]\n"
    assert capsys.readouterr().out == quoted


def test_what_a_job_says_is_shown_harmlessly(tmp_path: Path) -> None:
    models = f"""\
import sys
from torch import nn
class Loud(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()
        print({("out " + NASTY)!r}, "\\x1b[31mred\\x1b[0m", flush=True)
        print({NASTY!r}, file=sys.stderr, flush=True)
        raise ValueError({("boom " + NASTY)!r})
"""
    lab = make_lab(tmp_path, {"one.yaml": spec("one", model="Loud")}, settings=SETTINGS)
    lab.commit({"models.py": models, "experiments/one.yaml": spec("one", model="Loud") + "# x\n"})
    lab.git("push", "-q", "origin", "main")
    sync_until(lab, lambda found: all(r["state"] == "failed" for r in found.values()))
    for command in (
        ("status",),
        ("status", "--wide"),
        ("status", "--json"),
        ("show", "one"),
        ("show", "one", "--json"),
        ("logs", "one"),
        ("logs", "one", "--err"),
        ("results", "one", "--format", "markdown"),
    ):
        done = mtf(lab.path, *command)
        assert harmless(done.stdout + done.stderr) == done.stdout + done.stderr, command
    assert "out \\u001b[2J" in mtf(lab.path, "logs", "one").stdout
    assert " red\n" in mtf(lab.path, "logs", "one").stdout  # colours are left out
    assert "boom" in mtf(lab.path, "show", "one").stdout
    log = lab.git("log", "--format=%B", "mtf/ledger")
    assert harmless(log) == log
