"""Rows in scalars.jsonl, and mirrors of them in W&B, TensorBoard and CSV that never fail a run."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mtf.core.scalar_rows import row_values
from mtf.trainer.job.run_job import read_config
from mtf.trainer.loop.loop import HANDLERS
from mtf.trainer.loop.phases import Phase
from mtf.trainer.runtime import start_claim
from mtf.trainer.runtime.signals import STOP
from mtf.trainer.storage.scalars import Scalars
from mtf.trainer.tracking import wandb_mirror
from mtf.trainer.tracking.file_mirrors import CSVMirror, TensorBoardMirror
from mtf.trainer.tracking.mirrors import Mirrors, TrainingEnd
from mtf.trainer.tracking.wandb_mirror import WandbMirror
from tests.trainer.hard_training import COMPLETE, HARD, STOPPED, in_child, signal_at
from tests.trainer.runs import make_run
from tests.trainer.wandb_file import history
from tests.trainer.wandb_server import WandbServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.loop.loop import Loop

KILL = signal.SIGKILL


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "scalars.jsonl").read_text().splitlines()]


# -- scalars.jsonl --------------------------------------------------------------------------------


def test_a_resume_cuts_off_rows_after_its_checkpoint(tmp_path: Path) -> None:
    scalars = Scalars(tmp_path)
    scalars.append({"step": 1, "train_loss": 0.5})
    size = scalars.durable_size()
    scalars.append({"step": 2, "train_loss": 0.4})
    scalars.close()
    again = Scalars(tmp_path)
    again.cut_to(size)
    again.append({"step": 2, "train_loss": 0.3})
    again.close()
    assert rows(tmp_path) == [
        {"step": 1, "train_loss": 0.5},
        {"step": 2, "train_loss": 0.3},
    ]


def test_lost_rows_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scalars = Scalars(tmp_path)
    scalars.cut_to(100)
    scalars.close()
    assert (
        "scalars.jsonl has lost rows: it has 0 bytes instead of at least 100"
        in capsys.readouterr().err
    )
    assert (tmp_path / "scalars.jsonl").read_bytes() == b""


def test_every_step_is_logged_once_with_a_kill_and_a_stop_in_between(tmp_path: Path) -> None:
    run = make_run(tmp_path, base=HARD)
    for phase, nth, signum in (
        (Phase.TRAIN_BATCH_END, 7, KILL),
        (Phase.VAL_BATCH_LOAD, 2, signal.SIGUSR1),
    ):
        assert in_child(run, signal_at(phase, nth, signum, after=True)) in (STOPPED, -signum)
    assert in_child(run) == COMPLETE
    logged = rows(run)
    assert [row["step"] for row in logged if "lr" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["epoch"] for row in logged if "val_loss" in row] == [1, 2]
    assert set(logged[3]) == {"epoch", "step", "train_loss", "val_loss", "val_accuracy"}


def test_mirrors_distinguish_the_losses_of_steps_and_epochs() -> None:
    step = row_values({"epoch": 0, "step": 3, "train_loss": 0.5, "lr": 0.1})
    assert step.numbers == {"epoch": 0, "train_loss": 0.5, "lr": 0.1}
    epoch = row_values({"epoch": 1, "step": 3, "train_loss": 0.6, "val_loss": 0.4})
    assert epoch.numbers == {"epoch": 1, "train_loss_epoch": 0.6, "val_loss": 0.4}


# -- Weights & Biases ------------------------------------------------------------------------------


def mirrored(run: Path, count: int) -> list[dict[str, Any]]:
    """Return the rows in the offline folders, like those of scalars.jsonl; check their numbers."""
    found = history(run, count)
    assert [row.pop("_step") for row in found] == list(range(len(found)))
    return [{k: v for k, v in row.items() if not k.startswith("_")} for row in found]


def as_mirrored(run: Path) -> list[dict[str, Any]]:
    return [{"step": row["step"], **row_values(row).numbers} for row in rows(run)]


@pytest.fixture
def config(tmp_path: Path) -> ExperimentConfig:
    logging = {"use_wandb": True, "wandb_project": "p"}
    return read_config(make_run(tmp_path, base=HARD, logging=logging))


def test_without_a_key_wandb_stays_offline_with_one_run_id(
    config: ExperimentConfig, tmp_path: Path
) -> None:
    for _ in range(2):
        mirrors = Mirrors([WandbMirror(config, tmp_path)])
        mirrors.open([{"step": 1, "train_loss": 0.5, "lr": 0.1}])
        mirrors.close(TrainingEnd(complete=True))
    files = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert [path.name for path in files] == [f"run-{wandb_mirror.run_id(config.mtf.run)}.wandb"]


@pytest.fixture
def silent_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that takes connections and never answers; wandb is pointed at it, with a key."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        yield url


def test_a_server_that_does_not_answer_is_reported_and_rows_stay_in_the_run_folder(
    config: ExperimentConfig,
    tmp_path: Path,
    silent_server: str,
    capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wandb_mirror, "REACH_S", 0.2)
    mirrors = Mirrors([WandbMirror(config, tmp_path)])
    mirrors.open([{"step": 1, "train_loss": 0.5, "lr": 0.1}])
    mirrors.close(TrainingEnd(complete=True))
    assert f"no answer from {silent_server}" in capsys.readouterr().err
    assert [row["train_loss"] for row in mirrored(tmp_path, 1)] == [0.5]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """A server that the client in this test talks to, with a key."""
    server = WandbServer()
    monkeypatch.setenv("WANDB_BASE_URL", server.url)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    yield server
    server.close()


def test_online_wandb_gets_every_row_once_with_a_kill_and_a_stop_in_between(
    server: WandbServer, tmp_path: Path
) -> None:
    logging = {"use_wandb": True, "log_scalars_every_n_steps": 1}
    run = make_run(tmp_path, base=HARD, logging=logging)
    kill = signal_at(Phase.EPOCH_END, 1, KILL, after=True)  # some rows may have been sent
    assert in_child(run, kill) == -KILL
    stop = signal_at(Phase.VAL_BATCH_LOAD, 2, signal.SIGUSR1, after=True)
    assert in_child(run, stop) == STOPPED
    assert [row["step"] for _, row in sorted(server.rows.items())] == [1, 2, 3]
    assert in_child(run) == COMPLETE
    sent = [row for _, row in sorted(server.rows.items())]
    assert [row.pop("_step") for row in sent] == list(range(8)) == sorted(server.rows)
    shown = [{k: v for k, v in row.items() if not k.startswith("_")} for row in sent]
    assert shown == as_mirrored(run)


def test_offline_wandb_gets_every_row_once_from_several_syncs(
    server: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    logging = {"use_wandb": True, "wandb_project": "p", "log_scalars_every_n_steps": 1}
    run = make_run(tmp_path, base=HARD, logging=logging)
    kill = signal_at(Phase.EPOCH_END, 1, KILL, after=True)  # with rows ahead of the checkpoint
    assert in_child(run, kill) == -KILL
    stop = signal_at(
        Phase.VAL_BATCH_LOAD, 2, signal.SIGUSR1, after=True
    )  # between the rows of a step
    assert in_child(run, stop) == STOPPED
    assert mirrored(run, 3) == as_mirrored(run)
    wandb_sync(run)
    assert in_child(run) == COMPLETE
    assert mirrored(run, 8) == as_mirrored(run)
    wandb_sync(run)
    sent = [row for _, row in sorted(server.rows.items())]
    assert [row["_step"] for row in sent] == list(range(8))
    assert [row["step"] for row in sent] == [row["step"] for row in rows(run)]


def wandb_sync(run: Path) -> None:
    """Run `wandb sync`, as a person does on a machine with a network."""
    (folder,) = (run / "wandb").glob("offline-run-*")
    env = {**os.environ, "WANDB_MODE": "online", "WANDB_ERROR_REPORTING": "false"}
    command = [sys.executable, "-m", "wandb", "sync", str(folder)]
    subprocess.run(command, cwd=run, env=env, check=True, capture_output=True)


class FakeRun:
    """Stands in for a wandb run."""

    def __init__(self, *, resumed_at: int | None = None, hangs: bool = False) -> None:
        self.resumed, self.step, self.hangs = resumed_at is not None, resumed_at or 0, hangs
        self.id, self.dir = "id", "/nowhere/files"
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.ended: list[Any] = []

    def define_metric(self, name: str, step_metric: str) -> None:
        assert (name, step_metric) == ("*", "step")

    def log(self, values: dict[str, Any], step: int, commit: bool | None = None) -> None:
        self.logged.append((step, values))

    def mark_preempting(self) -> None:
        self.ended.append("preempting")

    def finish(self, exit_code: int | None = None) -> None:
        self.ended.append(exit_code)
        if self.hangs:
            time.sleep(30)


STEP_1 = {"epoch": 0, "step": 1, "train_loss": 0.5, "lr": 0.1}
EPOCH_1 = {"epoch": 1, "step": 1, "train_loss": 0.5, "val_loss": 0.4}
STEP_2 = {"epoch": 1, "step": 2, "train_loss": 0.3, "lr": 0.1}


def test_a_resumed_online_run_gets_the_missing_rows_only(
    config: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the stop came between two rows of one step; the server has the first
    fake = FakeRun(resumed_at=1)
    mirror = WandbMirror(config, tmp_path)
    monkeypatch.setattr(mirror, "_start_run", lambda: fake)
    mirrors = Mirrors([mirror])
    mirrors.open([STEP_1])
    mirrors.show(EPOCH_1)
    mirrors.show(STEP_2)
    assert [step for step, _ in fake.logged] == [1, 2]
    assert fake.logged[0][1] == {"step": 1, "epoch": 1, "train_loss_epoch": 0.5, "val_loss": 0.4}
    mirrors.close(TrainingEnd(complete=False, stopped=True))
    assert fake.ended == ["preempting", 1]


def test_a_given_run_gets_each_row_at_its_step(config: ExperimentConfig, tmp_path: Path) -> None:
    fake = FakeRun()
    mirrors = Mirrors([WandbMirror(config, tmp_path, fake)])
    mirrors.open([])
    mirrors.show(STEP_1)
    mirrors.show(STEP_2)
    mirrors.close(TrainingEnd(complete=True))
    assert [(step, values["train_loss"]) for step, values in fake.logged] == [(1, 0.5), (2, 0.3)]
    assert fake.ended == []  # who opened it finishes it


def test_a_stop_does_not_wait_for_the_network(
    config: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(wandb_mirror, "STOP_S", 0.1)
    monkeypatch.setattr(STOP, "requested", True)
    mirror = WandbMirror(config, tmp_path)
    monkeypatch.setattr(mirror, "_start_run", lambda: FakeRun(hangs=True))
    mirrors = Mirrors([mirror])
    mirrors.open([])
    start = time.monotonic()
    mirrors.close(TrainingEnd(complete=True))  # complete, but asked to stop during the upload
    assert time.monotonic() - start < 20
    assert "wandb: sending the last rows takes too long" in capsys.readouterr().err


def test_a_hanging_wandb_service_does_not_delay_the_end_of_a_job(tmp_path: Path) -> None:
    """At the exit of a program, wandb waits for its service process, which is stopped here."""
    code = """
