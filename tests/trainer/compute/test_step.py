"""A step's module and optimizers: which buffers a training keeps beside the module's state."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mtf.trainer.compute.fabric import build_fabric
from mtf.trainer.compute.step import StepEngine
from mtf.trainer.job.run_job import read_config
from tests.trainer.runs import make_run

if TYPE_CHECKING:
    from pathlib import Path


def test_a_non_persistent_buffer_is_kept_once_it_has_changed(tmp_path: Path) -> None:
    config = read_config(make_run(tmp_path))
    module = torch.nn.Linear(2, 1)
    module.register_buffer("fixed", torch.ones(2), persistent=False)
    module.register_buffer("moving", torch.zeros(2), persistent=False)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    engine = StepEngine(build_fabric(config, {}), module, {"optimizer": optimizer}, config.training)
    assert engine.unsaved_buffers() == {}
    module.get_buffer("moving").add_(1)
    assert list(engine.unsaved_buffers()) == ["moving"]
