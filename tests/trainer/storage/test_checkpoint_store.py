"""Checkpoints are whole or not there, and a damaged one is never used."""

from __future__ import annotations

import functools
import hashlib
import os
import resource
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mtf.trainer.storage.checkpoint_store import CheckpointStore, GivenUpError, Saved, WriteProgress
from tests.trainer.hard_training import die_at_call

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mtf.trainer.storage.checkpoint_store import Place, Writable


def save(
    store: CheckpointStore,
    content: bytes,
    epoch: int = 1,
    step: int = 10,
    best: Sequence[Place] = (),
) -> Saved:
    def write(file: Writable) -> None:
        file.write(content[:2])
        file.write(content[2:])

    return store.save(write, epoch=epoch, step=step, best=best)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.endswith(".ckpt"))


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path, keep_last=3)


def test_a_saved_checkpoint_has_its_name_its_sha256_and_a_link(
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


def test_files_are_synced_before_they_get_their_names_and_the_folder_afterwards(
    store: CheckpointStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill cannot show this: unsynced data is lost only when the machine loses power."""
    sync, synced = os.fsync, []

    def recorded_sync(fd: int) -> None:
        synced.append(
            (Path(f"/proc/self/fd/{fd}").readlink(), {path.name for path in tmp_path.iterdir()})
        )
        sync(fd)

    monkeypatch.setattr(os, "fsync", recorded_sync)
    saved = save(store, b"content")
    *files, (last, present) = synced
    assert [path.suffix for path, _ in files] == [".half", ".half"]  # the content and its sha256
    assert all(saved.path.name not in names for _, names in files)
    assert last == tmp_path
    assert {saved.path.name, f"{saved.path.name}.sha256", "latest.ckpt"} <= present


def test_the_newest_checkpoint_is_the_furthest_in_the_training(
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


def test_only_the_newest_checkpoints_are_kept(store: CheckpointStore, tmp_path: Path) -> None:
    for step in range(9, 14):
        save(store, b"x", step=step)
    assert names(tmp_path) == [
        *(f"epoch_001_step_0000{n}.ckpt" for n in (11, 12, 13)),
        "latest.ckpt",
    ]
    assert len(list(tmp_path.glob("*.sha256"))) == 3


def test_the_best_checkpoints_are_kept_at_any_age_and_linked(
    store: CheckpointStore, tmp_path: Path
) -> None:
    best = [(1, 2), (1, 1)]
    for step in range(1, 7):
        save(store, b"x", step=step, best=[place for place in best if place[1] <= step])
        wanted = f"epoch_001_step_{min(step, 2):06d}.ckpt"
        assert (tmp_path / "best.ckpt").readlink() == Path(wanted)
    kept = [f"epoch_001_step_{step:06d}.ckpt" for step in (1, 2, 4, 5, 6)]
    assert names(tmp_path) == ["best.ckpt", *kept, "latest.ckpt"]


def test_the_first_of_two_checkpoints_of_a_place_is_the_best(
    store: CheckpointStore, tmp_path: Path
) -> None:
    """The first one was saved at the epoch's end, later ones after batches of the next epoch."""
    for step in (10, 10, 11, 12, 13):
        save(store, b"x", step=step, best=[(1, 10)])
    assert (tmp_path / "best.ckpt").readlink() == Path("epoch_001_step_000010.ckpt")
    assert "epoch_001_step_000010-2.ckpt" not in names(tmp_path)


DAMAGE: dict[str, Any] = {
    "cut": lambda path, _: os.truncate(path, 5),
    "empty": lambda path, _: os.truncate(path, 0),
    "changed": lambda path, _: path.write_bytes(b"the newest 0ne"),
    "unsummed": lambda _, summed: summed.unlink(),
    "empty sum": lambda _, summed: summed.write_bytes(b""),
    "unreadable sum": lambda _, summed: summed.write_bytes(b"\xff"),
    "another's sum": lambda path, summed: shutil.copy(
        path.with_name("epoch_001_step_000001.ckpt.sha256"), summed
    ),
    "a folder": lambda path, _: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
    damage: str, store: CheckpointStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older = save(store, b"the one before", step=1)
    newest = save(store, b"the newest one", step=2)
    DAMAGE[damage](newest.path, tmp_path / f"{newest.path.name}.sha256")
    assert store.newest_intact() == older
    store.set_damaged_aside()
    assert f"checkpoint {newest.path.name} is damaged" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_not_kept_in_place_of_newer_intact_ones(tmp_path: Path) -> None:
    """By its name the damaged one is the newest, until the training has caught up with it."""
    store = CheckpointStore(tmp_path, keep_last=1)
    save(store, b"the one before", step=1)
    damaged = save(CheckpointStore(tmp_path, keep_last=9), b"the newest one", step=9)
    os.truncate(damaged.path, 3)
    assert store.newest_intact() is not None
    store.set_damaged_aside()
    after = save(store, b"trained again", step=2)
    assert store.newest_intact() == after
    assert damaged.path.with_name(f"{damaged.path.name}.damaged").exists()
    assert save(store, b"caught up", step=9).path == damaged.path


def test_dangling_links_are_replaced(store: CheckpointStore, tmp_path: Path) -> None:
    for name in ("latest.ckpt", "best.ckpt"):
        (tmp_path / name).symlink_to("gone.ckpt")
    assert store.newest_intact() is None
    saved = save(store, b"content", best=[(1, 10)])
    assert {(tmp_path / f"{name}.ckpt").resolve() for name in ("latest", "best")} == {saved.path}


def test_without_an_intact_checkpoint_the_training_starts_from_the_beginning(
    store: CheckpointStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert store.newest_intact() is None
    store.set_damaged_aside()
    assert capsys.readouterr().err == ""
    os.truncate(save(store, b"content").path, 0)
    assert store.newest_intact() is None
    store.set_damaged_aside()
    assert "training starts from the beginning" in capsys.readouterr().err


def test_a_failed_write_leaves_earlier_checkpoints_untouched(
    store: CheckpointStore, tmp_path: Path
) -> None:
    def fail(file: Writable) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    before = save(store, b"good")
    with pytest.raises(OSError, match="No space"):
        store.save(fail, epoch=1, step=20)
    assert store.newest_intact() == before
    assert not list(tmp_path.glob(".*"))


def test_the_disks_error_is_raised_in_place_of_torchs(store: CheckpointStore) -> None:
    """``torch.save`` answers with an error of its own about its position in the file."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
    try:
        with pytest.raises(OSError, match="too large"):
            store.save(functools.partial(torch.save, torch.zeros(100_000)), epoch=1, step=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    assert not list(store.folder.iterdir())


def test_a_write_that_is_given_up_leaves_nothing(store: CheckpointStore) -> None:
    progress = WriteProgress()

    def write(file: Any) -> None:
        torch.save(torch.zeros(10), file)
        progress.give_up = True
        torch.save(torch.zeros(10), file)

    before = save(store, b"good")
    with pytest.raises(GivenUpError):
        store.save(write, epoch=1, step=20, progress=progress)
    assert progress.bytes > 40
    assert store.newest_intact() == before
    assert not list(store.folder.glob(".*"))


def test_no_folder_is_made_in_place_of_a_vanished_disk(tmp_path: Path) -> None:
    run = tmp_path / "mounted" / "run"
    with pytest.raises(FileNotFoundError):
        save(CheckpointStore(run / "checkpoints", keep_last=1), b"x")
    assert not run.parent.exists()


def killed_at(nth: int, work: Callable[[], object]) -> bool:
    """Work in a child that is killed at its nth call to the file system; return True if it was."""
    if (pid := os.fork()) == 0:
        die_at_call(nth)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_a_writer_killed_at_any_step_leaves_an_intact_checkpoint_and_no_litter(
    tmp_path: Path,
) -> None:
    nth = 0
    while True:
        nth += 1
        store = CheckpointStore(tmp_path / str(nth), keep_last=1)
        before = save(store, b"good", step=1, best=[(1, 1)])
        if not killed_at(nth, partial(save, store, b"better", step=20, best=[(1, 20)])):
            break
        newest = store.newest_intact()
        assert newest is not None, nth
        assert newest == before or newest.path.read_bytes() == b"better", nth
        store.sweep()
        assert not list(store.folder.glob(".*")), nth
        again = save(store, b"again", step=20, best=[(1, 20)])
        assert store.newest_intact() == again, nth
        links = {name: (store.folder / name).resolve() for name in ("latest.ckpt", "best.ckpt")}
        assert links["latest.ckpt"] == again.path, nth
        assert links["best.ckpt"].read_bytes() in (b"better", b"again"), nth
        sums = {path.name for path in store.folder.glob("*.sha256")}
        assert sums == {f"{p.name}.sha256" for p in store.folder.glob("epoch*.ckpt")}, nth
    assert nth > 10
