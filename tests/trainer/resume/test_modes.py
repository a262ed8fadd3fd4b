"""Modules keep their training and evaluation modes through validations and interruptions."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from mtf.trainer import Callback
from mtf.trainer.compute.fabric import Fabric
from mtf.trainer.compute.step import StepEngine
from mtf.trainer.job.run_job import read_config
from mtf.trainer.loop.phases import Phase
from tests.trainer.hard_training import (
    COMPLETE,
    EPOCHS,
    HARD,
    STOPPED,
    Net,
    difference,
    in_child,
    result,
    signal_at,
)
from tests.trainer.runs import make_run

if TYPE_CHECKING:
    from pathlib import Path

    from mtf.trainer.loop.loop import Loop

CHANGED: dict[str, Any] = {
    "model": {"type": "tests.trainer.resume.test_modes:Frozen"},
    "callbacks": {"thaw": {"type": "tests.trainer.resume.test_modes:Thaw"}},
}


class Frozen(Net):
    """A model whose normalisation uses its running means and whose dropout is off, at first."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__(hidden_size, num_classes)
        self.layers[1].eval()
        self.layers[2].eval()


class Thaw(Callback):
    """Puts the normalisation in training mode in the first epoch, and the first layer out of it."""

    phases = (Phase.TRAIN_BATCH_LOAD,)

    def after(self, phase: Phase, training: Loop) -> None:
        """Change the modes once."""
        del phase
        if (training.state.epoch, training.state.train.batch) == (0, 6):
            layers: Any = training.engine.module.get_submodule("layers")
            layers[1].train()
            layers[0].eval()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = make_run(tmp_path_factory.mktemp("whole"), base=HARD, **CHANGED)
    assert in_child(run) == COMPLETE
    return result(run)


def test_modes_that_a_callback_has_set_outlast_a_validation(whole: dict[str, Any]) -> None:
    content = whole["content"]
    assert content["evaluating"] == ["layers.0", "layers.2"]
    batches = 11 * EPOCHS - 6  # the normalisation was in training mode from the seventh on
    assert content["model"]["layers.1.num_batches_tracked"] == batches


@pytest.mark.parametrize(
    ("phase", "nth"),
    [
        (Phase.TRAIN_BATCH_END, 9),
        (Phase.VAL_START_EPOCH, 1),
        (Phase.VAL_BATCH_LOAD, 1),
        (Phase.VAL_BATCH_LOAD, 2),
        (Phase.VAL_BATCH_END, 3),
        (Phase.EPOCH_END, 1),
        (Phase.VAL_BATCH_LOAD, 5),
    ],
)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_modes_are_the_same_after_an_interruption(
    phase: Phase, nth: int, signum: signal.Signals, whole: dict[str, Any], tmp_path: Path
) -> None:
    run = make_run(tmp_path, base=HARD, **CHANGED)
    assert in_child(run, signal_at(phase, nth, signum, after=True)) in {STOPPED, -signal.SIGKILL}
    assert in_child(run) == COMPLETE
    assert difference(result(run), whole) is None


def engine_of(module: nn.Module, run: Path) -> StepEngine:
    fabric = Fabric(accelerator="cpu", devices=1)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    return StepEngine(fabric, module, {"optimizer": optimizer}, read_config(run).training)


def test_each_module_gets_its_own_mode_back(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Sequential(nn.Dropout()))
    module[2].eval()
    engine = engine_of(module, make_run(tmp_path))
    for _ in range(2):
        engine.enter_evaluation()
        assert not any(part.training for part in module.modules())
        assert engine.evaluating() == ["2", "2.0"]
        engine.enter_evaluation()  # as a resumed validation does
        engine.leave_evaluation()
        assert engine.evaluating() == ["2", "2.0"]
        assert module.training
        assert module[1].training


def test_saved_modes_are_put_into_a_module_as_it_was_built(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout().eval())
    engine = engine_of(module, make_run(tmp_path))
    engine.put_evaluating(["0"])
    assert [part.training for part in module.modules()] == [True, False, True]
