"""Several submitters at once in one clone. (With many clones: tests/slurm/test_crash_slurm.py.)"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.crash.clones import clones, records, settle, start_and_stop
from tests.crash.killer import Kill, Task, run
from tests.crash.laboratory import make_world
from tests.executor.local_bench import end_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AT_ONCE = 8


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_all(tmp_path)


def test_who_gives_a_claim_up_and_dies_of_it_loses_no_run_though_its_submitter_only_slept(
    folder: Path,
) -> None:
    sleeper, other = clones(folder, 2, executor="local", seeds=1, lease=1)
    stop = Kill("local.submit: rename job.sh", 0, "before", signal.SIGSTOP)
    process, pid = start_and_stop(sleeper, stop)
    time.sleep(1.1)  # its lease
    dies = Kill("apply._fenced: link <id>", 0, "after")
    assert run([Task(str(other.path), kill=dies)])[0].code == -9
    os.kill(pid, signal.SIGCONT)
    (outcome,) = json.loads(process.communicate(timeout=240)[0])
    assert outcome["code"] == 0
    assert [r.job_id for r in records(sleeper)] == ["local-1"]  # which leaves at once
    settle([other, sleeper], 1)
    assert [len(r.attempts) for r in records(other)] == [2]


def test_syncs_at_once_in_one_clone_submit_each_run_once(folder: Path) -> None:
    lab = make_world(folder / "w", executor="local", remote=True, seeds=4)
    codes = {o.code for o in run([Task(str(lab.path))] * AT_ONCE, parallel=AT_ONCE)}
    assert codes <= {0, 4}
    assert 0 in codes
    settle([lab], 4)
    assert all(len(r.attempts) == 1 for r in records(lab))
