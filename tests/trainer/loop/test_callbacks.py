"""Changes of a model by a callback that a resume would lack are said; a callback sees each batch."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from mtf.trainer import Callback
from mtf.trainer.loop.phases import Phase
from mtf.trainer.runtime.signals import STOP, Stopped
from tests.trainer.plain_loop.by_hand import EPOCHS, adam, by_trainer, net, plain_run

if TYPE_CHECKING:
    from pathlib import Path

    from mtf.trainer.loop.loop import Loop


class Scaled(nn.Module):
    """A model with settings of all kinds that a callback may change."""

    scale: float = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.net, self.drop = net(), nn.Dropout(0.0)
        self.stage: torch.Tensor
        self.register_buffer("stage", torch.zeros(()))

    def training_step(self, batch: Any) -> torch.Tensor:
        loss: torch.Tensor = functional.cross_entropy(self.drop(self.net(batch[0])), batch[1])
        return loss * self.scale


class Sets(Callback):
    """Sets something of the model at the start of each epoch."""

    phases = (Phase.TRAIN_START_EPOCH,)

    def __init__(self, what: str) -> None:
        self._what = what

    def before(self, phase: Phase, training: Loop) -> None:
        model: Any = training.engine.module
        value = 1 - 0.1 * training.state.epoch
        match self._what:
            case "scale":
                model.scale = value
            case "dropout":
                model.drop.p = 1 - value
            case "buffer":
                model.stage.fill_(value)
            case "gradients":
                model.net[0].requires_grad_(training.state.epoch > 0)
            case _:
                training.engine.optimizers["optimizer"].param_groups[0]["lr"] = 0.01 * value


class SetsAgain(Sets):
    def on_resume(self, training: Loop) -> None:
        self.before(Phase.TRAIN_START_EPOCH, training)


@pytest.mark.parametrize(
    ("callback", "named"),
    [
        (Sets("scale"), "Scaled.scale"),
        (Sets("dropout"), "Scaled.drop.p"),
        (Sets("buffer"), None),
        (Sets("gradients"), None),
        (Sets("rate"), None),
        (SetsAgain("scale"), None),
    ],
)
def test_a_callback_that_sets_what_no_checkpoint_holds_is_named_once(
    callback: Callback, named: str | None, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = Scaled()
    by_trainer(plain_run(tmp_path), model, adam(model), callbacks={"own": callback})
    stderr = capfd.readouterr().err
    said = f"the callback Sets sets {named} at TRAIN_START_EPOCH, and no checkpoint holds that"
    assert stderr.count("no checkpoint holds") == (named is not None)
    assert named is None or said in stderr
    assert named is None or "Set it in on_resume(training) too" in stderr


class Interrupted(Callback):
    """Ends the training at a phase, as a signal there would, and notes the losses that it sees."""

    phases = (Phase.TRAIN_BATCH_OPTIM_STEP, Phase.TRAIN_BATCH_END)

    def __init__(self, losses: list[float], stop_at: int | None = None) -> None:
        self._losses, self._stop_at = losses, stop_at

    def after(self, phase: Phase, training: Loop) -> None:
        if phase is Phase.TRAIN_BATCH_END:
            assert training.loss is not None
            self._losses.append(training.loss.item())
        elif training.state.global_step == self._stop_at:
            os.kill(os.getpid(), signal.SIGUSR1)


def test_a_resume_between_a_batch_and_its_end_shows_its_loss(tmp_path: Path) -> None:
    whole, resumed = list[float](), list[float]()
    model, again = net(), net()
    by_trainer(plain_run(tmp_path), model, adam(model), callbacks={"own": Interrupted(whole)})
    run = plain_run(tmp_path)
    with pytest.raises(Stopped):
        by_trainer(run, again, adam(again), callbacks={"own": Interrupted(resumed, 5)})
    STOP.requested, STOP.signal = False, None
    again = net()
    by_trainer(run, again, adam(again), callbacks={"own": Interrupted(resumed)})
    assert resumed == whole
    assert len(whole) == 11 * EPOCHS


class Seen(Callback):
    phases = (Phase.TRAIN_BATCH_END, Phase.VAL_BATCH_END)

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.validated = 0

    def after(self, phase: Phase, training: Loop) -> None:
        assert len(training.batch) == 2
        if phase is Phase.VAL_BATCH_END:
            self.validated += 1
        else:
            assert training.loss is not None
            self.losses.append(training.loss.item())


def test_the_last_batch_of_an_epoch_is_there_for_a_callback_as_the_others(tmp_path: Path) -> None:
    model, seen = net(), Seen()
    by_trainer(plain_run(tmp_path), model, adam(model), callbacks={"seen": seen})
    assert len(seen.losses) == 11 * EPOCHS
    assert seen.validated == 3 * EPOCHS
