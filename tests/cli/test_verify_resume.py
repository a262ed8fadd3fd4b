"""`mtf verify-resume`: the work tree is verified, and the exit code says whether it is exact."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from mtf.commands import verify_resume
from mtf.commands.verify_resume import Options, shortened
from mtf.report.proofs import Proved, table_of, verdict_text
from mtf.trainer.loop.phases import Phase
from mtf.trainer.verify.__main__ import REQUEST
from mtf.trainer.verify.training_runner import VerifyRequest
from tests.cli.mtf import mtf
from tests.repos import make_repo

if TYPE_CHECKING:
    from pathlib import Path

SPEC = """\
kind: experiment
experiment_name: alone
model: {type: "nets:Net"}
data: {dataset_name: digits, num_workers: 0}
training: {max_epochs: 90, batch_size: 64, use_amp: false}
optimizer: {type: sgd, lr: 1e-2}
"""
GRID = """\
kind: grid
name: search
base: alone.yaml
parameters: {optimizer.lr: [1e-3, 1e-2]}
"""
NET = """\
from torch import nn
class Net(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.Flatten(), nn.Linear(64, num_classes))
"""
COUNTING_NET = (
    NET
    + """\
        self.calls = 0
    def training_step(self, batch):
        self.calls += 1
        return nn.functional.cross_entropy(self(batch[0]), batch[1]) / self.calls
