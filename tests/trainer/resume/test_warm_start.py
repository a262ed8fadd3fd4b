"""A run may begin from another run's verified checkpoint; later it resumes from its own."""

from __future__ import annotations

import hashlib
import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mtf import rundir
from mtf.trainer.loop.phases import Phase
from mtf.trainer.storage.checkpoint_store import CheckpointStore
from tests.trainer.hard_training import (
    COMPLETE,
    HARD,
    STOPPED,
    difference,
    in_child,
    result,
    signal_at,
)
from tests.trainer.runs import Job, events, make_run, read_config

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("source"), base=HARD)
    assert in_child(run) == COMPLETE
    return run


def begin(
    tmp_path: Path,
    source: Path,
    asked: dict[str, Any],
    files: dict[str, str] | None = None,
    **changes: Any,
) -> Path:
    """Return a run whose origin is the newest checkpoint of the run ``source``."""
    run = make_run(tmp_path, files, HARD, init_from={"run": "source", **asked}, **changes)
    newest = CheckpointStore(source / "checkpoints", keep_last=1).newest_intact()
    assert newest is not None
    config = read_config(run)
    config["mtf"]["origin"] = {
        "run": "source",
        "path": str(newest.path),
        "sha256": newest.sha256,
        "step": newest.step,
    }
    (run / rundir.CONFIG).write_text(rundir.render_yaml(config))
    return run


NO_STEP: dict[str, Any] = {
    "optimizer": {"type": "sgd", "lr": 1e-30, "weight_decay": 0.0},
    "scheduler": None,
}


def test_a_run_starts_with_the_weights_of_another(tmp_path: Path, source: Path) -> None:
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


def test_load_all_continues_where_the_other_training_ended(tmp_path: Path, source: Path) -> None:
    """The result is that of one longer training, unless a schedule depends on the length."""
    plain: dict[str, Any] = {"scheduler": {"type": "exponential", "gamma": 0.5}}
    short = make_run(tmp_path, base=HARD, **plain)
    long = make_run(tmp_path, base=HARD, **plain, training={"max_epochs": 4})
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


