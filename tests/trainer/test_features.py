"""Features of the training loop: callbacks, non-finite values, clipping, several optimizers, compile."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mtf.errors import MtfError
from mtf.trainer.job.run_job import read_config
from mtf.trainer.loop.callbacks import EMA, Callback, EarlyStopping, build_callbacks
from mtf.trainer.loop.phases import Phase
from tests.trainer.hard_training import (
    COMPLETE,
    HARD,
    STOPPED,
    difference,
    in_child,
    result,
    signal_at,
)
from tests.trainer.runs import events, make_run

if TYPE_CHECKING:
    from pathlib import Path

    from mtf.trainer.loop.loop import Loop

INFINITE = {"model": {"type": "tests.trainer.hard_training:SometimesInfinite"}}


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "scalars.jsonl").read_text().splitlines()]


# -- callbacks -------------------------------------------------------------------------------------


class LoopStub:
    """Stands for the loop at the end of an epoch."""

    def __init__(self) -> None:
        self.state = self
        self.metrics: dict[str, float] = {}
        self.ended: str | None = None

    def end(self, reason: str) -> None:
        self.ended = reason


def epochs_until_end(stopping: EarlyStopping, values: list[float]) -> int | None:
    training: Any = LoopStub()
    for epoch, value in enumerate(values, 1):
        training.metrics = {"m": value}
        stopping.after(Phase.EPOCH_END, training)
        if training.ended:
            return epoch
    return None


def test_early_stopping_waits_for_its_patience() -> None:
    nan = float("nan")
    assert epochs_until_end(EarlyStopping("m", patience=2), [3, 2, 2, 2]) == 4
    assert epochs_until_end(EarlyStopping("m", patience=2), [3, 2, 2.1, 1, 2]) is None
    assert epochs_until_end(EarlyStopping("m", "max", patience=1), [1, 2, 3, 3]) == 4
    assert epochs_until_end(EarlyStopping("m", patience=1, min_delta=0.5), [3, 2, 1.6]) == 3
    assert epochs_until_end(EarlyStopping("m", patience=2), [nan, nan]) == 2


def test_a_training_that_stops_early_is_complete_and_says_why(tmp_path: Path) -> None:
    stopping = {"monitor": "train_loss", "mode": "max", "patience": 1}  # it falls: no improvement
    run = make_run(
        tmp_path,
        base=HARD,
        training={"max_epochs": 9},
        callbacks={"early_stopping": stopping},
        optimizer={"lr": 0.1},
        scheduler=None,
    )
    assert in_child(run) == COMPLETE
    done = len(events(run, "metrics"))
    assert 1 < done < 9
    (ended,) = events(run, "noted")
    assert ended["reason"].startswith(
        "early stopping: train_loss has not improved for 1 epochs, best "
    )
    assert in_child(run) == COMPLETE  # a requeue adds nothing
    assert len(events(run, "metrics")) == done


def test_an_unknown_metric_to_watch_is_reported_with_the_known_ones(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    watching = {"early_stopping": {"monitor": "val_los"}}
    assert in_child(make_run(tmp_path, base=HARD, callbacks=watching)) == 1
    assert (
        "early_stopping.monitor: no metric 'val_los'. Metrics are train_loss, val_loss,"
        in capfd.readouterr().err
    )


def test_the_average_of_weights_is_what_is_validated_and_saved(tmp_path: Path) -> None:
    still = make_run(tmp_path, base=HARD, callbacks={"ema": {"decay": 0.0}})
    slow = make_run(tmp_path, base=HARD, callbacks={"ema": {"decay": 0.99}})
    aside = make_run(tmp_path, base=HARD, callbacks={"ema": {"decay": 0.99, "evaluate": False}})
    plain = make_run(tmp_path, base=HARD)
    for run in (still, slow, aside, plain):
        assert in_child(run) == COMPLETE
    losses = {
        run: [f["metrics"]["val_loss"] for f in events(run, "metrics")]
        for run in (still, slow, aside, plain)
    }
    assert losses[still] == losses[aside] == losses[plain] != losses[slow]
    content = result(slow)["content"]
    average = content["callbacks"]["ema"]["average"]
    assert average.keys() == content["model"].keys()
    assert torch.equal(average["layers.1.running_mean"], content["model"]["layers.1.running_mean"])
    assert not torch.equal(average["layers.0.weight"], content["model"]["layers.0.weight"])


def test_the_average_follows_the_formula(tmp_path: Path) -> None:
    class Part:
        module = torch.nn.Linear(1, 1, bias=False)

    class Training:
        engine = Part
        state: Any = LoopStub()

    training: Any = Training()
    torch.nn.init.constant_(Part.module.weight, 1.0)
    ema = EMA(decay=0.9, every_n_steps=2)
    ema.on_start(training)
    for step in (1, 2, 3, 4):
        torch.nn.init.constant_(Part.module.weight, float(step))
        training.state.global_step = step
        ema.after(Phase.TRAIN_BATCH_OPTIM_STEP, training)
    expected = 0.9 * (0.9 * 1.0 + 0.1 * 2.0) + 0.1 * 4.0
    assert ema.state_dict()["average"]["weight"].item() == pytest.approx(expected)
    del tmp_path


class Diary(Callback):
    """Writes each call of its methods to a file."""

    phases = (Phase.INIT, Phase.TRAIN_BATCH_FORWARD)

    def __init__(self, run: Path) -> None:
        self._path = run / "diary"
        self._note("made")

    def _note(self, what: str) -> None:
        with self._path.open("a") as file:
            file.write(f"{what}\n")

    def on_start(self, training: Loop) -> None:
        self._note(f"start {training.state.global_step}")

    def before(self, phase: Phase, training: Loop) -> None:
        self._note(f"before {phase}")
        del training

    def after(self, phase: Phase, training: Loop) -> None:
        assert phase is Phase.INIT or training.loss is not None
        self._note(f"after {phase}")

    def on_checkpoint(self, training: Loop, saved: Any) -> None:
        self._note(f"saved {saved.path.name} at {training.state.epoch}")

    def on_exception(self, training: Loop, error: BaseException) -> None:
        self._note(f"{type(error).__name__} at {training.state.phase}")


def test_a_callback_is_called_for_the_phases_it_names(tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        base=HARD,
        training={"max_epochs": 1},
        checkpoint={"every_n_steps": None},
        callbacks={"diary": {"type": "tests.trainer.test_features:Diary", "run": "."}},
    )
    config = read_config(run)
    section = {"type": "tests.trainer.test_features:Diary", "run": run}
    object.__setattr__(config.callbacks, "__pydantic_extra__", {"diary": section})
    (diary,) = build_callbacks(config, monitor="val_loss").values()
    assert isinstance(diary, Diary)

    def prepare() -> None:
        from mtf.trainer import trainer

        trainer.build_callbacks = lambda *_, **__: {"diary": diary}  # type: ignore[attr-defined]

    assert in_child(run, prepare) == COMPLETE
    lines = (run / "diary").read_text().splitlines()
    assert lines[:4] == ["made", "start 0", "before INIT", "after INIT"]
    forward = [line for line in lines if line.endswith("FORWARD")]
    assert forward == ["before TRAIN_BATCH_FORWARD", "after TRAIN_BATCH_FORWARD"] * 11
    assert lines[-1] == "saved epoch_001_step_000003.ckpt at 1"


def test_a_callback_gets_the_error_that_ends_a_training(tmp_path: Path) -> None:
    run = make_run(tmp_path, base=HARD, **INFINITE)

    def prepare() -> None:
        from mtf.trainer import trainer

        trainer.build_callbacks = lambda *_, **__: {"diary": Diary(run)}  # type: ignore[attr-defined]

    assert in_child(run, prepare) == 1
    assert (run / "diary").read_text().endswith("TrainingError at TRAIN_BATCH_BACKWARD\n")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"type": "swa"}, "callbacks.mine.type: unknown name 'swa'"),
        (
            {"type": "tests.trainer.hard_training:Stateful"},
            "callbacks.mine: Stateful needs strength",
        ),
        (
            {"type": "tests.trainer.hard_training:Net", "hidden_size": 1, "num_classes": 1},
            "must return an mtf.trainer",
        ),
    ],
)
def test_a_callback_that_cannot_be_built_is_reported(
    given: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = read_config(make_run(tmp_path, base=HARD, callbacks={"mine": given}))
    with pytest.raises(MtfError, match=message):
        build_callbacks(config, monitor="val_loss")


# -- values that are not finite -------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_fails_the_run_and_names_the_samples(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, base=HARD, **INFINITE)
    assert in_child(run) == 1
    stderr = capfd.readouterr().err
    assert "the training loss is inf at epoch 1, step " in stderr
    assert "(samples " in stderr
    assert "Lower optimizer.lr" in stderr


def test_steps_with_infinite_gradients_are_skipped_with_on_nonfinite_skip(tmp_path: Path) -> None:
    run = make_run(tmp_path, base=HARD, **INFINITE, training={"on_nonfinite": "skip"})
    assert in_child(run) == COMPLETE
    content = result(run)["content"]
    state = content["ranks"][0]
    assert 0 < state["skipped"] < state["global_step"] == 6
    assert all(torch.isfinite(value).all() for value in content["model"].values())
    assert all(row["train_loss"] < float("inf") for row in rows(run))


def test_a_training_may_end_at_the_first_infinite_gradient(tmp_path: Path) -> None:
    run = make_run(tmp_path, base=HARD, **INFINITE, training={"on_nonfinite": "stop"})
    assert in_child(run) == COMPLETE
    assert events(run, "noted")[0]["reason"].startswith("gradients are not finite at epoch")
    content = result(run)["content"]
    assert content["ranks"][0]["global_step"] < 6
    assert all(torch.isfinite(value).all() for value in content["model"].values())


@pytest.mark.parametrize("policy", ["skip", "stop"])
def test_a_batch_with_nan_does_not_change_running_means(policy: str, tmp_path: Path) -> None:
    model = {"type": "tests.trainer.hard_training:SometimesNotANumber"}
    run = make_run(tmp_path, base=HARD, model=model, training={"on_nonfinite": policy})
    assert in_child(run) == COMPLETE
    content = result(run)["content"]
    (rank,) = content["ranks"]
    assert rank["skipped"] > 0
    held = [*content["model"].values(), *rank["buffers"].values()]
    assert all(torch.isfinite(value).all() for value in held)
    losses = [row["val_loss"] for row in rows(run) if "val_loss" in row]
    assert all(loss < float("inf") for loss in losses)
    assert losses or policy == "stop"


def test_non_persistent_running_means_survive_a_stop(tmp_path: Path) -> None:
    """BatchNorm's kernels change them without raising the tensor's version."""
    model = {"type": "tests.trainer.hard_training:Forgetful"}
    whole, run = (make_run(tmp_path, base=HARD, model=model) for _ in range(2))
    assert in_child(whole) == COMPLETE
    stop = signal_at(Phase.TRAIN_BATCH_END, 7, signal.SIGUSR1, after=True)
    assert in_child(run, stop) == STOPPED
    assert in_child(run) == COMPLETE
    assert difference(result(run), result(whole)) is None


def test_gradients_are_clipped_by_value(tmp_path: Path) -> None:
    """One step of SGD moves a weight by at most the learning rate times that value."""
    sgd: dict[str, Any] = {
        "optimizer": {"type": "sgd", "lr": 1.0, "weight_decay": 0.0},
        "scheduler": None,
    }
    one_step = {"max_epochs": 1, "max_grad_norm": None, "gradient_accumulation_steps": 11}
    weights = {}
    for value in (None, 1e-4, 1e-30):
        run = make_run(tmp_path, base=HARD, **sgd, training={**one_step, "max_grad_value": value})
        assert in_child(run) == COMPLETE
        weights[value] = result(run)["content"]["model"]["layers.0.weight"]
    start = weights[1e-30]
    assert (weights[None] - start).abs().max() > 1e-3
    assert 0.99e-4 < (weights[1e-4] - start).abs().max() < 1.01e-4


# -- several optimizers ----------------------------------------------------------------------------


def test_each_optimizer_that_takes_turns_has_its_own_learning_rate(tmp_path: Path) -> None:
    run = make_run(
        tmp_path,
        base=HARD,
        model={"type": "tests.trainer.hard_training:Rivals"},
        scheduler={"type": "exponential", "gamma": 0.5},
    )
    assert in_child(run) == COMPLETE
    steps = [row for row in rows(run) if "lr/judge" in row]
    assert [row["lr/maker"] for row in steps] == [0.01] * 3 + [0.005] * 3
    states = result(run)["content"]["optimizers"]
    assert list(states) == ["judge", "maker"]
    assert states["judge"]["state"][0]["step"] == 3  # of six steps


# -- torch.compile ---------------------------------------------------------------------------------


class Stepping(torch.nn.Module):
    """A model whose steps call its layers, and never itself."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(6, hidden_size), torch.nn.GELU(), torch.nn.Linear(hidden_size, 3)
        )

    def training_step(self, batch: Any) -> torch.Tensor:
        """Return the loss, if it is computed by compiled code."""
        assert torch.compiler.is_compiling()
        return torch.nn.functional.cross_entropy(self.layers(batch[0]), batch[1])

    def validation_step(self, batch: Any) -> dict[str, torch.Tensor]:
        """Return the loss likewise."""
        return {"loss": self.training_step(batch)}


