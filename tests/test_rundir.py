"""Run folders: a claim has one holder for ever, and what must be on disk is there first."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf import rundir
from mtf.core.vocabulary.ids import Token

if TYPE_CHECKING:
    from collections.abc import Callable

TOKEN = Token("0" * 16)
Effect = tuple[str, bytes]  # what happened to a file, and its content at that time


@pytest.fixture
def effects(monkeypatch: pytest.MonkeyPatch) -> list[Effect]:
    """Record each fsync, link and rename, with the content of the file."""
    recorded: list[Effect] = []
    fsync, link, rename = os.fsync, os.link, os.replace

    def recording_fsync(fd: int) -> None:
        recorded.append(("fsync", Path(f"/proc/self/fd/{fd}").read_bytes()))
        fsync(fd)

    def recording_link(source: Path, target: Path) -> None:
        recorded.append(("link", Path(source).read_bytes()))
        link(source, target)

    def recording_rename(source: Path, target: Path) -> None:
        recorded.append(("rename", Path(source).read_bytes()))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "link", recording_link)
    monkeypatch.setattr(os, "replace", recording_rename)
    return recorded


# -- durability ------------------------------------------------------------------------------------


def test_a_claim_is_on_disk_before_it_is_visible(effects: list[Effect], tmp_path: Path) -> None:
    """Otherwise a crash of the machine leaves an empty claim, which is nobody's."""
    assert rundir.claim(tmp_path, TOKEN, "7") == "7"
    assert effects == [("fsync", b"7"), ("link", b"7")]


def test_a_file_replaced_durably_is_on_disk_before_it_is_visible(
    effects: list[Effect], tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    rundir.replace_durably(path, b"new")
    assert path.read_bytes() == b"new"
    assert effects == [("fsync", b"new"), ("rename", b"new")]


def test_an_event_is_on_disk_when_the_call_returns(effects: list[Effect], tmp_path: Path) -> None:
    rundir.append_journal(tmp_path, "started", {"job": "7"})
    assert effects == [("fsync", (tmp_path / rundir.JOURNAL).read_bytes())]


def test_a_file_that_can_be_made_again_does_not_wait_for_the_disk(
    effects: list[Effect], tmp_path: Path
) -> None:
    rundir.write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not [effect for effect, _ in effects if effect == "fsync"]


@pytest.mark.parametrize(
    "write",
    [
        rundir.write_atomically,
        rundir.replace_durably,
        lambda path, _: rundir.claim(path.parent, TOKEN, "7"),
    ],
)
def test_writers_leave_no_temporary_file(
    write: Callable[[Path, bytes], object], tmp_path: Path
) -> None:
    write(tmp_path / "file", b"new")
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert [name for name in left if name.startswith(".")] == []
    assert len(left) == 1


# -- claims ----------------------------------------------------------------------------------------


def test_of_many_claimants_one_wins_and_all_learn_its_name(tmp_path: Path) -> None:
    holders = [f"{n}" for n in range(16)]
    with ThreadPoolExecutor(16) as pool:
        answers = set(pool.map(lambda holder: rundir.claim(tmp_path, TOKEN, holder), holders))
    assert len(answers) == 1
    assert answers == {rundir.claim_holder(tmp_path, TOKEN)}
    assert rundir.claim(tmp_path, TOKEN, rundir.FENCED) in holders


def test_attempts_are_claimed_one_by_one(tmp_path: Path) -> None:
    other = Token("1" * 16)
    assert rundir.claim(tmp_path, TOKEN, rundir.FENCED) == rundir.FENCED
    assert rundir.claim_holder(tmp_path, other) is None
    assert rundir.claim(tmp_path, other, "7") == "7"
    assert rundir.claim_holder(tmp_path / "nowhere", TOKEN) is None


def test_a_claimant_killed_before_its_claim_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / rundir.CLAIMS / TOKEN
    path.parent.mkdir()
    rundir.temporary_path(path).write_bytes(b"job 6")
    assert rundir.claim(tmp_path, TOKEN, "7") == "7"
    assert rundir.temporary_files(path) == []


# -- journal ---------------------------------------------------------------------------------------


def test_a_torn_line_of_the_journal_costs_that_line_alone(tmp_path: Path) -> None:
    rundir.append_journal(tmp_path, "started", {"n": 1})
    with (tmp_path / rundir.JOURNAL).open("ab") as file:
        file.write(b'{"event": "prog')
    rundir.append_journal(tmp_path, "ended", {"n": 2})
    events = rundir.read_journal(tmp_path)
    assert [(event["event"], event["n"]) for event in events] == [("started", 1), ("ended", 2)]


def test_a_full_disk_is_an_error_of_the_journal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:-3]))
    with pytest.raises(OSError, match="No space left"):
        rundir.append_journal(tmp_path, "started", {})
