"""A run may begin from another one's checkpoint, verified; afterwards it is on its own."""

from __future__ import annotations

import hashlib
import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mtf import rundir
from mtf.trainer.checkpoint import CheckpointStore
from mtf.trainer.phases import Phase
from tests.trainer.nasty import COMPLETE, NASTY, STOPPED, difference, in_child, result, signal_at
from tests.trainer.runs import events, make_run, read_config

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("source"), base=NASTY)
    assert in_child(run) == COMPLETE
    return run


def begin(tmp_path: Path, source: Path, asked: dict[str, Any], **changes: Any) -> Path:
    """Return a run whose origin was resolved to the newest checkpoint of another one."""
    run = make_run(tmp_path, base=NASTY, init_from={"run": "source", **asked}, **changes)
    newest = CheckpointStore(source / "checkpoints", keep_last=1).newest_intact()
    assert newest is not None
    config = read_config(run)
    config["mtf"]["origin"] = {
        "run": "source", "path": str(newest.path), "sha256": newest.sha256, "step": newest.step,
    }  # fmt: skip
    (run / rundir.CONFIG).write_text(rundir.render_yaml(config))
    return run


NO_STEP = {"optimizer": {"type": "sgd", "lr": 1e-30, "weight_decay": 0.0}, "scheduler": None}


def test_a_run_begins_with_the_weights_of_another(tmp_path: Path, source: Path) -> None:
    run = begin(tmp_path, source, {}, **NO_STEP, training={"seed": 5})
    assert in_child(run) == COMPLETE
    left, right = result(run)["content"], result(source)["content"]
    assert torch.equal(left["model"]["layers.0.weight"], right["model"]["layers.0.weight"])
    assert left["ranks"][0]["epoch"] == 2  # its own count
    (fact,) = events(run, "initialised")
    assert (fact["run"], fact["load"]) == ("source", "weights")


def test_a_resume_looks_at_the_runs_own_checkpoint_alone(tmp_path: Path, source: Path) -> None:
    whole = begin(tmp_path, source, {})
    assert in_child(whole) == COMPLETE
    run = begin(tmp_path, source, {})
    stop = signal_at(Phase.TRAIN_BATCH_LOAD, 9, signal.SIGUSR1, after=False)
    assert in_child(run, stop) == STOPPED
    config = read_config(run)
    config["mtf"]["origin"]["path"] = "/gone"
    (run / rundir.CONFIG).write_text(rundir.render_yaml(config))
    assert in_child(run) == COMPLETE
    assert difference(result(run), result(whole)) is None


def test_all_of_a_training_goes_on_where_it_ended(tmp_path: Path, source: Path) -> None:
    """Bit for bit what a training of as many epochs would have been, where nothing has a length."""
    plain = {"scheduler": {"type": "exponential", "gamma": 0.5}}
    short = make_run(tmp_path, base=NASTY, **plain)
    long = make_run(tmp_path, base=NASTY, **plain, training={"max_epochs": 4})
    assert in_child(short) == in_child(long) == COMPLETE
    run = begin(tmp_path, short, {"load": "all"}, **plain, training={"max_epochs": 4})
    assert in_child(run) == COMPLETE
    left, right = result(run)["content"], result(long)["content"]
    assert difference(left["model"], right["model"]) is None
    assert difference(left["optimizers"], right["optimizers"]) is None
    assert difference(left["schedulers"], right["schedulers"]) is None
    assert [fact["epoch"] for fact in events(run, "metrics")] == [3, 4]
    assert result(run)["scalars"] == result(long)["scalars"][len(result(short)["scalars"]) :]
    del source


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"hidden_size": 9}}, "layers.0.weight: [8, 6] in the checkpoint, [9, 6] in"),
        ({"model": {"hidden_size": 9}}, "init_from.strict: false takes those that fit"),
        ({"init_from": {"load": "all"}}, "has trained for 2 epochs, and training.max_epochs is 2"),
        (
            {"init_from": {"load": "all"}, "model": {"hidden_size": 9}},
            "the checkpoint is of another model",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_the_first_step(
    changes: dict[str, Any],
    message: str,
    tmp_path: Path,
    source: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    asked = changes.get("init_from", {})
    run = begin(tmp_path, source, asked, **{k: v for k, v in changes.items() if k != "init_from"})
    assert in_child(run) == 1
    assert message in capfd.readouterr().err
    assert not events(run, "checkpoint")


def test_weights_that_fit_can_be_taken_alone(
    tmp_path: Path, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = begin(
        tmp_path, source, {"strict": False}, **NO_STEP, model={"type": "tests.trainer.nasty:Wider"}
    )
    assert in_child(run) == COMPLETE
    said = capfd.readouterr().err
    assert "init_from: 11 weights are taken; not in the checkpoint: head.weight, head.bias" in said
    left, right = result(run)["content"]["model"], result(source)["content"]["model"]
    assert torch.equal(left["layers.0.weight"], right["layers.0.weight"])


@pytest.mark.parametrize("harm", ["gone", "changed"])
def test_a_checkpoint_that_is_not_what_was_recorded_is_refused(
    harm: str, tmp_path: Path, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = begin(tmp_path, source, {})
    config = read_config(run)
    copied = tmp_path / "copy.ckpt"
    raw = bytearray((source / "checkpoints" / "latest.ckpt").read_bytes())
    raw[100] ^= 1
    if harm == "changed":
        copied.write_bytes(raw)
    config["mtf"]["origin"]["path"] = str(copied)
    (run / rundir.CONFIG).write_text(rundir.render_yaml(config))
    assert in_child(run) == 1
    expected = {
        "gone": "the checkpoint of source cannot be read",
        "changed": f"its sha256 is {hashlib.sha256(raw).hexdigest()[:12]}...",
    }
    assert expected[harm] in capfd.readouterr().err
