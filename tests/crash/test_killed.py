"""`mtf sync` is killed at each of its effects, once each, and synced again: nothing is done twice or lost.

``python -m tests.soak`` kills at all of them in every way. The local executor goes without a remote here,
SLURM with one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.crash.campaign import SUBMITS, Campaign, each_once
from tests.crash.killer import Kill, Task, run
from tests.crash.laboratory import copy_world, make_world
from tests.executor.local_bench import end_all

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.slurm_cluster import Cluster

# what must be among the effects, so that a harness that has become blind is seen
_ON_ANY = {
    "the ledger's first commit": r"store\._beginning: git fast-import",
    "a ledger commit": r"store\.append: git fast-import",
    "a ref update, and the job's branch": r"store\._move: git update-ref",
    "the code that is checked out": r"checkout\._write_files: write <code>",
    "the checkout put in place": r"checkout\.\w+: rename <id>",
    "its proof": r"checkout\.\w+: rename <id>\.json",
    "a run's configuration": r"batches\.prepare_folders: rename config\.yaml",
    "a run's folder": r"batches\.prepare_folders: mkdir <run>",
    "a claim that is given up": r"apply\._fenced: link <id>",
    "a journal read": r"gather\.read_progress: read journal\.jsonl",
    "the lock of the clone": r"sync\.sync_lock: write sync\.lock",
    "a grid's summary": r"summaries\.\w+: rename results_summary\.json",
}
_WITH_REMOTE = {
    "a push": r"store\._move: git push",
    "a look at the remote": r"store\.fetch: git ls-remote",
    "a fetch": r"store\.fetch: git fetch",
    "following the remote": r"store\._follow: git update-ref",
}
_ON_SLURM = {
    "a script": r"slurm\.submit: rename job\.sbatch",
    "a submission": r"slurm\.submit: sbatch",
    "a look at the queue": r"slurm\._ask: squeue",
    "a script's name in the run's folder": r"slurm\._link: link <job>\.sbatch",
}
_LOCAL = {
    "a script": r"local\.submit: rename job\.sh",
    "a submission": r"local_queue\.transaction: sql COMMIT",
    "the queue": r"local_queue\.make: link queue\.sqlite",
    "the worker": r"local\._start_worker: mtf\.executor\.local_worker",
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_all(tmp_path)


def kill_at_each(campaign: Campaign, expected: dict[str, str]) -> None:
    found = campaign.effects()
    names = {name for effects in found.values() for name in effects}
    unseen = {
        what: pattern
        for what, pattern in expected.items()
        if not any(re.fullmatch(pattern, name) for name in names)
    }
    assert not unseen, sorted(names)
    seen: set[str] = set()
    worlds = [
        campaign.world(scenario, kill)
        for scenario, effects in found.items()
        for kill in each_once(effects, seen)
    ]
    campaign.crash(worlds)
    campaign.recover(worlds)
    assert [(w.title, w.faults) for w in worlds if w.faults] == []
    assert seen == names


def test_a_sync_killed_at_any_effect_is_continued_by_the_next(folder: Path) -> None:
    kill_at_each(Campaign(folder, executor="local", remote=False), _ON_ANY | _LOCAL)


@pytest.mark.slurm
def test_a_sync_killed_at_any_effect_is_continued_by_the_next_on_slurm(
    cluster: Cluster, folder: Path
) -> None:
    campaign = Campaign(folder, executor="slurm", remote=True)
    kill_at_each(campaign, _ON_ANY | _WITH_REMOTE | _ON_SLURM)


def test_a_killed_sync_is_really_killed_there_and_leaves_what_came_before(folder: Path) -> None:
    make_world(folder / "base", executor="local", remote=True)
    worlds = [copy_world(folder / "base", folder / name) for name in ("before", "after")]
    kills = [Kill("store._move: git push", 0, "before"), Kill("store._move: git push", 0, "after")]
    tasks = [Task(str(w.path), kill=k) for w, k in zip(worlds, kills, strict=True)]
    assert [o.code for o in run(tasks)] == [-9, -9]
    there = [w.git("ls-remote", "origin", "refs/heads/mtf/ledger") != "" for w in worlds]
    here = [w.git("for-each-ref", "refs/heads/mtf") != "" for w in worlds]
    assert (there, here) == ([False, True], [False, False])


def test_nothing_appears_that_no_effect_has_named(folder: Path) -> None:
    """So a way to change files that the harness does not see would be noticed."""
    lab = make_world(folder / "base", executor="local", remote=False)
    kill = Kill(SUBMITS["local"])  # no job starts: what is there is the sync's alone
    before = _there(lab.path)
    (outcome,) = run([Task(str(lab.path), kill=kill)])
    assert outcome.code == -9, outcome.output
    new = _there(lab.path) - before
    gits = {path for path in new if "/.git/" in path and "/.git/mtf" not in path}
    gits |= {path for path in new if path.endswith("queue.sqlite-journal")}  # SQLite's own
    named = {str(Path(lab.path, target)) for target in outcome.targets}
    made = {re.sub(r"/\.[0-9a-f]{40}\.[0-9a-f]{8}(/|$)", r"/<code>\1", path) for path in named}
    unnamed = {path for path in new - gits - named if _as_made(path) not in made}
    assert unnamed == set()
    assert len(new - gits) > 10


def _there(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


def _as_made(path: str) -> str:
    """Return a path of a checkout as it was before that was put in place."""
    return re.sub(r"/[0-9a-f]{40}(/|$)", r"/<code>\1", path)
