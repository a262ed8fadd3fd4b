"""Policies and the options of real jobs: a template cannot lead a job past them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.packaged_files import data_dir
from tests.cli.lab import SETTINGS, make_lab, push, runs, spec
from tests.cli.mtf import mtf

if TYPE_CHECKING:
    from pathlib import Path

    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm
RULES = SETTINGS.replace("local\n", "slurm\n", 1)
RULES += "policies: {partitions: [low], max_cpu_hours: 1, max_gpu_hours: 0}\n"
LOW = spec("one").replace("slurm: {", "slurm: {partition: low, ")
JOB = (data_dir("templates") / "job.sbatch.j2").read_text()
PAST = {
    "#SBATCH -phigh": "[partitions]",
    "#SBATCH --time\n#SBATCH 30-0": "[max_cpu_hours]",
    "#SBATCH --gres=none --gpus=2": "[max_gpu_hours]",
    "#SBATCH --clusters=other": "[sbatch_options]",
    "#SBATCH --reboot": "[sbatch_options]",
}


def template(line: str) -> str:
    """Return mtf's template with a line after the options of mtf."""
    return JOB.replace("{% endfor %}", "{% endfor %}\n" + line, 1)


def test_a_template_cannot_lead_a_job_past_the_policies(cluster: Cluster, tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"one.yaml": LOW}, settings=RULES)
    for line, rule in PAST.items():
        push(lab, {"templates/job.sbatch.j2": template(line)})
        held = mtf(lab.path, "sync", code=3)
        assert rule in held.stderr
        assert "1 run held back" in held.stderr
        assert runs(lab) == {}
        assert cluster.run("squeue", "--noheader").strip() == ""
    push(lab, {"templates/job.sbatch.j2": template("#SBATCH -H")})
    mtf(lab.path, "sync")
    assert cluster.run("squeue", "--noheader", "--format=%P %r").strip() == "low JobHeldUser"
