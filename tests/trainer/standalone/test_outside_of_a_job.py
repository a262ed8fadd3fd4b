"""``GenericTrainer`` in a script or a notebook, outside of any job."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lightning.fabric import Fabric
from torch.utils.data import DataLoader, TensorDataset

from mtf import ExperimentConfig, ModelConfig, TrainingConfig
from mtf.errors import MtfError
from mtf.trainer import Callback, GenericTrainer
from mtf.trainer.compute.rng import RNGState
from mtf.trainer.loop.phases import Phase
from mtf.trainer.loop.state import TrainMicroState, ValMicroState
from mtf.trainer.resume.checkpoint_manager import CheckpointManager
from mtf.trainer.runtime.signals import SIGNALS, STOP
from mtf.trainer.standalone import own_folder
from tests.trainer.hard_training import COMPLETE, in_child
from tests.trainer.runs import DIGITS, events, make_run
from tests.trainer.wandb_file import history

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.trainer.loop.loop import Loop

HAND: dict[str, Any] = {
    "experiment_name": "hand",
    "training": {"batch_size": 8, "use_amp": False},
}


@pytest.fixture(autouse=True)
def here(sealed: None, tmp_path: Path) -> Iterator[Path]:
    """Work in an empty folder."""
    with contextlib.chdir(tmp_path):
        yield tmp_path


def trainer(config: Any = HAND, *, lr: float = 0.01, **options: Any) -> GenericTrainer:
    torch.manual_seed(1)
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    return GenericTrainer(config, Fabric(accelerator="cpu", devices=1), model, optimizer, **options)


def loader() -> DataLoader[Any]:
    rows = torch.linspace(-1, 1, 24 * 4).reshape(24, 4)
    return DataLoader(TensorDataset(rows, torch.arange(24) % 3), batch_size=8, shuffle=True)


def weights(trained: GenericTrainer) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in trained.model.parameters()]


def are_equal(left: GenericTrainer, right: GenericTrainer) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(left), weights(right), strict=True))


class Interrupting(Callback):
    """Sends this process a signal in the second epoch."""

    phases = frozenset({Phase.TRAIN_BATCH_END})

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def after(self, phase: Phase, training: Loop) -> None:
        if training.state.global_step == 4:
            signal.raise_signal(self.number)


def test_a_script_trains_in_a_folder_that_it_is_told(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hand = trainer()
    assert (hand.state.phase, hand.config.experiment_name) == (Phase.INIT, "hand")
    assert not Path("runs").exists()
    metrics = hand.fit(loader(), loader(), max_epochs=3)
    assert set(metrics) == {"train_loss", "val_loss", "val_accuracy"}
    assert "mtf: training outside of a job, in runs/hand\n" in capsys.readouterr().err
    assert hand.run_dir == here / "runs/hand"
    assert (hand.state.phase, hand.state.epoch, hand.state.global_step) == (
        Phase.TRAINING_COMPLETE,
        3,
        9,
    )
    assert isinstance(hand.fabric, Fabric)
    assert isinstance(hand.model, torch.nn.Linear)
    (started,), (finished,) = events(hand.run_dir, "started"), events(hand.run_dir, "finished")
    assert (started["max_epochs"], finished["epoch"]) == (3, 3)
    assert finished["metrics"] == metrics


def test_the_place_in_a_training_is_read_from_its_checkpoint() -> None:
    before = time.time()
    hand = trainer()
    hand.fit(loader(), max_epochs=1)
    manager = CheckpointManager(hand.run_dir)
    state = manager.load()
    assert (state.phase, state.epoch, state.global_step, state.version) == (
        Phase.TRAINING_COMPLETE,
        1,
        3,
        "v2.0",
    )
    assert before <= state.timestamp <= time.time()
    assert isinstance(state.train, TrainMicroState)
    assert isinstance(state.val, ValMicroState)
    assert isinstance(state.rng, RNGState)
    assert hand.checkpoint_manager.latest == manager.latest == manager.checkpoints[-1]
    assert manager.load(manager.checkpoints[-1].name).timestamp == state.timestamp
    found = manager.weights()
    assert all(torch.equal(found[n], p) for n, p in hand.model.state_dict().items())
    with pytest.raises(MtfError, match="no intact checkpoint here"):
        CheckpointManager("nowhere").load()
    with pytest.raises(MtfError, match="rank 1: the training had 1 of them"):
        manager.load(rank=1)


def test_a_damaged_checkpoint_gives_no_state() -> None:
    hand = trainer()
    hand.fit(loader(), max_epochs=1)
    (path,) = hand.checkpoint_manager.checkpoints
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(MtfError, match="not an intact checkpoint: its sha256 is not the recorded"):
        CheckpointManager(hand.run_dir).load(path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_training_is_continued_by_the_next_start(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = trainer({**HAND, "experiment_name": "whole"})
    whole.fit(loader(), loader(), max_epochs=3)
    before = {n: signal.getsignal(n) for n in SIGNALS}
    ends = KeyboardInterrupt if number is signal.SIGINT else SystemExit
    with pytest.raises(ends) as raised:
        trainer(callbacks={"stop": Interrupting(number)}).fit(loader(), loader(), max_epochs=3)
    if isinstance(raised.value, SystemExit):
        assert raised.value.code == 128 + number
    assert {n: signal.getsignal(n) for n in SIGNALS} == before
    assert not STOP.requested
    again = trainer(callbacks={"stop": Interrupting(number)})
    again.fit(loader(), loader(), max_epochs=3)
    told = capsys.readouterr().err
    assert f"stopped by {number.name}: the next start of this training continues it" in told
    assert "continuing the unfinished training in runs/hand" in told
    assert (again.run_dir.name, again.state.global_step) == ("hand", 9)
    assert are_equal(again, whole)


def test_a_complete_training_is_left_alone_and_a_new_one_begins_beside_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = trainer()
    first.fit(loader(), max_epochs=1)
    second = trainer()
    second.fit(loader(), max_epochs=1)
    assert second.run_dir.name == "hand-2"
    assert (
        "runs/hand is complete: this is a new training, in runs/hand-2" in capsys.readouterr().err
    )
    assert len(events(first.run_dir, "started")) == 1


def test_other_settings_make_a_new_training(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer(callbacks={"stop": Interrupting(signal.SIGINT)}).fit(loader(), max_epochs=3)
    other = {**HAND, "training": {**HAND["training"], "seed": 5}}
    second = trainer(other)
    second.fit(loader(), max_epochs=3)
    assert second.run_dir.name == "hand-2"
    told = capsys.readouterr().err
    assert "runs/hand has other settings (training.seed was 0 and is 5)" in told


def test_another_optimizer_or_other_batches_make_a_new_training(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer(callbacks={"stop": Interrupting(signal.SIGINT)}).fit(loader(), max_epochs=3)
    with pytest.raises(MtfError, match="Restore what has changed, or name another run_dir"):
        trainer(run_dir="runs/hand", lr=0.1).fit(loader(), max_epochs=3)
    second = trainer(lr=0.1)
    second.fit(loader(), max_epochs=3)
    assert second.run_dir.name == "hand-2"
    told = capsys.readouterr().err
    assert "runs/hand is of another training (the optimizer was Adam(lr=0.01, " in told
    Path("runs/hand-2").rename("elsewhere")
    third = trainer()
    third.fit(DataLoader(loader().dataset, batch_size=12), max_epochs=3)
    assert third.run_dir.name == "hand-2"
    assert "(the number of batches was 3 and is 2)" in capsys.readouterr().err


def test_a_folder_in_which_another_process_trains_is_not_touched(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(KeyboardInterrupt):
        trainer(callbacks={"stop": Interrupting(signal.SIGINT)}).fit(loader(), max_epochs=3)
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        own_folder.claim(Path("runs/hand"), world_size=1)
        os.write(writing, b".")
        signal.pause()
    try:
        assert os.read(reading, 1) == b"."
        second = trainer()
        second.fit(loader(), max_epochs=3)
        assert second.run_dir.name == "hand-2"
        assert f"runs/hand is in use by process {pid} on " in capsys.readouterr().err
        with pytest.raises(MtfError, match="Give this training another experiment_name or run_dir"):
            trainer(run_dir="runs/hand").fit(loader(), max_epochs=3)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_trainer_trains_on_when_it_is_given_more_epochs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = trainer({**HAND, "experiment_name": "whole"})
    whole.fit(loader(), loader(), max_epochs=4)
    parts = trainer()
    parts.fit(loader(), loader(), max_epochs=2)
    parts.fit(loader(), loader(), max_epochs=2)
    assert "it has trained for 2 epochs): fit with a greater max_epochs" in capsys.readouterr().err
    parts.fit(loader(), loader(), max_epochs=4)
    assert (parts.state.epoch, parts.run_dir.name) == (4, "hand")
    assert are_equal(parts, whole)


def test_an_error_is_journaled_and_the_folder_is_free_again() -> None:
    class Broken(Callback):
        phases = frozenset({Phase.TRAIN_BATCH_END})

        def after(self, phase: Phase, training: Loop) -> None:
            raise ZeroDivisionError("one by none")

    broken = trainer(callbacks={"broken": Broken()})
    with pytest.raises(ZeroDivisionError):
        broken.fit(loader(), max_epochs=1)
    (failed,) = events(broken.run_dir, "failed")
    assert failed["reason"] == "one by none"
    again = trainer()
    again.fit(loader(), max_epochs=1)
    assert again.run_dir == broken.run_dir


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"training": {}}, r"experiment_name is missing"),
        ({**HAND, "experiment_name": "../out"}, r"experiment_name: "),
        ({**HAND, "trainign": {}}, r"unknown key 'trainign'.* Did you mean 'training'\?"),
        ({**HAND, "model": {"type": torch.nn.Linear}}, r"model\.type: .*the class Linear"),
        ("hand", r"^expected an ExperimentConfig or a dict, got a value of type str"),
    ],
)
def test_a_mistake_in_the_configuration_is_named_with_its_key(config: Any, message: str) -> None:
    with pytest.raises(MtfError, match=message):
        trainer(config)
    assert not Path("runs").exists()


def test_a_setting_that_the_given_parts_do_not_have_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = {**HAND, "optimizer": {"type": "adam", "lr": 0.5}, "scheduler": {"type": "cosine"}}
    trainer(config).fit(loader(), max_epochs=1)
    told = capsys.readouterr().err
    assert "config: optimizer.lr is 0.5, and the optimizer trains with 0.01" in told
    assert "config: scheduler is set, and no scheduler was handed over" in told


def test_a_configuration_may_be_built_from_parts(capsys: pytest.CaptureFixture[str]) -> None:
    config = ExperimentConfig(
        experiment_name="grid/lr=1",
        model=ModelConfig(type="mlp"),
        training=TrainingConfig(max_epochs=1, batch_size=8, use_amp=False),
        parameters={"optimizer.lr": 1},
        generation=2,
    )
    hand = trainer(config)
    assert hand.config is config
    hand.fit(loader())
    assert hand.run_dir == Path("runs/grid/lr=1").absolute()
    assert "checkpoint.monitor" not in capsys.readouterr().err  # nobody has asked for a metric


def test_the_trainer_of_a_configuration_does_what_its_job_does(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert in_child(run) == COMPLETE
    by_hand = GenericTrainer.from_config(DIGITS, Fabric(accelerator="cpu", devices=1))
    by_hand.fit()
    of_job = CheckpointManager(run).weights()
    found = by_hand.model.state_dict()
    assert list(found) == list(of_job)
    assert all(torch.equal(found[name], of_job[name]) for name in found)
    with pytest.raises(MtfError, match="fit needs a train_loader, except after"):
        trainer().fit()


def test_in_a_job_the_number_of_epochs_is_that_of_the_spec(monkeypatch: Any, here: Path) -> None:
    monkeypatch.setenv("MTF_RUN_DIR", str(here))
    with pytest.raises(MtfError, match=r"max_epochs is 3, and the run is recorded with training"):
        trainer().fit(loader(), max_epochs=3)


# -- Weights & Biases ------------------------------------------------------------------------------


def test_a_wandb_run_that_was_handed_in_is_left_open(monkeypatch: Any, here: Path) -> None:
    import wandb

    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    settings = wandb.Settings(silent=True, console="off")
    given = wandb.init(mode="offline", dir=str(here), settings=settings)
    try:
        trainer(wandb_run=given).fit(loader(), max_epochs=1)
        given.log({"after": 1.0}, commit=True)  # it raises on a finished run
    finally:
        given.finish()
    (row,) = history(here, 1)
    assert (row["epoch"], row["after"]) == (1, 1.0)
    assert row["train_loss_epoch"] > 0
    assert not (here / "runs/hand/wandb").exists()
    assert events(here / "runs/hand", "tracking") == []


def test_wandb_is_used_where_it_is_configured_unless_the_config_says_no(
    monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    without = trainer()
    without.fit(loader(), max_epochs=1)
    (told,) = events(without.run_dir, "tracking")
    assert (told["wandb"], told["reason"]) == (False, "no key is configured")
    monkeypatch.setenv("WANDB_MODE", "offline")
    refused = trainer({**HAND, "logging": {"use_wandb": False}})
    refused.fit(loader(), max_epochs=1)
    assert not (refused.run_dir / "wandb").exists()
    capsys.readouterr()
    used = trainer()
    used.fit(loader(), max_epochs=1)
    assert len(list(used.run_dir.glob("wandb/offline-run-*"))) == 1
    (told,) = events(used.run_dir, "tracking")
    assert (told["wandb"], told["reason"]) == (True, "WANDB_MODE is offline")
    assert "mtf: wandb: WANDB_MODE is offline: this training is logged" in capsys.readouterr().err