COMPILED: dict[str, Any] = {
    "model": {"type": "tests.trainer.test_features:Stepping"},
    "training": {"compile": True, "gradient_accumulation_steps": 1, "batch_size": 10},
    "callbacks": {"ema": {"decay": 0.9}},
}


def test_compiled_steps_of_several_shapes_resume_bit_for_bit(tmp_path: Path) -> None:
    """Batches of 10, 10, 10, 10 and 2 samples; the plain names; the average compiles its own."""
    whole, run = (make_run(tmp_path, base=HARD, **COMPILED) for _ in range(2))
    assert in_child(whole) == COMPLETE
    stop = signal_at(Phase.TRAIN_BATCH_END, 7, signal.SIGUSR1, after=False)
    assert in_child(run, stop) == STOPPED
    assert in_child(run) == COMPLETE
    assert difference(result(run), result(whole)) is None
    names = [f"layers.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")]
    assert list(result(run)["content"]["model"]) == names


def few_kernels() -> None:
    from mtf.trainer.compute import compilation

    compilation.MOST_KERNELS = 1


def test_a_compiled_training_with_too_many_shapes_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, base=HARD, **COMPILED)
    assert in_child(run, few_kernels) == 1
    assert "training.compile: more than 64 kernels of one function" in capfd.readouterr().err
