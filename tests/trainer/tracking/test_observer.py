"""Images, gradients and parameters are logged as they are, and logging them changes nothing."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import TensorDataset

from mtf.trainer.loop.phases import Phase
from mtf.trainer.tracking.observer import histogram_of, images_in
from tests.trainer.hard_training import (
    COMPLETE,
    HARD,
    STOPPED,
    difference,
    in_child,
    result,
    signal_at,
)
from tests.trainer.runs import make_run
from tests.trainer.tracking.test_tracking import events_of, interrupted
from tests.trainer.wandb_file import history

if TYPE_CHECKING:
    from pathlib import Path

OBSERVING = {
    "tensorboard": True,
    "log_images_every_n_steps": 2,
    "log_gradients": True,
    "log_model_parameters": True,
    "log_histograms_every_n_steps": 2,
    "log_scalars_every_n_steps": 1,
}


class Pictures(TensorDataset):
    """Small images of noise."""

    num_classes = 3

    def __init__(self, split: str) -> None:
        generator = torch.Generator().manual_seed(len(split))
        count = 42 if split == "train" else 9
        super().__init__(
            torch.randn(count, 3, 6, 5, generator=generator), torch.arange(count) % self.num_classes
        )


class Painter(nn.Module):
    """Returns images of its own, with random numbers and in evaluation mode."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Dropout(0.3), nn.Linear(90, num_classes), nn.BatchNorm1d(num_classes)
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.layers(inputs)

    def images(self, batch: Any) -> torch.Tensor:
        """Return one image: the logits, with noise."""
        assert not self.training
        assert not torch.is_grad_enabled()
        logits = self(batch[0])
        return (logits + torch.rand_like(logits))[None, None]


PAINTING = {
    "model": {"type": "tests.trainer.tracking.test_observer:Painter"},
    "data": {"dataset_name": "tests.trainer.tracking.test_observer:Pictures"},
}


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "scalars.jsonl").read_text().splitlines()]


def trained(path: Path, **changes: Any) -> Path:
    run = make_run(path, base=HARD, **changes)
    assert in_child(run) == COMPLETE
    return run


def test_observing_changes_no_bit_of_the_training(tmp_path: Path) -> None:
    plain = result(trained(tmp_path / "plain", **PAINTING))
    run = make_run(
        tmp_path / "observed", base=HARD, **PAINTING, logging=OBSERVING | {"use_wandb": True}
    )
    interrupted(run)
    seen = result(run)
    for each in (plain, seen):
        del each["scalars"], each["content"]["scalars_bytes"]
    assert difference(plain, seen) is None


def test_observed_rows_are_the_same_with_and_without_interruptions(
    tmp_path: Path,
) -> None:
    whole = trained(tmp_path / "whole", **PAINTING, logging=OBSERVING)
    run = make_run(tmp_path / "parts", base=HARD, **PAINTING, logging=OBSERVING)
    for phase, nth in ((Phase.TRAIN_BATCH_OPTIM_STEP, 2), (Phase.TRAIN_BATCH_LOAD, 1)):
        assert in_child(run, signal_at(phase, nth, signal.SIGTERM, after=False)) == STOPPED
    kill = signal_at(Phase.SCHEDULER_BATCH_STEP, 1, signal.SIGKILL, after=True)
    assert in_child(run, kill) == -signal.SIGKILL
    assert in_child(run) == COMPLETE
    assert difference(result(whole), result(run)) is None
    found = rows(run)
    for kind in ("images", "gradients", "parameters"):
        assert [row["step"] for row in found if kind in row] == [2, 4, 6]
    histogram = next(row for row in found if "gradients" in row)["gradients"]["layers.2.weight"]
    assert sum(histogram["counts"]) == 270
    pictures = [path.name for path in sorted((run / "images").iterdir())]
    assert pictures == ["00000002.png", "00000004.png", "00000006.png"]
    for name in pictures:
        assert (run / "images" / name).read_bytes() == (whole / "images" / name).read_bytes()


def test_the_mirrors_show_images_and_histograms(tmp_path: Path) -> None:
    model = {"type": "tests.trainer.tracking.test_observer:Plain"}
    logging = OBSERVING | {"use_wandb": True}
    run = trained(tmp_path, **(PAINTING | {"model": model}), logging=logging)
    tags = events_of(run)
    for tag in ("images", "gradients/1.weight", "parameters/1.weight", "gradients/1.weight/norm"):
        assert [step for step, _ in tags[tag]] == [2, 4, 6]
    mirrored = history(run, len(rows(run)))
    counts = "gradients/1.weight.values"
    assert [row["step"] for row in mirrored if counts in row] == [2, 4, 6]
    assert sum(next(row for row in mirrored if counts in row)[counts]) == 270
    assert [row["step"] for row in mirrored if row.get("images._type") == "image-file"] == [2, 4, 6]
    with Image.open(run / "images" / "00000002.png") as image:
        assert image.size == (4 * 5, 6)  # a batch side by side


class Plain(nn.Sequential):
    """A linear classifier."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(90, num_classes))


class Broken(Painter):
    """Fails to return images."""

    def images(self, batch: Any) -> torch.Tensor:
        raise ValueError("no picture")


def test_a_model_whose_images_fail_continues_to_train(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = {"model": {"type": "tests.trainer.tracking.test_observer:Broken"}}
    trained(tmp_path, **(PAINTING | model), logging=OBSERVING)
    report = "images are no longer logged: ValueError: no picture. Training continues"
    assert capfd.readouterr().err.count(report) == 1


@pytest.mark.parametrize(
    ("batch", "is_image"),
    [
        (torch.zeros(2, 3, 8, 8), True),
        ([torch.zeros(2, 1, 8, 8), torch.zeros(2)], True),
        ({"pixels": (torch.zeros(2, 3, 8, 8),)}, True),
        (torch.zeros(2, 64), False),
        (torch.zeros(2, 16, 8, 8), False),
        (torch.zeros(2, 3, 1, 1), False),
        (["text"], False),
        ([], False),
        (None, False),
    ],
)
def test_images_are_recognised_by_shape(batch: Any, is_image: bool) -> None:
    assert (images_in(batch) is not None) == is_image


def test_a_histogram_has_the_counts_of_numpy() -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    found = histogram_of(values)
    counts, _ = np.histogram(values.double().numpy(), bins=32)
    assert found["counts"] == counts.tolist()
    assert found["norm"] == pytest.approx(float(values.norm()))


def test_a_value_that_is_not_finite_shows_in_the_norm_alone() -> None:
    found = histogram_of(torch.tensor([1.0, float("inf"), 3.0]))
    assert (found["low"], found["high"], sum(found["counts"])) == (1.0, 3.0, 2)
    assert found["norm"] == float("inf")
    assert histogram_of(torch.tensor([float("nan")]))["counts"] == []
    assert histogram_of(torch.ones(4))["counts"] == [4]