LONGER = {"training": {"max_epochs": 4}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"hidden_size": 9}}, "layers.0.weight: [8, 6] in the checkpoint, [9, 6] in"),
        ({"model": {"hidden_size": 9}}, "Set init_from.strict: false to load those that fit"),
        ({"init_from": {"load": "all"}}, "has trained for 2 epochs, and training.max_epochs is 2"),
        (
            {"init_from": {"load": "all"}, "model": {"hidden_size": 9}, **LONGER},
            "the checkpoint is of another model",
        ),
        (
            {"init_from": {"load": "all"}, "optimizer": {"type": "sgd"}, **LONGER},
            "the checkpoint is of another optimizer than SGD: it has amsgrad, betas,",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_before_the_first_step(
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


def test_with_strict_false_only_the_weights_that_fit_are_loaded(
    tmp_path: Path, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = begin(
        tmp_path,
        source,
        {"strict": False},
        **NO_STEP,
        model={"type": "tests.trainer.hard_training:Wider"},
    )
    assert in_child(run) == COMPLETE
    stderr = capfd.readouterr().err
    assert (
        "init_from: 11 weights are loaded; not in the checkpoint: head.weight, head.bias" in stderr
    )
    left, right = result(run)["content"]["model"], result(source)["content"]["model"]
    assert torch.equal(left["layers.0.weight"], right["layers.0.weight"])
    left_out = events(run, "initialised")[0]["left_out"]
    assert left_out == "not in the checkpoint: head.weight, head.bias"


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


def rates(run: Path) -> dict[int, float]:
    """Return the learning rate of each step."""
    rows = map(json.loads, (run / "scalars.jsonl").read_text().splitlines())
    return {row["step"]: row["lr"] for row in rows if "lr" in row}


@pytest.mark.parametrize("scheduler", ["cosine", "onecycle", "multistep", "warm_restarts"])
def test_a_longer_training_follows_its_own_schedule_from_the_step_it_starts_at(
    scheduler: str, tmp_path: Path
) -> None:
    """The shorter training's cosine has ended at a rate of 0, and would stay at 0."""
    plan: dict[str, Any] = {"scheduler": {"type": scheduler}}
    short = make_run(tmp_path, base=HARD, **plan)
    long = make_run(tmp_path, base=HARD, **plan, training={"max_epochs": 4})
    assert in_child(short) == in_child(long) == COMPLETE
    run = begin(tmp_path, short, {"load": "all"}, **plan, training={"max_epochs": 4})
    assert in_child(run) == COMPLETE
    assert rates(run) == {step: rate for step, rate in rates(long).items() if step > 6}


def test_a_warm_start_continues_a_plateaus_history_with_its_own_settings(tmp_path: Path) -> None:
    plan: dict[str, Any] = {
        "scheduler": {"type": "plateau", "patience": 0, "factor": 0.5, "threshold": 9.0}
    }
    short = make_run(tmp_path, base=HARD, **plan)  # no epoch is good enough
    assert in_child(short) == COMPLETE
    plan["scheduler"]["factor"] = 0.1
    run = begin(tmp_path, short, {"load": "all"}, **plan, training={"max_epochs": 4})
    assert in_child(run) == COMPLETE
    assert rates(run) == {7: 2.5e-3, 8: 2.5e-3, 9: 2.5e-3, 10: 2.5e-4, 11: 2.5e-4, 12: 2.5e-4}


def test_a_warm_start_uses_its_own_settings(tmp_path: Path, source: Path) -> None:
    changes: dict[str, Any] = {"optimizer": {"lr": 3e-4, "weight_decay": 0.5}, "scheduler": None}
    run = begin(tmp_path, source, {"load": "all"}, **changes, training={"max_epochs": 3})
    assert in_child(run) == COMPLETE
    assert set(rates(run).values()) == {3e-4}
    content = result(run)["content"]
    (group,) = content["optimizers"]["optimizer"]["param_groups"]
    assert group["weight_decay"] == 0.5
    steps = {int(state["step"]) for state in content["optimizers"]["optimizer"]["state"].values()}
    assert steps == {
        9
    }  # the optimizer's state goes on: 6 steps in the first training, 3 in this one


def test_a_new_average_starts_from_the_loaded_weights(tmp_path: Path, source: Path) -> None:
    changes: dict[str, Any] = {
        "callbacks": {"ema": {"decay": 0.9999999}},
        "training": {"max_epochs": 3},
    }
    run = begin(tmp_path, source, {"load": "all"}, **changes)
    assert in_child(run) == COMPLETE
    average = result(run)["content"]["callbacks"]["ema"]
    loaded = result(source)["content"]["model"]["layers.0.weight"]
    (weight,) = (v for k, v in _flat(average) if k.endswith("layers.0.weight"))
    assert torch.allclose(weight, loaded, atol=1e-5)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}")
    else:
        yield name, value


def test_a_run_whose_origin_was_not_looked_up_does_not_start(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, base=HARD, init_from={"run": "source"})
    assert in_child(run) == 1
    assert "init_from: source was not looked up" in capfd.readouterr().err


def test_a_training_that_stopped_inside_an_epoch_continues_only_with_the_same_batches(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole, short = make_run(tmp_path, base=HARD), make_run(tmp_path, base=HARD)
    assert in_child(whole) == COMPLETE
    stop = signal_at(Phase.TRAIN_BATCH_LOAD, 15, signal.SIGUSR1, after=False)  # in epoch 2
    assert in_child(short, stop) == STOPPED
    other = begin(tmp_path, short, {"load": "all"}, training={"batch_size": 5})
    assert in_child(other) == 1
    stderr = capfd.readouterr().err
    assert "stopped inside epoch 2, and the rest of that epoch needs the same batches" in stderr
    assert "training.batch_size was 4 and is 5" in stderr
    same = begin(tmp_path, short, {"load": "all"}, optimizer={"lr": 1e-2})
    assert in_child(same) == COMPLETE
    left, right = result(same)["content"], result(whole)["content"]
    assert difference(left["model"], right["model"]) is None
    assert difference(left["optimizers"], right["optimizers"]) is None


LOOP = """
import torch

def main(run):
    saved = run.resume() or run.origin()
    model = torch.nn.Linear(6, 8)
    layers = {k.removeprefix("layers.0."): v for k, v in saved["model"].items() if "layers.0." in k}
    model.load_state_dict(layers)
    run.log(1, 1, {"sum": float(model.weight.double().sum())})
"""


def test_an_entry_point_loads_the_checkpoint_that_init_from_names(
    tmp_path: Path, source: Path
) -> None:
    run = begin(tmp_path, source, {}, files={"own.py": LOOP}, entrypoint="own:main")
    assert Job(run).end()[0] == 0
    weight = result(source)["content"]["model"]["layers.0.weight"]
    (logged,) = events(run, "metrics")
    assert logged["metrics"]["sum"] == float(weight.double().sum())
    assert events(run, "initialised")[0]["run"] == "source"


def test_an_entry_point_that_ignores_init_from_is_reported(tmp_path: Path, source: Path) -> None:
    idle = "def main(run): pass\n"
    run = begin(tmp_path, source, {}, files={"own.py": idle}, entrypoint="own:main")
    code, output = Job(run).end()
    assert code == 0  # what was trained is not thrown away
    warning = "init_from: own:main never called run.origin()"
    assert warning in output
    assert events(run, "noted")[0]["reason"].startswith(warning)


def test_a_run_may_go_on_without_the_torchmetrics_objects_of_another(tmp_path: Path) -> None:
    measured = {"model": {"type": "tests.trainer.measured:Measured"}}
    source = make_run(tmp_path, base=HARD, **measured)
    assert in_child(source) == COMPLETE
    run = begin(tmp_path, source, {"load": "all"}, training={"max_epochs": 3}, scheduler=None)
    assert in_child(run) == COMPLETE
    assert "val_f1" in events(source, "metrics")[-1]["metrics"]
    (only,) = events(run, "metrics")
    assert only["metrics"].keys() == {"train_loss", "val_loss", "val_accuracy"}
