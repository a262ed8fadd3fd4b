"""One process a run: whoever else is started for it is shut out and leaves no trace."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

from tests.trainer.hard_training import difference, result
from tests.trainer.runs import DIGITS, Job, config_with, events, make_run, wait_for

if TYPE_CHECKING:
    from pathlib import Path

# A model that waits, in the third forward pass of the first start, until a file exists.
WAITING = """
import os, time
from pathlib import Path
import torch

RUN = Path(os.environ["MTF_RUN_DIR"])

class Net(torch.nn.Module):
    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.layer = torch.nn.Linear(64, num_classes)
        self.calls = 0

    def forward(self, inputs):
        self.calls += 1
        if self.calls == 3 and os.environ["MTF_RESTARTS"] == "0":
            (RUN / "waits").touch()
            while not (RUN / "go").exists():
                time.sleep(0.01)
        return self.layer(inputs.flatten(1))
"""
BASE = config_with(
    DIGITS,
    {
        "model": {"type": "waiting:Net"},
        "training": {"max_epochs": 1, "batch_size": 500},
        "checkpoint": {"every_n_steps": 1, "keep_last": 9},
        "logging": {"log_scalars_every_n_steps": 1, "csv": True},
    },
)
BASE["model"] = {"type": "waiting:Net"}


def written(run: Path) -> dict[str, bytes]:
    """Return the content of a run's files, but for the output of the test's processes."""
    files = (p for p in run.rglob("*") if p.is_file() and p.suffix != ".out")
    return {p.relative_to(run).as_posix(): p.read_bytes() for p in files}


def started(run: Path, **env: Any) -> Job:
    """Start a job and wait until it waits in its training, with two steps saved."""
    job = Job(run, **env)
    wait_for(lambda: (run / "waits").exists() or job.poll() is not None)
    assert job.poll() is None
    wait_for(lambda: [fact["step"] for fact in events(run, "checkpoint")] == [1, 2])
    return job


def test_a_process_started_by_hand_beside_the_job_leaves_no_trace(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"waiting.py": WAITING}, BASE)
    job = started(run)
    before = written(run)
    code, output = Job(run).end()  # the same token, job and restarts
    assert code == 0
    assert f"process {job.pid} on {os.uname().nodename} executes job 1 already" in output
    assert "exits without training" in output
    assert written(run) == before
    (run / "go").touch()
    assert job.end()[0] == 0
    assert len(events(run, "started")) == len(events(run, "finished")) == 1


def test_a_process_left_on_a_lost_node_ends_without_a_trace(tmp_path: Path) -> None:
    """SLURM has requeued the job elsewhere, and the node, with the process, comes back."""
    run = make_run(tmp_path, {"waiting.py": WAITING}, BASE)
    left = started(run)
    assert Job(run, MTF_RESTARTS="1").end()[0] == 0
    before = written(run)
    (run / "go").touch()
    code, output = left.end()
    assert code == 1
    assert "job 1 (restart 1) on" in output
    assert "has taken over this run: this process ends and writes nothing more" in output
    assert output.count("taken over") == 1
    assert "Traceback" not in output
    assert {**written(run), "go": b""} == {**before, "go": b""}
    whole = make_run(tmp_path, {"waiting.py": WAITING}, BASE)
    assert Job(whole, MTF_RESTARTS="1").end()[0] == 0
    assert difference(result(run), result(whole)) is None


def test_a_lost_process_that_is_told_to_stop_neither_saves_nor_asks_for_a_requeue(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path, {"waiting.py": WAITING}, BASE)
    left = started(run)
    assert Job(run, token="u", job_id="2", MTF_RESTARTS="1").end()[0] == 0  # a later attempt
    before = written(run)
    os.kill(left.pid, signal.SIGUSR1)
    (run / "go").touch()
    assert left.end()[0] == 1
    assert {**written(run), "go": b""} == {**before, "go": b""}


def test_a_job_of_an_earlier_attempt_never_starts_again(tmp_path: Path) -> None:
    """Somebody requeues it by hand while a later attempt continues the run."""
    run = make_run(tmp_path, {"waiting.py": WAITING}, BASE)
    first = started(run)
    os.killpg(first.pid, signal.SIGKILL)
    later = started(run, token="u", job_id="2")
    code, output = Job(run, MTF_RESTARTS="3").end()
    assert code == 0
    assert "job 2 continues this run in a later attempt" in output
    (run / "go").touch()
    assert later.end()[0] == 0
    assert [e["job_id"] for e in events(run, "started")] == ["1", "2"]


def test_a_start_whose_process_was_killed_can_be_repeated(tmp_path: Path) -> None:
    """A job script of your own may start the training again in the same job."""
    run = make_run(tmp_path, {"waiting.py": WAITING}, BASE)
    first = started(run)
    os.killpg(first.pid, signal.SIGKILL)
    first.end()
    (run / "go").touch()
    assert Job(run).end()[0] == 0
    assert len(events(run, "finished")) == 1
