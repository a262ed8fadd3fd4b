"""What is submitted is what is judged, whichever way a job's options come about."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from mtf import ModelTrainingFramework, SLURMConfig
from mtf.errors import RepositoryError, SpecError
from tests.cli.lab import SETTINGS, make_lab, push, runs, spec, sync_until
from tests.cli.mtf import mtf

if TYPE_CHECKING:
    from pathlib import Path

    from tests.repos import Repo

RULES = SETTINGS + "policies: {partitions: [low], max_cpu_hours: 1, max_gpu_hours: 0}\n"
HIGH = spec("more").replace("slurm: {", "slurm: {partition: high, ")
LOW = spec("broken", model="Broken").replace("slurm: {", "slurm: {partition: low, ")


def failed_lab(folder: Path) -> Repo:
    lab = make_lab(folder, {"broken.yaml": LOW}, settings=RULES)
    sync_until(lab, lambda found: all(r["state"] == "failed" for r in found.values()))
    return lab


def test_a_retry_cannot_change_a_run_past_the_policies(tmp_path: Path) -> None:
    lab = failed_lab(tmp_path)
    before = runs(lab, "--recorded")
    for change, rule in {
        "slurm.partition=high": "partitions",
        "slurm.gpus_per_node=1": "max_gpu_hours",
        "slurm.time=2:00:00": "max_cpu_hours",
        "slurm.time=0:00": "max_cpu_hours",
        "slurm.extra=[--gres=gres:gpu:1]": "max_gpu_hours",
        "slurm.extra=[--exclusive]": "max_cpu_hours",
        "slurm.extra=[--reboot]": "sbatch_options",
    }.items():
        refused = mtf(lab.path, "retry", "broken", "--set", change, code=1)
        assert f"[{rule}]" in refused.stderr
        assert runs(lab, "--recorded") == before
    mtf(lab.path, "retry", "broken", "--set", "slurm.time=00:20:00")
    (run,) = runs(lab).values()
    assert len(run["attempts"]) == 2


def test_a_run_is_not_continued_once_the_policies_forbid_its_partition(tmp_path: Path) -> None:
    lab = failed_lab(tmp_path)
    push(lab, {"mtf.yaml": RULES.replace("[low]", "[cpu]")})
    refused = mtf(lab.path, "retry", "broken", code=1)
    assert "slurm.partition: low is not allowed. Allowed: cpu [partitions]" in refused.stderr


@pytest.mark.parametrize("rule", ["names: exp-.*", "require: [owner]", "require_signed: true"])
def test_a_run_is_not_retried_once_another_policy_forbids_it(tmp_path: Path, rule: str) -> None:
    lab = failed_lab(tmp_path)
    push(lab, {"mtf.yaml": RULES.replace("policies: {", f"policies: {{{rule}, ")})
    before = runs(lab, "--recorded")
    refused = mtf(lab.path, "retry", "broken", code=1)
    assert rule.partition(":")[0] in refused.stderr or "no good signature" in refused.stderr
    mtf(lab.path, "sync", code=None)
    assert runs(lab, "--recorded") == before


def test_a_program_cannot_submit_what_a_spec_could_not(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"broken.yaml": LOW}, settings=RULES)
    framework = ModelTrainingFramework(lab.path)
    config = {
        "experiment_name": "direct",
        "model": {"type": "mlp"},
        "data": {"dataset_name": "digits"},
        "slurm": {"partition": "low", "time": "00:10:00"},
    }
    experiment = framework.create_experiment(config)
    high = SLURMConfig(partition="high", time="00:10:00")
    experiment = experiment.model_copy(update={"slurm": high})
    with pytest.raises(SpecError, match="high is not allowed"):
        framework.run_experiment(experiment, local=True)
    assert runs(lab) == {}


def test_a_branch_cannot_lift_the_rules_for_what_it_submits(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"broken.yaml": LOW}, settings=RULES)
    lab.git("switch", "-q", "-c", "mine")
    lab.write({"mtf.yaml": SETTINGS, "experiments/more.yaml": HIGH})
    lab.git("add", "-A")
    lab.git("commit", "-q", "-m", "more")
    done = mtf(lab.path, "sync", "--rev", "mine", code=3)
    assert "high is not allowed. Allowed: low [partitions]" in done.stderr
    assert "more" not in runs(lab)
    direct = {
        "experiment_name": "direct",
        "model": {"type": "mlp"},
        "data": {"dataset_name": "digits"},
        "slurm": {"partition": "high", "time": "00:10:00"},
    }
    framework = ModelTrainingFramework(lab.path)
    with pytest.raises(SpecError, match="high is not allowed"):
        framework.run_experiment(framework.create_experiment(direct), local=True)
    rules = RULES.replace("policies: {", "policies: {branches: [release/*], ")
    lab.git("switch", "-q", "main")
    push(lab, {"mtf.yaml": rules})
    lab.git("switch", "-q", "mine")
    direct["slurm"] = {"partition": "low", "time": "00:10:00"}
    framework = ModelTrainingFramework(lab.path)
    with pytest.raises(
        RepositoryError, match=f"{lab.git('rev-parse', 'HEAD')}: not in the history of main"
    ):
        framework.run_experiment(framework.create_experiment(direct), local=True)


def test_a_sync_holds_a_continuation_back_until_the_policies_allow_it(tmp_path: Path) -> None:
    again = RULES.replace("backoff: 0", "backoff: 0, on: [code-error]")
    lab = make_lab(tmp_path, {"broken.yaml": LOW}, settings=again)
    mtf(lab.path, "sync")
    push(lab, {"mtf.yaml": again.replace("[low]", "[cpu]")})
    done = mtf(lab.path, "sync", code=None)
    while "1 run held back" not in done.stderr:  # the first job must have failed
        time.sleep(0.2)
        done = mtf(lab.path, "sync", code=None)
    assert done.returncode == 3
    assert "slurm.partition: low is not allowed. Allowed: cpu [partitions]" in done.stderr
    assert len(runs(lab)["broken"]["attempts"]) == 1
    push(lab, {"mtf.yaml": again})
    sync_until(lab, lambda found: found["broken"]["state"] == "failed")
    assert len(runs(lab)["broken"]["attempts"]) == 2
