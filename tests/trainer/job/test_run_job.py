"""Jobs as the job script starts them: real processes, real signals, a real pinned checkout."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from mtf import rundir
from mtf.core.planner.journal_reader import fold
from mtf.core.vocabulary.ids import Token
from mtf.trainer.job.run_job import main_line
from tests.trainer.hard_training import difference, result
from tests.trainer.runs import Job, config_with, events, execute, make_run, read_config, wait_for

# A model that signals its process group in its nth forward pass, once for each line of a file that
# the test puts beside the run; the data has a worker process, which gets the signal too.
TASK = """
import json, os, random, signal
from pathlib import Path
import torch
from torch.utils.data import Dataset

PLACE = Path(os.environ["MTF_RUN_DIR"]) / "signals.json"

class Net(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer = torch.nn.Linear(4, num_classes)
        self.drop = torch.nn.Dropout(0.5)
        self.calls = 0
        self.wanted = json.loads(PLACE.read_text()) if PLACE.exists() else []

    def forward(self, inputs):
        self.calls += 1
        if self.wanted and self.calls == self.wanted[0][0]:
            PLACE.write_text(json.dumps(self.wanted[1:]))
            os.killpg(os.getpgrp(), self.wanted[0][1])
        return self.layer(self.drop(inputs))

class Data(Dataset):
    num_classes = 3
    def __init__(self, split):
        self.size = 40 if split == "train" else 10
    def __len__(self):
        return self.size
    def __getitem__(self, index):
        return torch.rand(4) + random.random(), index % 3

def broken(split):
    raise ValueError("no such disk")
"""

SMALL: dict[str, Any] = {
    "experiment_name": "small",
    "model": {"type": "task:Net"},
    "data": {"dataset_name": "task:Data", "num_workers": 1},
    "training": {"max_epochs": 3, "batch_size": 4, "use_amp": False, "seed": 5},
    "optimizer": {"type": "adamw", "lr": 1e-2},
    "scheduler": {"type": "cosine"},
    "logging": {"log_scalars_every_n_steps": 3},
    "entrypoint": None,
}


def kinds(run: Path) -> list[str]:
    return [fact["event"] for fact in events(run)]


def test_a_run_trains_to_the_end_once(tmp_path: Path) -> None:
    run = make_run(tmp_path, training={"max_epochs": 5})
    code, output = execute(run)
    assert (code, output) == (0, "")
    (started,) = events(run, "started")
    del started["at"], started["host"]
    assert started == {
        "event": "started",
        "token": "t",
        "job_id": "1",
        "restarts": 0,
        "world_size": 1,
        "resumed_from": None,
        "epoch": 0,
        "step": 0,
        "max_epochs": 5,
        "monitor": "val_loss",
        "mode": "min",
    }
    (proof,) = events(run, "proof")
    assert len(proof["packages_sha256"]) == 64
    assert proof["packages"]["torch"]
    reached = fold(rundir.read_journal(run), str(run))
    assert reached.finished_at
    assert (reached.epoch, reached.step, reached.total_steps) == (5, 115, 115)
    assert reached.metrics["val_accuracy"] >= 0.95
    assert reached.best is not None
    assert reached.checkpoint is not None
    assert Path(reached.checkpoint.path).samefile(run / "checkpoints" / "latest.ckpt")
    before = kinds(run)
    assert before[:2] == ["started", "proof"]
    assert before[-1] == "finished"

    code, output = execute(run, job_id="1")  # SLURM requeued it all the same
    assert (code, output) == (0, "mtf: nothing to do: this run is complete\n")
    assert kinds(run) == before


def test_every_signal_ends_a_job_its_own_way_and_the_run_ends_in_the_same_bits(
    tmp_path: Path,
) -> None:
    whole = make_run(tmp_path, {"task.py": TASK}, SMALL)
    assert Job(whole).end()[0] == 0

    run = make_run(tmp_path, {"task.py": TASK}, SMALL)
    plan = [(5, signal.SIGTERM), (9, signal.SIGUSR1), (2, signal.SIGINT), (1, signal.SIGTERM)]
    (run / "signals.json").write_text(json.dumps(plan))

    job = Job(run)
    wait_for(lambda: events(run, "stopped") or job.poll() is not None)
    os.kill(job.pid, signal.SIGUSR1)  # no second signal makes it leave
    with pytest.raises(TimeoutError):  # it waits to be killed: SLURM alone knows what follows
        wait_for(lambda: job.poll() is not None, seconds=1)
    os.killpg(job.pid, signal.SIGKILL)
    assert job.end()[0] == -signal.SIGKILL

    assert Job(run, MTF_RESTARTS="1").end()[0] == 85
    assert Job(run, token="t2", job_id="2").end()[0] == 130
    # the local executor knows what it has sent TERM for: nothing to wait for
    assert Job(run, token="t3", job_id="3", MTF_EXECUTOR="local").end()[0] == 143
    code, output = execute(run, token="t4", job_id="4")  # in a fresh interpreter: the same bits
    assert (code, "sha256 verified" in output) == (0, True)

    stops = events(run, "stopped")
    assert [stop["reason"] for stop in stops] == ["SIGTERM", "SIGUSR1", "SIGINT", "SIGTERM"]
    starts = events(run, "started")
    for stop, begin in zip(stops, starts[1:], strict=True):
        assert (begin["epoch"], begin["step"]) == (stop["epoch"], stop["step"])
        assert begin["resumed_from"].startswith("checkpoints/epoch_")
    assert [begin["restarts"] for begin in starts] == [0, 1, 0, 0, 0]
    assert difference(result(run), result(whole)) is None


def test_a_damaged_checkpoint_is_reported_once(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"task.py": TASK}, SMALL)
    (run / "signals.json").write_text(json.dumps([(7, signal.SIGUSR2)]))
    assert Job(run).end()[0] == 85
    newest = (run / "checkpoints" / "latest.ckpt").resolve()
    newest.write_bytes(newest.read_bytes()[:-1])
    code, output = Job(run, job_id="2", token="u").end()
    assert code == 0
    assert output.count(f"checkpoint {newest.name} is damaged") == 1


def test_a_job_that_did_not_claim_the_run_touches_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    rundir.claim(run, Token("t"), "7")
    code, output = Job(run, job_id="8").end()
    assert code == 0
    assert "job 7 has claimed this attempt: job 8 exits without training" in output
    assert not (run / rundir.JOURNAL).exists()


def test_a_failure_is_journaled_with_its_main_line_and_traceback(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"task.py": TASK}, SMALL, data={"dataset_name": "task:broken"})
    code, output = Job(run).end()
    assert code == 1
    (failed,) = events(run, "failed")
    assert failed["reason"] == "ValueError: no such disk"
    assert 'task.py", line' in failed["traceback"]
    assert failed["traceback"].rstrip() in output


def test_a_failure_names_the_users_own_line(tmp_path: Path) -> None:
    model = (
        "import torch\n"
        "class Net(torch.nn.Linear):\n"
        "    def __init__(self):\n"
        "        super().__init__(64, 10)\n"
        "    def forward(self, x):\n"
        "        return super().forward(x.flatten(1)) + self.no_such\n"
    )
    run = make_run(tmp_path, {"src/own.py": model})
    config = {**read_config(run), "model": {"type": "own:Net"}}
    (run / rundir.CONFIG).write_text(rundir.render_yaml(config))
    assert execute(run)[0] == 1
    (failed,) = events(run, "failed")
    assert failed["reason"].endswith(" has no attribute 'no_such' (src/own.py:6)")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bad"), "ValueError: bad"),
        (KeyError("lr"), "KeyError: 'lr'"),
        (
            RuntimeError(
                "CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA` to see more"
            ),
            "RuntimeError: CUDA error: out of memory",
        ),
        (
            MemoryError(
                "Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback"
                ' (most recent call last):\n  File "data.py"\nMemoryError: 8 GB'
            ),
            "MemoryError: 8 GB",
        ),
        (SyntaxError("invalid syntax", ("a.py", 1, 1, "x =", 1, 2)), "SyntaxError: invalid syntax"),
    ],
)
def test_the_main_line_of_an_error_says_what_was_wrong(error: Exception, line: str) -> None:
    assert main_line(error) == line


def test_a_wrong_configuration_is_journaled_without_a_traceback_on_screen(tmp_path: Path) -> None:
    run = make_run(tmp_path, training={"max_epochs": 0})
    code, output = Job(run).end()
    assert code == 1
    (refused,) = events(run, "refused")
    assert "max_epochs" in refused["reason"]
    assert "Traceback" not in output


def test_a_job_without_its_environment_says_how_runs_start(tmp_path: Path) -> None:
    code, output = Job(make_run(tmp_path), token="").end()
    assert code == 1
    assert "MTF_TOKEN not set: a run is started by its job script" in output


def test_a_changed_checkout_is_refused_before_anything_is_imported(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"task.py": TASK}, SMALL)
    (code_dir,) = (d for d in (tmp_path / "runs" / ".code").iterdir() if d.is_dir())
    (code_dir / "task.py").write_text(TASK.replace("0.5", "0.6"))
    code, output = Job(run).end()
    assert code == 1
    assert kinds(run) == ["started", "refused"]
    assert "task.py has other content" in output


def test_the_checkout_wins_and_what_only_the_live_tree_has_is_refused(tmp_path: Path) -> None:
    live = tmp_path / "live"
    live.mkdir()
    (live / "task.py").write_text("raise RuntimeError('the live tree was imported')\n")
    (live / "helper.py").write_text("")
    own = "import helper\ndef main(run): raise RuntimeError('it ran')\n"
    run = make_run(tmp_path, {"task.py": own}, SMALL, entrypoint="task:main")
    code, output = Job(run, live=live).end()
    assert code == 1
    (refused,) = events(run, "refused")
    assert f"module helper comes from {live}/helper.py" in refused["reason"]
    assert "pip uninstall helper" in output
    assert "it ran" not in output


LOOP = """
import os, signal, torch

def main(run):
    model = torch.nn.Linear(2, 2)
    saved = run.resume()
    if saved:
        model.load_state_dict(saved["model"])
    for epoch in range(saved["epoch"] if saved else 0, run.config.training.max_epochs):
        with torch.no_grad():
            model.weight += 1
        run.progress(epoch + 1, epoch + 1)
        run.log(epoch + 1, epoch + 1, {"weight": float(model.weight.mean())})
        if epoch == 0:
            os.kill(os.getpid(), signal.SIGUSR1)
        if run.stop_requested or epoch == 2:
            content = {"model": model.state_dict(), "epoch": epoch + 1}
            run.checkpoint(content, epoch + 1, epoch + 1)
        run.stop_if_requested(epoch + 1, epoch + 1)

def fit(run):
    data = run.data()
    model = run.model(data)
    optimizer = run.optimizer(model)
    run.trainer(model, optimizer, run.schedule(optimizer, data)).fit(data.train, data.validation)
"""


def test_an_entry_point_with_its_own_loop_resumes_and_stops(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"src/own.py": LOOP}, SMALL, entrypoint="own:main")
    assert Job(run).end()[0] == 85
    assert events(run, "stopped")[0]["step"] == 1
    assert Job(run, MTF_RESTARTS="1").end()[0] == 0
    weights = [fact["metrics"]["weight"] for fact in events(run, "metrics")]
    assert [round(weight - weights[0]) for weight in weights] == [0, 1, 2]
    (finished,) = events(run, "finished")
    assert (finished["epoch"], finished["step"]) == (3, 3)
    assert finished["metrics"] == {"weight": weights[-1]}


def test_an_entry_point_may_use_the_trainer(tmp_path: Path) -> None:
    digits = {"model": {"type": "mlp", "hidden_size": 16, "num_layers": 1}}
    base = config_with(SMALL, {**digits, "data": {"dataset_name": "digits"}})
    run = make_run(tmp_path, {"own.py": LOOP}, base, entrypoint="own:fit", scheduler=None)
    assert Job(run).end()[0] == 0
    assert events(run, "finished")[0]["metrics"]["val_accuracy"] > 0.8


def test_two_ranks_share_a_run_and_stop_together(tmp_path: Path) -> None:
    """As srun starts them on one node: one rank hears the signal, both stop at the same step."""

    def run_ranks(run: Path, **env: Any) -> list[int]:
        port = str(20_000 + os.getpid() % 20_000)
        slurm: dict[str, Any] = {
            "SLURM_NTASKS": "2",
            "SLURM_NTASKS_PER_NODE": "2",
            "SLURM_NNODES": "1",
            "SLURM_NODEID": "0",
            "SLURM_NODELIST": "localhost",
            "SLURM_JOB_ID": "1",
            "SLURM_JOB_NAME": "mtf",
            "MASTER_PORT": port,
        }
        ranks = [
            Job(run, **slurm, SLURM_PROCID=str(n), SLURM_LOCALID=str(n), **env) for n in range(2)
        ]
        return [rank.end()[0] for rank in ranks]

    two = {"slurm": {"ntasks_per_node": 2}, "data": {"num_workers": 0}}
    whole = make_run(tmp_path, {"task.py": TASK}, SMALL, **two)
    assert run_ranks(whole) == [0, 0]
    assert events(whole, "started")[0]["world_size"] == 2

    run = make_run(tmp_path, {"task.py": TASK}, SMALL, **two)
    (run / "signals.json").write_text(json.dumps([(4, signal.SIGUSR1)]))
    assert run_ranks(run) == [85, 85]
    assert run_ranks(run, MTF_RESTARTS="1") == [0, 0]
    assert len(events(run, "stopped")) == len(events(run, "finished")) == 1
    assert difference(result(run), result(whole)) is None