import os, signal, sys
from pathlib import Path
from mtf.trainer.tracking import wandb_mirror
from mtf.trainer.job.run_job import read_config
from mtf.trainer.tracking.mirrors import TrainingEnd
run = Path(sys.argv[1])
wandb_mirror.FINISH_S = 0.5
mirror = wandb_mirror.WandbMirror(read_config(run), run)
mirror.open()
(service,) = wandb_mirror.service_pids()
os.kill(service, signal.SIGSTOP)
mirror.close(TrainingEnd(complete=True))
"""
    run = make_run(tmp_path, base=HARD, logging={"use_wandb": True})
    command = [sys.executable, "-c", code, str(run)]
    env = {**os.environ, "WANDB_MODE": "offline"}
    ended = subprocess.Popen(command, env=env, text=True, stderr=subprocess.PIPE)
    try:
        _, err = ended.communicate(timeout=120)
    finally:
        ended.kill()
    assert ended.returncode == 0
    assert "wandb: sending the last rows takes too long" in err
    assert "Traceback" not in err


def test_a_failing_mirror_is_reported_once_and_others_continue(
    config: ExperimentConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full(FakeRun):
        def log(self, *_: Any, **__: Any) -> None:
            super().log({}, 0)
            raise OSError("no space left")

    class Gone(FakeRun):
        def finish(self, exit_code: int | None = None) -> None:
            raise RuntimeError("no network")

    full, gone = Full(), Gone()
    both = WandbMirror(config, tmp_path), WandbMirror(config, tmp_path)
    monkeypatch.setattr(both[0], "_start_run", lambda: full)
    monkeypatch.setattr(both[1], "_start_run", lambda: gone)
    mirrors = Mirrors(both)
    mirrors.open([])
    mirrors.show(STEP_1)
    mirrors.show(STEP_2)
    mirrors.close(TrainingEnd(complete=True))
    assert (len(full.logged), len(gone.logged)) == (1, 2)
    stderr = capsys.readouterr().err
    assert stderr.count("wandb: OSError: no space left. Training continues") == 1
    assert "wandb: RuntimeError: no network" in stderr


def test_a_mirror_of_a_process_that_is_shut_out_does_not_say_that_training_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start = start_claim.Start("t", "1", restarts=0, world_size=1)
    monkeypatch.setattr(start_claim, "_own", [start_claim.take(tmp_path, start, 0)])
    mirrors = Mirrors([CSVMirror(tmp_path)])
    mirrors.open([])
    mirrors.show(STEP_1)
    saved = (tmp_path / "csv/metrics.csv").read_bytes()
    start_claim.take(tmp_path, replace(start, restarts=1), 0)
    mirrors.show(STEP_2)
    mirrors.close(TrainingEnd(complete=False))
    assert (tmp_path / "csv/metrics.csv").read_bytes() == saved
    assert "Training continues" not in capsys.readouterr().err


def test_a_missing_wandb_is_reported(
    config: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    Mirrors([WandbMirror(config, tmp_path)]).open([])
    assert "wandb: ModuleNotFoundError" in capsys.readouterr().err


# -- TensorBoard and CSV ---------------------------------------------------------------------------


def interrupted(run: Path) -> None:
    """Train to the end, with a kill and a stop in between."""
    assert in_child(run, signal_at(Phase.EPOCH_END, 1, KILL, after=True)) == -KILL
    stop = signal_at(Phase.VAL_BATCH_LOAD, 2, signal.SIGUSR1, after=True)
    assert in_child(run, stop) == STOPPED
    assert in_child(run) == COMPLETE


def events_of(run: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: dict[str, list[tuple[int, float]]] = {}
    for path in (run / "tensorboard").glob("events.*"):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                number = value.tensor.float_val[0] if value.tensor.float_val else math.nan
                found.setdefault(value.tag, []).append((event.step, number))
    return found


def test_tensorboard_and_csv_have_every_row_once(tmp_path: Path) -> None:
    logging = {"tensorboard": True, "csv": True, "log_scalars_every_n_steps": 1}
    run = make_run(tmp_path, base=HARD, logging=logging)
    interrupted(run)
    expected = rows(run)
    losses = [(row["step"], row["train_loss"]) for row in expected if "lr" in row]
    events = events_of(run)
    assert [step for step, _ in events["train_loss"]] == [step for step, _ in losses]
    assert [loss for _, loss in events["train_loss"]] == pytest.approx([loss for _, loss in losses])
    assert [step for step, _ in events["val_loss"]] == [3, 6]
    header, *lines = (run / "csv" / "metrics.csv").read_text().splitlines()
    table = [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]
    assert [(int(row["step"]), row["val_loss"] != "") for row in table] == [
        (row["step"], "val_loss" in row) for row in expected
    ]
    assert [float(row["train_loss"]) for row in table if row["train_loss"]] == [
        loss for _, loss in losses
    ]


def test_a_missing_tensorboard_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda *_: None)
    run = make_run(tmp_path, base=HARD)
    Mirrors([TensorBoardMirror(run)]).open([STEP_1])
    assert capfd.readouterr().err == (
        "mtf: tensorboard: not installed: pip install tensorboard. Training continues;"
        " scalars.jsonl has all rows\n"
    )


def test_closing_mirrors_that_were_never_opened_does_nothing(
    config: ExperimentConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = (WandbMirror(config, tmp_path), TensorBoardMirror(tmp_path), CSVMirror(tmp_path))
    Mirrors(kinds).close(TrainingEnd(complete=False))
    assert capsys.readouterr().err == ""


def test_no_mirror_is_imported_or_written_unless_configured(tmp_path: Path) -> None:
    run = make_run(tmp_path, base=HARD)
    rarely_needed = {"wandb", "tensorboard", "rich", "PIL"}

    def unimport_now_and_check_at_epoch_ends() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] in rarely_needed]:
            del sys.modules[name]
        handler = HANDLERS[Phase.EPOCH_END]

        def checking(loop: Loop) -> Phase:
            assert not rarely_needed & set(sys.modules)
            return handler(loop)

        HANDLERS[Phase.EPOCH_END] = checking

    assert in_child(run, unimport_now_and_check_at_epoch_ends) == COMPLETE
    assert not {"wandb", "tensorboard", "csv", "images"} & {path.name for path in run.iterdir()}