"""
)
CONFIG: dict[str, Any] = {
    "training": {"max_epochs": 100, "gradient_accumulation_steps": 4},
    "data": {"num_workers": 8},
    "slurm": {"nodes": 1, "ntasks_per_node": 2},
    "checkpoint": {"every_n_minutes": 5, "monitor": "val_loss"},
    "logging": {"use_wandb": True},
    "init_from": {"run": "another"},
}
FINDING: dict[str, Any] = {
    "stage": "interruption",
    "interruption": "SIGKILL after EPOCH_END number 1",
    "places": 3,
    "first": "model/w: 1 of 2 values, by 0.5 at most",
    "at_resume": True,
    "batch": "training batch 0 of epoch 1 (optimizer step 4)",
    "losses": [1.0, 2.0],
    "row": [{"step": 5}, None],
}


STARTED = {"device": "cpu", "torch": "2.13.0", "python": "3.11.7"}


def test_a_terminated_proof_leaves_nothing_behind(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "lab", {"experiments/alone.yaml": SPEC, "src/nets.py": NET})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "mtf.cli", "verify-resume", "alone"]
    proof = subprocess.Popen(
        command, cwd=repo.path, env={**os.environ, "TMPDIR": str(scratch)}, stderr=subprocess.PIPE
    )
    assert proof.stderr is not None
    while b"verifying" not in proof.stderr.readline():
        assert proof.poll() is None
    while not list(scratch.glob("*/verify.log")):  # the verifier has been started
        time.sleep(0.02)
    proof.terminate()
    proof.communicate(timeout=120)
    assert proof.returncode == 130
    assert not list(scratch.iterdir())


def test_an_uncommitted_spec_in_the_work_tree_is_proved_exact(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "lab", {"README": "the spec is not committed yet\n"})
    repo.write({"experiments/alone.yaml": SPEC, "src/nets.py": NET})
    options = ("--phases", "epoch_end,TRAIN_BATCH_LOAD", "--stops", "2", "--steps", "2", "--json")
    done = mtf(repo.path, "verify-resume", "experiments/alone.yaml", *options)
    verdict = json.loads(done.stdout)
    assert verdict["exact"] is True
    assert verdict["experiment"] == "alone"
    assert [row["phase"] for row in verdict["phases"]] == ["TRAIN_BATCH_LOAD", "EPOCH_END"]
    assert all(row["exact"] == row["stops"] + row["kills"] > 0 for row in verdict["phases"])
    assert verdict["chain"]["exact"] is True
    assert "2 of 90 epochs, each of 2 optimizer steps" in done.stderr
    assert "verifying the work tree" in done.stderr
    assert repo.git("status", "--porcelain", "-uall").count("\n") == 1, "only the two files"


def test_a_training_that_is_not_exact_exits_with_1_and_names_cause_and_cure(
    tmp_path: Path,
) -> None:
    files = {"experiments/alone.yaml": SPEC, "src/nets.py": COUNTING_NET}
    repo = make_repo(tmp_path / "lab", files)
    options = ("--phases", "TRAIN_BATCH_END", "--stops", "0", "--steps", "2", "--json")
    done = mtf(repo.path, "verify-resume", "alone", *options, code=1)
    verdict = json.loads(done.stdout)
    assert verdict["exact"] is False
    assert verdict["cause"]["kind"] == "state-outside"
    assert "Net.calls" in verdict["cause"]["text"]
    assert "register_buffer" in verdict["cause"]["cure"]
    assert verdict["finding"]["stage"] == "interruption"
    assert verdict["finding"]["at_resume"] is True
    assert sum(row["exact"] for row in verdict["phases"]) < sum(
        row["stops"] + row["kills"] for row in verdict["phases"]
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("alnoe",), "no such spec, experiment or grid. Did you mean 'alone'?"),
        (("search", "--member", "lr=0.1"), "--member lr=0.1: no such member"),
        (("alone", "--member", "x"), "is a single experiment, not a grid"),
        (("alone", "--phases", "EPOCH"), "--phases: EPOCH is not a phase. Use INIT, "),
        (("README",), "README is not a spec"),
    ],
)
def test_a_name_of_nothing_is_a_usage_error(
    args: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    files = {"README": "", "experiments/alone.yaml": SPEC, "experiments/search.yaml": GRID}
    repo = make_repo(tmp_path / "lab", files)
    assert message in mtf(repo.path, "verify-resume", *args, code=64).stderr


def test_mistakes_in_the_spec_are_reported_with_their_lines(tmp_path: Path) -> None:
    wrong = SPEC.replace("num_workers", "nun_workers").replace("nets:Net", "mlp")
    repo = make_repo(tmp_path / "lab", {"experiments/alone.yaml": wrong.replace("lr:", "rl:")})
    done = mtf(repo.path, "verify-resume", "experiments/alone.yaml", code=1)
    assert "experiments/alone.yaml:" in done.stderr


def test_a_grid_is_verified_by_its_first_member_or_a_named_one(tmp_path: Path) -> None:
    files = {"experiments/alone.yaml": SPEC, "experiments/search.yaml": GRID}
    repo = make_repo(tmp_path / "lab", files)
    for member, lr in ((None, "0.001"), ("optimizer.lr=0.01", "0.01")):
        prepared = verify_resume.prepare(repo.path, "search", Options(member=member))
        assert f"lr: {lr}" in (prepared.folder / "config.yaml").read_text()
        verify_resume.remove(prepared)


def test_a_training_is_shortened_and_every_difference_is_noted() -> None:
    short = shortened(CONFIG, Options(workers=0))
    assert short.config["training"]["max_epochs"] == 2
    assert short.batches == 15, "four windows of four, the last one smaller"
    assert short.config["checkpoint"]["monitor"] == "val_loss"
    assert short.config["logging"]["use_wandb"] is False
    assert short.config["init_from"] is None
    text = "\n".join(short.notes)
    assert "init_from is left out" in text
    assert "2 of 100 epochs" in text
    assert "data.num_workers: 0 instead of 8" in text
    assert "2 ranks are not verified together" in text
    assert CONFIG["training"]["max_epochs"] == 100


def test_the_command_and_the_trainer_agree_on_phases_and_request(tmp_path: Path) -> None:
    assert tuple(p for p in Phase if p is not Phase.TRAINING_COMPLETE) == verify_resume.PHASES
    repo = make_repo(tmp_path / "lab", {"experiments/alone.yaml": SPEC})
    prepared = verify_resume.prepare(repo.path, "alone", Options(phases=("INIT",), stops=3))
    request = VerifyRequest.read(prepared.folder / REQUEST)
    assert (request.phases, request.stops, request.batches) == (("INIT",), 3, 4)
    verify_resume.remove(prepared)


def test_a_verdict_names_step_scalars_tensor_cause_and_cure() -> None:
    cause = {"kind": "state-outside", "text": "Net.calls", "cure": "register_buffer"}
    verdict = {"exact": False, "seconds": 3.2, "finding": FINDING, "cause": cause}
    assert verdict_text(verdict, Proved("alone", STARTED, [], None)) == (
        "NOT exact: a training that got SIGKILL after EPOCH_END number 1 differs (3 s)\n"
        "  first step    training batch 0 of epoch 1 (optimizer step 4), the first after the resume:"
        " loss 1 whole, 2 resumed\n"
        '    whole       {"step": 5}\n'
        "    resumed     (missing)\n"
        "  first tensor  model/w: 1 of 2 values, by 0.5 at most (3 places in all)\n"
        "  cause         Net.calls\n"
        "  cure          register_buffer"
    )
    rows = [{"phase": "INIT", "stops": 2, "kills": 1, "exact": 3}]
    rows += [{"phase": "EPOCH_END", "stops": 2, "kills": 1, "exact": 1}]
    assert [row[3] for row in table_of(rows).rows] == ["all", "1 of 3"]


def test_a_printed_verdict_names_proof_device_and_duration() -> None:
    rows = [{"phase": "INIT", "stops": 2, "kills": 1, "exact": 3}]
    rows += [{"phase": "EPOCH_END", "stops": 2, "kills": 2, "exact": 4}]
    chain = {"interruptions": 10, "trainings": 2, "exact": True}
    verdict = {
        "exact": True,
        "seconds": 9.4,
        "trainings": 11,
        "processes": 29,
        "at_once": 2,
        "tensors": 27,
        "bytes": 329_000,
    }
    assert verdict_text(verdict, Proved("alone", STARTED, rows, chain)).splitlines() == [
        "exact: alone ends in the same bits, however it is interrupted",
        "  interrupted  7 times in 2 phases (4 by TERM, USR1 or INT, 3 by KILL), then 10 times in a"
        " row; resumed in a new process each time",
        "  compared     every bit of 27 tensors (0.329 MB): weights, buffers, optimizer, random"
        " generators; and of counters, metrics and scalars",
        "  on           the CPU, torch 2.13.0, Python 3.11.7",
        "  took         9 s: 11 trainings in 29 processes, 2 at once",
    ]
