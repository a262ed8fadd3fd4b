"""Checkpoints are written in the background; a disk that fails need not end the training."""

from __future__ import annotations

import copy
import os
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from mtf import rundir
from mtf.core.planner.journal_reader import fold
from mtf.core.vocabulary.causes import STORAGE_EXIT_CODE
from mtf.errors import MtfError
from mtf.trainer.compute.fabric import build_fabric
from mtf.trainer.context import RunContext
from mtf.trainer.job.run_job import read_config
from mtf.trainer.loop.loop import HANDLERS
from mtf.trainer.loop.phases import Phase
from mtf.trainer.resume.checkpointer import last_end_was_unclean
from mtf.trainer.runtime.signals import STOP
from mtf.trainer.storage.checkpoint_store import CheckpointStore
from tests.trainer.hard_training import (
    COMPLETE,
    HARD,
    STOPPED,
    die_at_call,
    difference,
    in_child,
    result,
    signal_at,
)
from tests.trainer.ranks import train_ranks
from tests.trainer.runs import Job, events, make_run, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mtf.trainer.loop.loop import Loop
    from mtf.trainer.storage.checkpoint_store import Writable

ONE_EPOCH: dict[str, Any] = {"training": {"max_epochs": 1}}
# Larger than a journal and a file of scalars: a limit of files' sizes hits it alone.
LARGE: dict[str, Any] = {"model": {"hidden_size": 2000}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Return the result of the uninterrupted training; each configuration is trained once."""
    results: dict[str, dict[str, Any]] = {}

    def of(**changes: Any) -> dict[str, Any]:
        if (key := repr(changes)) not in results:
            run = make_run(tmp_path_factory.mktemp("whole"), base=HARD, **changes)
            assert in_child(run) == COMPLETE
            results[key] = result(run)
        return results[key]

    return of


def at(phase: Phase, nth: int, act: Callable[[], object]) -> None:
    """Act right before the nth ``phase`` of this process."""
    handler, seen = HANDLERS[phase], 0

    def probed(loop: Loop) -> Phase:
        nonlocal seen
        seen += 1
        if seen == nth:
            act()
        return handler(loop)

    HANDLERS[phase] = probed


class PausingFile:
    """Passes data on to a file, and pauses after each piece."""

    def __init__(self, file: Writable, pause: Callable[[], object]) -> None:
        self._file, self._pause = file, pause

    def write(self, data: bytes) -> int:
        written = self._file.write(data)
        self._pause()
        return written

    def flush(self) -> None:
        """Do nothing: the file is not buffered."""


def hold_first_write(
    then: Callable[[], object] = lambda: None, pause: Callable[[], object] = lambda: None
) -> threading.Event:
    """Keep the first checkpoint from being written until an event; act when it is durable."""
    go, save = threading.Event(), CheckpointStore.save

    def held(self: CheckpointStore, write: Callable[[Writable], None], **facts: Any) -> Any:
        CheckpointStore.save = save  # type: ignore[method-assign]
        assert go.wait(60)
        saved = save(self, lambda file: write(PausingFile(file, pause)), **facts)
        then()
        return saved

    CheckpointStore.save = held  # type: ignore[method-assign]
    return go


def limit_files(size: int) -> None:
    """Let writes beyond this file size fail, as on a full disk; -1: remove the limit."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most if size < 0 else size, most))


def unfinished_files(run: Path) -> list[Path]:
    return list((run / "checkpoints").glob(".*"))


def without_best(trained: dict[str, Any]) -> dict[str, Any]:
    """Return a result without its list of best checkpoints: a failed save is not in it."""
    trained = copy.deepcopy(trained)
    del trained["content"]["ranks"][0]["best"]
    return trained


# -- beside the training ---------------------------------------------------------------------------


def test_a_late_write_holds_the_state_at_its_cut(
    tmp_path: Path, whole: Callable[..., dict[str, Any]]
) -> None:
    """The training has moved on by two batches when the first byte is written; then it is killed."""
    run = make_run(tmp_path, base=HARD)

    def prepare() -> None:
        go = hold_first_write(then=lambda: os.kill(os.getpid(), signal.SIGKILL))
        at(Phase.TRAIN_BATCH_END, 10, go.set)
        at(Phase.TRAIN_BATCH_END, 11, lambda: time.sleep(60))

    assert in_child(run, prepare) == -signal.SIGKILL
    newest = CheckpointStore(run / "checkpoints", keep_last=1).newest_intact()
    assert newest is not None
    assert (newest.epoch, newest.step) == (0, 2)
    assert in_child(run) == COMPLETE
    assert difference(result(run), whole()) is None


def test_a_run_whose_jobs_are_killed_soon_after_each_save_gets_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each job is killed in the step after its first save, which takes longer than the step."""
    run = make_run(tmp_path, base=HARD)
    save, before = CheckpointStore.save, dict(HANDLERS)

    def slowly(self: CheckpointStore, *args: Any, **facts: Any) -> Any:
        time.sleep(3)
        return save(self, *args, **facts)

    monkeypatch.setattr(CheckpointStore, "save", slowly)  # in the jobs: forks of this process
    try:
        at(Phase.TRAIN_BATCH_OPTIM_STEP, 3, lambda: os.kill(os.getpid(), signal.SIGKILL))
        codes = [Job(run, MTF_RESTARTS=str(n)).end()[0] for n in range(3)]
    finally:
        HANDLERS.update(before)
    assert codes == [-signal.SIGKILL] * 3
    # the first job could not know that jobs are killed here
    assert events(run, "started")[2]["step"] > 0


@pytest.mark.parametrize(
    ("kinds", "unclean"),
    [
        (["started"], False),
        (["started", "checkpoint", "started"], True),
        (["started", "checkpoint", "stopped", "started", "proof"], False),
        (["started", "failed", "started"], False),
        (["started", "stopped", "started", "started"], True),
    ],
)
def test_an_end_is_unclean_if_the_journal_has_none(kinds: list[str], unclean: bool) -> None:
    assert last_end_was_unclean({"event": kind} for kind in kinds) is unclean


def test_a_training_killed_at_any_step_of_a_write_resumes_exactly(
    tmp_path: Path, whole: Callable[..., dict[str, Any]]
) -> None:
    for nth in range(1, 13):  # all of the background write's; the last write's are the same
        run = make_run(tmp_path, base=HARD, **ONE_EPOCH)
        assert in_child(run, partial(die_at_call, nth)) == -signal.SIGKILL
        assert in_child(run) == COMPLETE
        assert difference(result(run), whole(**ONE_EPOCH)) is None, nth


@pytest.mark.parametrize("stops_within", [True, False])
def test_a_stop_during_a_write_is_exact_if_the_write_is_finished_or_given_up(
    stops_within: bool,
    tmp_path: Path,
    whole: Callable[..., dict[str, Any]],
) -> None:
    run = make_run(tmp_path, base=HARD)

    def prepare() -> None:
        is_stopped = threading.Event()

        def pause() -> None:
            if stops_within and not STOP.requested:
                is_stopped.wait(60)

        go = hold_first_write(pause=pause)

        def stop() -> None:
            go.set()
            os.kill(os.getpid(), signal.SIGTERM)
            is_stopped.set()

        at(Phase.TRAIN_BATCH_END, 10, stop)

    assert in_child(run, prepare) == STOPPED
    assert not unfinished_files(run)
    newest = CheckpointStore(run / "checkpoints", keep_last=1).newest_intact()
    assert newest is not None
    assert events(run, "checkpoint")[-1]["sha256"] == newest.sha256
    assert in_child(run) == COMPLETE
    assert difference(result(run), whole()) is None


def test_the_best_checkpoint_is_kept_beside_the_newest(tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        base=HARD,
        training={"max_epochs": 6},
        checkpoint={"keep_last": 1, "every_n_steps": 1, "monitor": "train_loss", "mode": "max"},
    )
    assert in_child(run) == COMPLETE
    losses = {f["epoch"]: f["metrics"]["train_loss"] for f in events(run, "metrics")}
    epoch = max(losses, key=lambda e: losses[e])
    folder = run / "checkpoints"
    assert (folder / "best.ckpt").readlink().name.startswith(f"epoch_{epoch:03d}_")
    assert (folder / "latest.ckpt").readlink().name.startswith("epoch_006_")
    assert len(list(folder.glob("epoch_*.ckpt"))) == len({epoch, 6})


def test_there_is_no_best_checkpoint_with_keep_best_0(tmp_path: Path) -> None:
    run = make_run(tmp_path, base=HARD, checkpoint={"keep_best": 0})
    assert in_child(run) == COMPLETE
    assert not (run / "checkpoints" / "best.ckpt").is_symlink()


# -- a disk that fails -----------------------------------------------------------------------------


def test_a_training_goes_on_without_a_checkpoint_and_saves_the_next(
    tmp_path: Path, whole: Callable[..., dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    config = {**LARGE, "checkpoint": {"every_n_steps": 1}}
    run = make_run(tmp_path, base=HARD, **config)

    def prepare() -> None:
        limit_files(30_000)
        at(Phase.TRAIN_START_EPOCH, 2, lambda: limit_files(-1))

    assert in_child(run, prepare) == COMPLETE
    stderr = capfd.readouterr().err
    assert "could not save the checkpoint of epoch 0, step 1: File too large" in stderr
    assert f"{run / 'checkpoints'} (" in stderr
    assert "needed, " in stderr
    assert "free there" in stderr
    unsaved = events(run, "unsaved")
    assert unsaved[0]["step"] == 1
    assert stderr.count("could not save") == len(unsaved).bit_length() < len(unsaved)
    assert not unfinished_files(run)
    left, right = without_best(result(run)), without_best(whole(**config))
    assert difference(left, right) is None
    assert fold(rundir.read_journal(run), "/r").unsaved is None


def test_with_on_error_stop_a_failed_save_ends_the_training_and_names_the_newest_checkpoint(
    tmp_path: Path,
) -> None:
    run = make_run(
        tmp_path, base=HARD, **LARGE, checkpoint={"on_error": "stop", "every_n_steps": 1}
    )
    before = dict(HANDLERS)
    at(Phase.TRAIN_BATCH_OPTIM_STEP, 3, lambda: limit_files(30_000))  # in the job: a fork of this
    try:
        code, output = Job(run).end()
    finally:
        HANDLERS.update(before)
    assert code == STORAGE_EXIT_CODE
    assert "Traceback" not in output
    assert not events(run, "stopped")  # nobody asked for that
    (failed,) = events(run, "failed")
    assert (
        "checkpoint.on_error is stop: the newest checkpoint is epoch_000_step_" in failed["reason"]
    )
    assert in_child(run) == COMPLETE


def test_two_ranks_end_where_the_first_cannot_save(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoint = {"on_error": "stop", "every_n_steps": 1}
    ranks: dict[str, Any] = {"slurm": {"ntasks_per_node": 2}, "training": {"batch_size": 3}}
    run = make_run(tmp_path, base=HARD, **LARGE, checkpoint=checkpoint, **ranks)
    fail = partial(at, Phase.TRAIN_BATCH_OPTIM_STEP, 2, lambda: limit_files(30_000))
    codes = train_ranks(run, 2, {0: fail})
    assert set(codes) <= {1, -signal.SIGKILL}  # the first to end has the others killed
    assert "and checkpoint.on_error is stop" in capfd.readouterr().err
    assert not events(run, "stopped")


@pytest.mark.parametrize("on_error", ["continue", "stop"])
def test_a_result_that_is_not_durable_fails_the_run(on_error: str, tmp_path: Path) -> None:
    run = make_run(tmp_path, base=HARD, **LARGE, checkpoint={"on_error": on_error})
    assert in_child(run, lambda: at(Phase.EPOCH_END, 2, lambda: limit_files(30_000))) == 1
    newest = CheckpointStore(run / "checkpoints", keep_last=1).newest_intact()
    assert newest is not None
    assert newest.step < 6 or newest.epoch < 2
    assert in_child(run) == COMPLETE


def test_a_stop_that_cannot_be_saved_says_what_is_lost(
    tmp_path: Path, whole: Callable[..., dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, base=HARD, **LARGE)
    stop = signal_at(Phase.TRAIN_BATCH_END, 10, signal.SIGUSR1, after=False)

    def fail_from_here_on() -> None:
        wait_for(lambda: events(run, "checkpoint"))
        limit_files(30_000)

    def prepare() -> None:
        at(Phase.TRAIN_BATCH_END, 10, fail_from_here_on)
        stop()

    assert in_child(run, prepare) == STOPPED
    assert "stopped without saving: the newest checkpoint is" in capfd.readouterr().err
    assert in_child(run) == COMPLETE
    assert difference(result(run), whole(**LARGE)) is None


def test_a_vanished_checkpoints_folder_is_made_again(
    tmp_path: Path, whole: Callable[..., dict[str, Any]]
) -> None:
    run = make_run(tmp_path, base=HARD)
    remove = lambda: shutil.rmtree(run / "checkpoints", ignore_errors=True)  # noqa: E731
    assert in_child(run, lambda: at(Phase.TRAIN_START_EPOCH, 2, remove)) == COMPLETE
    left, right = without_best(result(run)), without_best(whole())
    assert difference(left, right) is None


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    mount = ("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a disk can only be mounted by root")
    try:
        yield
    finally:
        subprocess.run(("umount", str(folder)), check=True)


def test_a_disk_that_was_full_for_a_while_costs_only_checkpoints(
    tmp_path: Path, whole: Callable[..., dict[str, Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    """The whole run folder is on that disk, so journal and scalars cannot be written either."""
    with small_disk(tmp_path / "disk", "2m"):
        run = make_run(tmp_path / "disk", base=HARD)
        filler = tmp_path / "disk" / "filler"

        def fill() -> None:
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))

        def prepare() -> None:
            at(Phase.TRAIN_BATCH_LOAD, 2, fill)
            at(Phase.TRAIN_START_EPOCH, 2, filler.unlink)

        assert in_child(run, prepare) == COMPLETE
        stderr = capfd.readouterr().err
        assert "No space left on device" in stderr
        assert "0 bytes free there" in stderr
        left, right = without_best(result(run)), without_best(whole())
        assert difference(left, right) is None
        assert len(events(run, "metrics")) == 2


def test_a_read_only_disk_is_reported_and_the_last_good_checkpoint_stays(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, base=HARD)
    with small_disk(run / "checkpoints", "4m"):

        def read_only() -> None:
            wait_for(lambda: len(events(run, "checkpoint")) == 2)
            again = ("mount", "-o", "remount,ro", str(run / "checkpoints"))
            subprocess.run(again, check=True)

        assert in_child(run, lambda: at(Phase.TRAIN_START_EPOCH, 2, read_only)) == 1
        stderr = capfd.readouterr().err
        assert "Read-only file system" in stderr
        assert "the training is complete, but its last state is not durable" in stderr
        newest = CheckpointStore(run / "checkpoints", keep_last=1).newest_intact()
        assert newest is not None
        assert newest.epoch <= 1


# -- custom loops ----------------------------------------------------------------------------


def test_a_custom_loop_keeps_its_best_checkpoint_and_survives_a_disk_error(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path, base=HARD, checkpoint={"keep_last": 1})
    config = read_config(run)
    context = RunContext(config, run, build_fabric(config, {"MTF_CPUS": "1"}))
    for epoch, loss in ((1, 0.5), (2, 0.1), (3, 0.3), (4, float("nan"))):
        context.log(epoch, epoch, {"val_loss": loss})
        context.checkpoint({"epoch": epoch}, epoch, epoch)
    folder = run / "checkpoints"
    assert (folder / "best.ckpt").readlink().name == "epoch_002_step_000002.ckpt"
    assert len(list(folder.glob("epoch*.ckpt"))) == 2
    limit_files(30_000)
    try:
        context.checkpoint({"epoch": 5, "weights": torch.zeros(100_000)}, 5, 5)
    finally:
        limit_files(-1)
    assert events(run, "unsaved")[0]["step"] == 5
    assert context.resume() == {"epoch": 4}


def test_a_custom_loop_gets_its_values_back_as_they_were(tmp_path: Path) -> None:
    run = make_run(tmp_path, base=HARD)
    config = read_config(run)
    context = RunContext(config, run, build_fabric(config, {"MTF_CPUS": "1"}))
    context.checkpoint({"rate": np.float32(0.1), "seen": deque([1], maxlen=2)}, 1, 1)
    with pytest.raises(MtfError, match="scores/1 is of type object, which no resume could read"):
        context.checkpoint({"scores": [1, object()]}, 2, 2)
    saved = context.resume()
    assert saved == {"rate": np.float32(0.1), "seen": deque([1])}
    assert type(saved["rate"]) is np.float32
    assert saved["seen"].maxlen == 2
    assert len(events(run, "checkpoint")) == 1
