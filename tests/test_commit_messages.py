"""The check of commit subjects that `make lint` runs."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / ".ci/commit_messages.py"
CHECK = runpy.run_path(str(PROGRAM))


@pytest.mark.parametrize(
    "subject",
    [
        "core: sort modules",
        "executor, git: give SLURM a room",
        "docs/states.md: name causes",
        "x: " + "y" * 69,
    ],
)
def test_a_topic_and_a_change_make_a_subject(subject: str) -> None:
    assert CHECK["problem"](subject) is None


@pytest.mark.parametrize(
    "subject", ["Sort the modules of core", "core:sort", "core:", ": sort", "x: " + "y" * 70, ""]
)
def test_a_subject_without_a_topic_or_too_long_is_refused(subject: str) -> None:
    assert CHECK["problem"](subject)


def test_a_copy_without_history_is_not_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".ci").mkdir()
    copy = str(shutil.copy(PROGRAM, tmp_path / ".ci"))
    assert runpy.run_path(copy)["main"]() == 0
    assert "not checked" in capsys.readouterr().out
