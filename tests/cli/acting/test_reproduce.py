"""`mtf reproduce`: a run is run again from its pin, and the two are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.lab import MODELS, make_lab, runs, spec, stop_jobs
from tests.cli.mtf import mtf

if TYPE_CHECKING:
    from collections.abc import Iterator

RANDOM = MODELS.replace("time.sleep(self.pause)", "torch.seed()")  # of the system: never the same


@pytest.fixture(autouse=True)
def stop_worker(tmp_path: Path) -> Iterator[None]:
    yield
    stop_jobs(tmp_path)


def test_a_run_is_reproduced_bit_for_bit_from_its_pin(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a", epochs=1)})
    mtf(lab.path, "run", "experiments/a.yaml")
    first = runs(lab)["a"]
    lab.commit({"models.py": RANDOM})  # newer code is not what is reproduced
    said = mtf(lab.path, "reproduce", "a").stdout
    second = runs(lab)["a-reproduced"]
    assert f"reproduced {first['run']} bit for bit by {second['run']}" in said
    assert (second["reproduces"], second["commit"]) == (first["run"], first["commit"])

    # without checkpoints, the metrics are compared; a difference is named, and the exit code is 1
    Path(second["checkpoint"]["path"]).unlink()
    scalars = Path(second["run_dir"], "scalars.jsonl")
    compare = ("reproduce", first["run"], "--with", second["run"])
    assert "as far as it could be compared" in mtf(lab.path, *compare).stdout
    scalars.write_text(scalars.read_text().replace('"train_loss": ', '"train_loss": 1'))
    found = json.loads(mtf(lab.path, *compare, "--json", code=1).stdout)
    assert found["first_difference"]["metric"] == "train_loss"
    assert found["reproduced"] is False
    assert "is gone" in found["not_compared"][0]


def test_a_training_that_is_not_deterministic_is_not_reproduced(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a", epochs=1)})
    lab.commit({"models.py": RANDOM})
    mtf(lab.path, "run", "experiments/a.yaml")
    said = mtf(lab.path, "reproduce", "a", code=1).stdout
    assert "NOT reproduced" in said
    assert "first difference at step" in said
    assert "tensors differ, the first is net" in said
    assert "packages, hardware and threads are the same" in said
