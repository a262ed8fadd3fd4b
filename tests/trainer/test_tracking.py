"""The JSON lines are the truth; Weights & Biases mirrors them and can never fail a training."""

from __future__ import annotations

import json
import signal
import sys
from typing import TYPE_CHECKING, Any

from mtf.trainer.job import read_config
from mtf.trainer.phases import Phase
from mtf.trainer.tracking import Mirror, Scalars, open_wandb
from tests.trainer.nasty import COMPLETE, NASTY, STOPPED, in_child, signal_at
from tests.trainer.runs import make_run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "scalars.jsonl").read_text().splitlines()]


def test_a_resume_cuts_off_what_was_ahead_of_its_checkpoint(tmp_path: Path) -> None:
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


def test_lost_rows_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scalars = Scalars(tmp_path)
    scalars.cut_to(100)
    scalars.close()
    assert "scalars.jsonl has lost rows: 0 bytes of at least 100" in capsys.readouterr().err
    assert (tmp_path / "scalars.jsonl").read_bytes() == b""


def test_every_step_is_logged_once_whatever_came_between(tmp_path: Path) -> None:
    run = make_run(tmp_path, base=NASTY)
    for phase, nth, signum in (
        (Phase.TRAIN_BATCH_END, 7, signal.SIGKILL),
        (Phase.VAL_BATCH_LOAD, 2, signal.SIGUSR1),
    ):
        assert in_child(run, signal_at(phase, nth, signum, after=True)) in (STOPPED, -signum)
    assert in_child(run) == COMPLETE
    logged = rows(run)
    assert [row["step"] for row in logged if "lr" in row] == [1, 2, 3, 4, 5, 6]
    assert [row["epoch"] for row in logged if "val_loss" in row] == [1, 2]
    assert set(logged[3]) == {"epoch", "step", "train_loss", "val_loss", "val_accuracy"}


class Failing:
    """A run on Weights & Biases whose disk is full."""

    def __init__(self) -> None:
        self.calls = 0

    def log(self, *_: object, **__: object) -> None:
        self.calls += 1
        raise OSError("no space left")

    def finish(self, **_: object) -> None:
        raise RuntimeError("no network")


def test_a_failing_mirror_is_said_once_and_given_up(capsys: pytest.CaptureFixture[str]) -> None:
    failing = Failing()
    mirror = Mirror(failing)
    mirror.log({"step": 1, "train_loss": 0.5})
    mirror.log({"step": 2, "train_loss": 0.5})
    mirror.finish()
    assert failing.calls == 1
    assert "wandb: OSError: no space left. The training goes on" in capsys.readouterr().err
    Mirror(Failing()).finish()
    assert "wandb: RuntimeError: no network" in capsys.readouterr().err


def test_a_wandb_that_cannot_start_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = read_config(make_run(tmp_path, logging={"use_wandb": True}))
    monkeypatch.setitem(sys.modules, "wandb", None)  # as where it is not installed
    assert open_wandb(config, tmp_path) is None
    assert "wandb: ModuleNotFoundError" in capsys.readouterr().err


def test_nothing_is_opened_unless_asked_for(tmp_path: Path) -> None:
    assert open_wandb(read_config(make_run(tmp_path)), tmp_path) is None
    assert "wandb" not in sys.modules or not (tmp_path / "wandb").exists()


def test_without_a_key_the_mirror_stays_in_the_run_folder_under_one_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_MODE")  # what the tests are sealed with
    changes = {"logging": {"use_wandb": True, "wandb_project": "p"}, "data": {"val_split": None}}
    run = make_run(tmp_path, base=NASTY, **changes)
    config = read_config(run)
    ids = []
    for _ in range(2):
        opened = open_wandb(config, run)
        assert opened is not None
        ids.append(opened.id)
        Mirror(opened).log({"step": 1, "train_loss": 0.5})
        Mirror(opened).finish()
    assert ids[0] == ids[1]
    assert list((run / "wandb").glob(f"offline-run-*/run-{ids[0]}.wandb"))
