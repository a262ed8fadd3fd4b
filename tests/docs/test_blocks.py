"""Every command block of README and docs is run, in order, in a fresh folder for each page."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.docs.pages import RUN, Block, blocks, has_silent_failure, not_printed, pages, run
from tests.docs.stages import set_up

ALL = {page: blocks(page) for page in pages()}


def in_order(page: str) -> list[Block]:
    return [b for b in ALL[page] if (b.is_run and b.marks != "slurm") or b.file]


@pytest.mark.parametrize("page", [p for p in ALL if any(b.is_run for b in in_order(p))])
def test_a_page_does_what_it_says(page: str, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    set_up(page, folder, env)
    problems = run(in_order(page), folder, env, timeout=300)
    assert not problems, "\n\n".join(problems)


def test_blocks_that_are_not_run_say_why() -> None:
    for page, found in ALL.items():
        for block in found:
            where = f"{page}:{block.line}"
            assert block.language != "sh", f"{where}: write bash, or console with $"
            if block.marks and block.language in RUN:
                known = block.marks in {"slurm", "fails"}
                assert known or block.marks.startswith("not-run: "), f"{where}: {block.marks}"


def test_lines_that_a_command_does_not_print_are_noticed() -> None:
    output = "claimed 3 runs\npinned 0a1b2c3d4e\n"
    assert not_printed(["claimed 12 runs", "pinned ffff0000aa"], output) == []
    assert not_printed(["pinned ...", "claimed 12 runs"], output) == ["claimed 12 runs"]
    assert not_printed(["claimed ... run"], output) == []
    assert not_printed(["given up 1 run"], output) == ["given up 1 run"]


def test_failed_runs_that_a_page_does_not_show_are_noticed() -> None:
    output = "completed  short\n           2 runs: 1 completed, 1 failed\n"
    assert has_silent_failure(["2 runs: 1 completed ..."], output)
    assert not has_silent_failure(["2 runs: 1 completed, 1 failed"], output)
    assert not has_silent_failure([], "           2 runs: 2 completed\n")
