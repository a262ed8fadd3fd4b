"""Checkpoints are whole or not there, and a damaged one is never used."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf.trainer.checkpoint import CheckpointStore, Saved

if TYPE_CHECKING:
    from mtf.trainer.checkpoint import Writable


def save(store: CheckpointStore, content: bytes, epoch: int = 1, step: int = 10) -> Saved:
    def write(file: Writable) -> None:
        file.write(content[:2])
        file.write(content[2:])

    return store.save(write, epoch=epoch, step=step)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(".ckpt"))


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path, keep_last=3)


def test_what_is_saved_is_named_summed_and_pointed_at(
    store: CheckpointStore, tmp_path: Path
) -> None:
    saved = save(store, b"content", epoch=5, step=1234)
    assert saved.path == tmp_path / "epoch_005_step_001234.ckpt"
    assert saved.path.read_bytes() == b"content"
    assert (saved.bytes, saved.sha256) == (7, hashlib.sha256(b"content").hexdigest())
    assert (tmp_path / "latest.ckpt").readlink() == Path("epoch_005_step_001234.ckpt")
    assert (tmp_path / f"{saved.path.name}.sha256").read_text().split() == [
        saved.sha256,
        saved.path.name,
    ]
    assert store.newest_intact() == saved


def test_the_newest_is_the_furthest_in_the_training_not_in_the_alphabet(
    store: CheckpointStore,
) -> None:
    save(store, b"first", epoch=999, step=999_999)
    second = save(store, b"second", epoch=1000, step=1_000_000)
    assert store.newest_intact() == second


def test_two_checkpoints_of_one_step_do_not_overwrite_each_other(
    store: CheckpointStore, tmp_path: Path
) -> None:
    save(store, b"at the step's end")
    later = save(store, b"in the validation")
    assert names(tmp_path) == [
        "epoch_001_step_000010-2.ckpt",
        "epoch_001_step_000010.ckpt",
        "latest.ckpt",
    ]
    assert store.newest_intact() == later


def test_only_the_newest_are_kept(store: CheckpointStore, tmp_path: Path) -> None:
    for step in range(9, 14):
        save(store, b"x", step=step)
    assert names(tmp_path) == [
        *(f"epoch_001_step_0000{n}.ckpt" for n in (11, 12, 13)),
        "latest.ckpt",
    ]
    assert len(list(tmp_path.glob("*.sha256"))) == 3


@pytest.mark.parametrize("damage", ["cut", "changed", "unsummed", "unreadable sum"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    damage: str, store: CheckpointStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = save(store, b"the one before", step=1)
    newest = save(store, b"the newest one", step=2)
    match damage:
        case "cut":
            os.truncate(newest.path, 5)
        case "changed":
            newest.path.write_bytes(b"the newest 0ne")
        case "unsummed":
            (tmp_path / f"{newest.path.name}.sha256").unlink()
        case _:
            (tmp_path / f"{newest.path.name}.sha256").write_bytes(b"\xff")
    assert store.newest_intact() == older
    assert f"checkpoint {newest.path.name} is damaged" in capsys.readouterr().err


def test_without_an_intact_one_the_training_starts_anew_and_says_so(
    store: CheckpointStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert store.newest_intact() is None
    assert capsys.readouterr().err == ""
    os.truncate(save(store, b"content").path, 0)
    assert store.newest_intact() is None
    assert "the training starts anew" in capsys.readouterr().err


def test_a_failed_write_leaves_what_was_there(store: CheckpointStore, tmp_path: Path) -> None:
    def fail(file: Writable) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    before = save(store, b"good")
    with pytest.raises(OSError, match="No space"):
        store.save(fail, epoch=1, step=20)
    assert store.newest_intact() == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("place", ["in the write", "before the rename"])
def test_a_writer_killed_leaves_the_one_before_and_its_half_is_swept(
    place: str, store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = save(store, b"good")
    if (pid := os.fork()) == 0:

        def die(*_: object) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        if place == "before the rename":
            monkeypatch.setattr(Path, "rename", die)
            save(store, b"half", step=20)
        store.save(die, epoch=1, step=20)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert store.newest_intact() == before
    assert list(tmp_path.glob(".*"))
    store.sweep()
    assert not list(tmp_path.glob(".*"))
    assert save(store, b"again", step=20).path.name == "epoch_001_step_000020.ckpt"
