"""Facts about a real SLURM, and the jobs that it would refuse."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.cluster import NodeShape
from mtf.executor.slurm.cluster_query import read_facts
from tests.cli.mtf import mtf, mtf_json
from tests.cli.specs import SINGLE
from tests.repos import make_repo

if TYPE_CHECKING:
    from pathlib import Path

    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm


@pytest.mark.usefixtures("cluster")
def test_partitions_nodes_and_limits_are_read_from_slurm() -> None:
    facts = read_facts()
    assert [one.name for one in facts.partitions] == ["low", "high"]
    assert facts.partitions[0].is_default
    assert facts.partitions[0].nodes == (NodeShape(4, 4, 8000),)
    assert facts.max_array_size == 1001


def test_specs_are_checked_against_the_live_cluster_and_the_committed_facts(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cluster.conf.exists()
    spec = SINGLE.replace("slurm: {", "slurm: {partition: hihg, ")
    repo = make_repo(tmp_path / "r", {"mtf.yaml": "# ours\n", "experiments/alone.yaml": spec})
    problem = "experiments/alone.yaml:7:20: slurm.partition: unknown partition 'hihg'. Did you mean 'high'?"
    assert mtf(repo.path, "validate", code=1).stdout == f"{problem} (SLURM)\n"
    assert mtf(repo.path, "validate", "--feasibility", code=1).stdout.splitlines() == [
        "experiments/alone.yaml:7:8: SLURM would refuse alone: invalid partition specified: hihg; "
        "Invalid partition name specified",
        f"{problem} (SLURM)",
    ]
    assert mtf(repo.path, "validate", "--staged").stdout == ""  # asks nobody
    mtf(repo.path, "doctor", "--write", code=None)
    assert (repo.path / "mtf.yaml").read_text().startswith("# ours\ncluster:\n  name: default\n")
    monkeypatch.delenv("SLURM_CONF")
    assert mtf(repo.path, "validate", code=1).stdout == f"{problem} (cluster: in mtf.yaml)\n"
    repo.write({"experiments/alone.yaml": spec.replace("hihg", "high")})
    assert mtf(repo.path, "validate", "--feasibility").stdout == ""


def test_a_plan_names_new_runs_that_slurm_would_refuse(cluster: Cluster, tmp_path: Path) -> None:
    assert cluster.conf.exists()
    huge = SINGLE.replace("slurm: {", "slurm: {mem: 9T, ").replace("alone", "huge")
    files = {"experiments/alone.yaml": SINGLE, "experiments/huge.yaml": huge}
    repo = make_repo(tmp_path / "r", {"mtf.yaml": "executor: slurm\n", **files})
    found = mtf_json(repo.path, "plan", "--format", "json", code=1)
    assert [a["experiment"] for a in found["actions"]] == ["alone", "huge"]
    refused = [(p["path"], p["line"], p["severity"]) for p in found["problems"]]
    assert refused == [("experiments/huge.yaml", 7, "error")] * 2
    assert "SLURM would refuse huge: " in found["problems"][0]["message"]
    assert "error: experiments/huge.yaml:7:" in mtf(repo.path, "plan", code=1).stdout
    assert mtf_json(repo.path, "plan", "--format", "json", "--only", "alone")["problems"] == []
