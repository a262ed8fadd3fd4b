"""Several submitters at once in one clone. (With many clones: tests/slurm/test_crash_slurm.py.)"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.clones import records, settle
from tests.crash.killer import Task, run
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


def test_syncs_at_once_in_one_clone_submit_each_run_once(folder: Path) -> None:
    lab = make_world(folder / "w", executor="local", remote=True, seeds=4)
    codes = {o.code for o in run([Task(str(lab.path))] * AT_ONCE, parallel=AT_ONCE)}
    assert codes <= {0, 4}
    assert 0 in codes
    settle([lab], 4)
    assert all(len(r.attempts) == 1 for r in records(lab))
