"""Clones of one remote, and syncs in them that are stopped and continued."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mtf.git.repo import GitRepo
from mtf.ledger.store import LedgerStore
from tests.crash.campaign import faults_of, wait_for
from tests.crash.killer import Kill, Task, run
from tests.crash.repositories import copy_world, make_world

if TYPE_CHECKING:
    from mtf.core.vocabulary.records import RunRecord
    from tests.repos import Repo


def clones(folder: Path, number: int, *, executor: str, seeds: int, lease: int = 600) -> list[Repo]:
    """Return clones of one remote with one run root."""
    root = str(folder / "runs")
    first = make_world(
        folder / "w", executor=executor, remote=True, seeds=seeds, root=root, lease=lease
    )
    more = [copy_world(folder / "w", folder / f"clone{n}") for n in range(1, number)]
    for clone in more:
        clone.git("remote", "set-url", "origin", str(folder / "w" / "lab.git"))
    return [first, *more]


def records(lab: Repo) -> list[RunRecord]:
    return list(LedgerStore(GitRepo(lab.path), None).read().runs.values())


def settle(labs: list[Repo], runs: int) -> None:
    """Sync until every run is over, once more in each clone, and assert that there are no faults."""

    def are_over() -> bool:
        assert run([Task(str(labs[0].path))])[0].code == 0
        found = records(labs[0])
        return len(found) == runs and all(r.is_over for r in found)

    assert wait_for(are_over, 240), [(r.state, r.reason) for r in records(labs[0])]
    outcomes = run([Task(str(lab.path)) for lab in labs])
    assert [o.code for o in outcomes] == [0] * len(labs), outcomes
    assert len({lab.git("rev-parse", "mtf/ledger") for lab in labs}) == 1
    assert faults_of(labs[0], runs) == []
    plans = run([Task(str(lab.path), ("plan", "--format", "json")) for lab in labs])
    assert [json.loads(p.output)["actions"] for p in plans] == [[]] * len(labs)


def start_and_stop(lab: Repo, stop: Kill) -> tuple[subprocess.Popen[str], int]:
    """Start a sync and return once it has stopped, with its pid."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.killer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    wish = {"parallel": 1, "tasks": [vars(Task(str(lab.path), kill=stop)) | {"kill": vars(stop)}]}
    process.stdin.write(json.dumps(wish))
    process.stdin.close()
    process.stdin = None
    assert wait_for(lambda: any(_is_stopped(p) for p in _children(process.pid)), 120)
    return process, next(p for p in _children(process.pid) if _is_stopped(p))


def _children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except FileNotFoundError:
        return []
    return [int(word) for word in text.split()]


def _is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")
    except FileNotFoundError:
        return False
