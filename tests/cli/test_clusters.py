"""Several clusters and one repository: each clone acts only on the runs of its own cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf import rundir
from tests.cli.lab import SETTINGS, make_lab, push, runs, spec, stop_jobs
from tests.cli.mtf import mtf, mtf_json
from tests.repos import Repo, git

if TYPE_CHECKING:
    from collections.abc import Iterator

CLUSTERS = """\
clusters:
  big: {runs_root: elsewhere, slurm: {partition: huge}, environment: {variables: {WHERE: big}}}
"""


@pytest.fixture(autouse=True)
def stop_worker(tmp_path: Path) -> Iterator[None]:
    yield
    stop_jobs(tmp_path)


def notes(repo: Repo) -> list[str]:
    found: list[str] = mtf_json(repo.path, "plan", "--format", "json")["notes"]
    return found


def test_each_controller_syncs_only_the_runs_of_its_cluster(tmp_path: Path) -> None:
    specs = {
        "a.yaml": spec("a", pause=0.1, epochs=500),
        "b.yaml": spec("b", pause=0.1, epochs=500) + "cluster: big\n",
    }
    lab = make_lab(tmp_path, specs, settings=SETTINGS + CLUSTERS)
    git(tmp_path, "clone", "-q", str(tmp_path / "lab.git"), "big")
    big = Repo(tmp_path / "big")
    big.git("config", "mtf.cluster", "big")
    assert notes(lab) == ["b: 1 of its runs wait for the controller of cluster big"]
    assert notes(big) == ["a: 1 of its runs wait for the controller of cluster default"]

    assert "partition huge" in mtf(big.path, "plan").stdout
    mtf(lab.path, "sync")
    assert list(runs(lab)) == ["a"]
    mtf(big.path, "sync", "--prune")
    found = runs(big)
    assert {name: run["cluster"] for name, run in found.items()} == {"a": "default", "b": "big"}
    assert Path(found["b"]["run_dir"]).is_relative_to(big.path / "elsewhere")
    (script,) = Path(found["b"]["run_dir"]).glob(f"{rundir.JOBS}/*/{rundir.SCRIPT}")
    assert "WHERE=big" in script.read_text().replace("'", "").replace('"', "")
    assert "CLUSTER" in mtf(big.path, "status").stdout

    # runs of another cluster are left alone, even if their spec is gone
    lab.git("rm", "-q", "experiments/b.yaml")
    push(lab, {})
    mtf(lab.path, "sync", "--prune")
    assert runs(lab)["b"]["state"] != "cancelled"
    assert runs(lab)["b"]["sync"] == "Synced"
    for verb in ("cancel", "preempt"):
        output = mtf(lab.path, verb, "b", code=1).stderr
        assert "is on cluster big, and this clone serves default" in output
    mtf(big.path, "cancel", "b")


def test_an_unknown_cluster_is_an_error_with_a_suggestion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab(tmp_path, {"b.yaml": spec("b") + "cluster: bog\n"}, settings=SETTINGS + CLUSTERS)
    output = mtf(lab.path, "validate", code=1).stdout
    assert (
        "experiments/b.yaml:8:10: cluster: 'bog' is not in mtf.yaml. Did you mean 'big'?" in output
    )
    monkeypatch.setenv("MTF_CLUSTER", "bog")
    assert "It has: big, default" in mtf(lab.path, "status", code=1).stderr
    monkeypatch.setenv("MTF_CLUSTER", "-x")
    assert "must begin with a letter or digit" in mtf(lab.path, "status", code=1).stderr
