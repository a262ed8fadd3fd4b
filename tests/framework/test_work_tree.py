"""Programs that run experiments while something is not committed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf import ExecutionMode, ModelTrainingFramework, ParameterGrid
from mtf.errors import ConfigurationError, MtfError
from tests.cli.lab import make_lab, stop_jobs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.repos import Repo

CONFIG = {
    "experiment_name": "one",
    "model": {"type": "newer:Slow", "pause": 0.1},
    "data": {"dataset_name": "digits", "num_workers": 0},
    "training": {"max_epochs": 50, "use_amp": False},
}


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Repo]:
    """Return a repository in which the code of a model is in no commit."""
    made = make_lab(tmp_path, {})
    made.write({"newer.py": (made.path / "models.py").read_text(), "look.ipynb": "{}"})
    yield made
    stop_jobs(tmp_path)


def test_a_dirty_work_tree_is_refused_or_pinned_as_a_snapshot(lab: Repo) -> None:
    framework = ModelTrainingFramework(lab.path)
    grid = ParameterGrid("widths", {"model.hidden_size": [4, 8]})
    for ask in (
        lambda: framework.run_experiment(CONFIG, local=True),
        lambda: framework.run_single_experiment(CONFIG, mode=ExecutionMode.LOCAL),
        lambda: framework.run_grid_search(CONFIG, [grid], local=True),
        lambda: framework.launcher.submit_experiments([CONFIG]),
    ):
        with pytest.raises(MtfError, match=r"1 code file \(newer\.py\)\. .*: snapshot=True"):
            ask()
    assert framework.status() == []

    run = framework.run_experiment(CONFIG, local=True, snapshot=True)
    record = run.record
    assert record.snapshot_of == lab.git("rev-parse", "HEAD")
    assert (
        lab.git("show", f"{record.commit}:newer.py") == (lab.path / "newer.py").read_text().strip()
    )
    assert lab.git("status", "--porcelain").split() == ["??", "look.ipynb", "??", "newer.py"]
    # the same work tree asks for the same run; another one for another
    assert framework.run_experiment(CONFIG, local=True, snapshot=True).id == run.id
    lab.commit({"models.py": "# gone\n"})
    other = framework.run_experiment(CONFIG, local=True)
    assert other.id != run.id
    assert other.record.snapshot_of is None
    for each in (run, other):
        each.cancel()


class InThisScript:
    """Stands for a model that a script or notebook defines."""


def test_a_model_of_a_script_or_notebook_is_refused_with_the_cure(lab: Repo) -> None:
    framework = ModelTrainingFramework(lab.path)
    InThisScript.__module__ = "__main__"
    for kind in ("__main__:Net", InThisScript):
        config = {**CONFIG, "model": {"type": kind}}
        with pytest.raises(ConfigurationError, match="module of the repository"):
            framework.run_experiment(config, local=True, snapshot=True)
