"""Checkpoints of earlier formats are resumed bit for bit."""

from __future__ import annotations

import hashlib
import signal
from typing import TYPE_CHECKING, Any

import torch

from mtf.trainer.loop.phases import Phase
from tests.trainer.nasty import (
    COMPLETE,
    NASTY,
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


class Steady(Net):
    """A net whose state is all in its ``state_dict``, as far as the first format went."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layers(inputs)


def as_version_1(content: dict[str, Any]) -> dict[str, Any]:
    """Return a content as the first format had it: its keys, and no others."""
    (rank,) = content["ranks"]
    added = ("gradients", "buffers", "replaced", "skipped", "ended_by", "best")
    old = {key: value for key, value in rank.items() if key not in added}
    train = {key: value for key, value in rank["train"].items() if key != "offset"}
    return {
        "version": 1,
        "world_size": 1,
        "ranks": [{**old, "version": 1, "train": train}],
        "model": content["model"],
        "optimizer": content["optimizers"]["optimizer"],
        "scheduler": content["schedulers"]["optimizer"],
        "scaler": content["scaler"],
        "gradients": rank["gradients"] or [None] * 7,
        "scalars_bytes": content["scalars_bytes"],
    }


def test_a_checkpoint_of_the_first_format_is_resumed(tmp_path: Path) -> None:
    model = {"type": "tests.trainer.resume.test_migration:Steady"}
    whole, run = (make_run(tmp_path, base=NASTY, model=model) for _ in range(2))
    assert in_child(whole) == COMPLETE
    stop = signal_at(Phase.TRAIN_BATCH_LOAD, 3, signal.SIGUSR1, after=False)  # inside a window
    assert in_child(run, stop) == STOPPED
    path = (run / "checkpoints" / "latest.ckpt").resolve()
    content = as_version_1(torch.load(path, weights_only=True))
    assert content["ranks"][0]["train"]["window"] == 3
    torch.save(content, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.with_name(f"{path.name}.sha256").write_text(f"{digest}  {path.name}\n")
    assert in_child(run) == COMPLETE
    assert difference(result(run), result(whole)) is None
