"""A job ends by itself, with the reason in its journal, whatever raises or dies in it."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mtf.core.vocabulary.causes import STORAGE_EXIT_CODE, Cause, cause_of_error
from tests.trainer.ranks import environment, free_port
from tests.trainer.runs import config_with, events, execute, make_run, start

# A data set that does what the experiment says to one sample of one split; and entry points.
TASK = """
import os, signal, subprocess, sys, threading, time
import torch
from torch.utils.data import DataLoader, Dataset

KEPT = []

class Data(Dataset):
    num_classes, input_shape = 3, (4,)
    def __init__(self, split, acts="", at="train"):
        self.acts = acts if split == at else ""
    def __len__(self):
        return 40
    def __getitem__(self, index):
        if index == 7 and self.acts:
            exec(self.acts)
        return torch.rand(4), index % 3

class Net(torch.nn.Linear):
    def __init__(self, acts=""):
        super().__init__(4, 3)
        self.acts = acts
        self.calls = 0
    def forward(self, inputs):
        self.calls += 1
        if self.calls == 1:
            exec(self.acts)
        return super().forward(inputs)

def keeps_an_iterator(run):
    KEPT.append(run.data().train.batches(0, 0))
    next(KEPT[0])
    raise ValueError("a bug")

def trains_beside_a_busy_worker(run):
    data = Data("train", acts="time.sleep(600)")  # in the second batch, of the second worker
    model = Net(acts="raise ValueError('a bug')")
    loader = DataLoader(data, batch_size=4, num_workers=2)
    run.trainer(model, run.optimizer(model)).fit(loader)

def sends_what_cannot_be_pickled(run):
    loader = DataLoader(Data("train"), num_workers=2, collate_fn=lambda samples: lambda: samples)
    model = Net()
    run.trainer(model, run.optimizer(model)).fit(loader)

def leaves_a_thread_and_a_process(run):
    threading.Thread(target=time.sleep, args=(600,), name="uploader").start()
    KEPT.append(subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL))
    (run.run_dir / "pid").write_text(str(KEPT[0].pid))
    if run.config.training.max_epochs == 1:
        raise ValueError("a bug")
    from mtf.trainer.runtime import process_end
    process_end.COMPLETE_S = 1.0
"""

BASE: dict[str, Any] = {
    "experiment_name": "ends",
    "model": {"type": "task:Net"},
    "data": {"dataset_name": "task:Data", "num_workers": 2},
    "training": {"max_epochs": 1, "batch_size": 4, "use_amp": False, "seed": 5},
    "optimizer": {"type": "sgd", "lr": 1e-2},
    "scheduler": None,
    "entrypoint": None,
}
RAISES = "raise ValueError('a broken file')"
DIES = "os.kill(os.getpid(), signal.SIGKILL)"


def make(tmp_path: Path, **changes: Any) -> Path:
    return make_run(tmp_path, {"task.py": TASK}, config_with(BASE, changes))


def failure(run: Path) -> str:
    """Return the reason of a job that has failed once."""
    (failed,) = events(run, "failed")
    return str(failed["reason"])


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_error_in_a_data_worker_ends_the_job(split: str, tmp_path: Path) -> None:
    data = {"acts": RAISES, "at": split, "val_split": "val"}
    run = make(tmp_path, data=data)
    code, output = execute(run)
    assert (code, failure(run)) == (1, "ValueError: a broken file")
    assert "task.py" in output
    assert "ended by force" not in output


def test_an_error_ends_the_job_while_a_data_worker_is_busy(tmp_path: Path) -> None:
    run = make(tmp_path, entrypoint="task:trains_beside_a_busy_worker")
    code, output = execute(run)
    assert (code, failure(run).partition(" (")[0]) == (1, "ValueError: a bug")
    assert "ended by force" not in output


def test_a_killed_data_worker_ends_the_job(tmp_path: Path) -> None:
    run = make(tmp_path, data={"acts": DIES, "val_split": None})
    assert execute(run)[0] == 1
    assert "killed by signal: Killed" in failure(run)
    assert cause_of_error(failure(run)) is Cause.HOST_OOM


def test_a_data_worker_that_exits_ends_the_job(tmp_path: Path) -> None:
    run = make(tmp_path, data={"acts": "sys.exit(0)", "val_split": None})
    assert execute(run)[0] == 1
    assert failure(run)  # torch's words depend on what it was waiting for


def test_a_batch_that_cannot_be_sent_ends_the_job(tmp_path: Path) -> None:
    run = make(tmp_path, entrypoint="task:sends_what_cannot_be_pickled")
    assert execute(run)[0] == 1
    assert "Can't pickle local object" in failure(run)


def test_a_full_shared_memory_ends_the_job(tmp_path: Path) -> None:
    mount = "mount -t tmpfs -o size=4k tmpfs /dev/shm"
    own_shm = ("unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh")
    if subprocess.run([*own_shm, "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root can replace /dev/shm")
    run = make(tmp_path, data={"val_split": None})
    assert execute(run, before=own_shm)[0] == STORAGE_EXIT_CODE
    assert cause_of_error(failure(run)) is Cause.STORAGE


def test_an_iterator_that_is_kept_does_not_hold_up_the_end(tmp_path: Path) -> None:
    run = make(tmp_path, entrypoint="task:keeps_an_iterator", data={"val_split": None})
    code, output = execute(run)
    assert (code, failure(run).partition(" (")[0]) == (1, "ValueError: a bug")
    assert "ended by force" not in output


@pytest.mark.parametrize(("epochs", "ends"), [(1, 1), (2, 0)])
def test_what_user_code_has_left_running_is_ended(epochs: int, ends: int, tmp_path: Path) -> None:
    run = make(
        tmp_path, entrypoint="task:leaves_a_thread_and_a_process", training={"max_epochs": epochs}
    )
    code, output = execute(run)
    assert code == ends
    assert len(events(run, "failed")) == ends
    assert len(events(run, "finished")) == 1 - ends
    pid = int((run / "pid").read_text())
    assert f"the job is over, but thread uploader, process {pid} did not end" in output
    stat = Path(f"/proc/{pid}/stat")
    assert not stat.exists() or " Z " in stat.read_text()


def test_a_killed_rank_ends_the_other(tmp_path: Path) -> None:
    acts = f"if os.environ['SLURM_PROCID'] == '1': {DIES}"
    run = make(tmp_path, model={"acts": acts}, slurm={"ntasks_per_node": 2})
    port = free_port()
    ranks = [start(run, **environment(rank, 2, port)) for rank in range(2)]
    try:
        output, _ = ranks[0].communicate(timeout=300)
        ranks[1].wait(timeout=300)
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [1, -signal.SIGKILL]
    assert failure(run).startswith("another process of the training has died"), output
