"""`mtf sync` is killed once at each of its effects, then repeated: nothing is lost or done twice.

``python -m tests.soak`` kills at all of them in every way. The local executor goes without a remote here,
SLURM with one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.crash.campaign import LOCAL, ON_ANY, PUSH, SUBMITS, Campaign, kill_at_each
from tests.crash.killer import Kill, Task, run
from tests.crash.repositories import copy_world, make_world
from tests.executor.local.bench import end_all

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_all(tmp_path)


def test_a_sync_killed_at_any_effect_is_continued_by_the_next(folder: Path) -> None:
    kill_at_each(Campaign(folder, executor="local", remote=False), ON_ANY | LOCAL)


def test_a_kill_happens_exactly_before_or_after_its_effect(folder: Path) -> None:
    make_world(folder / "base", executor="local", remote=True)
    worlds = [copy_world(folder / "base", folder / name) for name in ("before", "after")]
    kills = [Kill(PUSH, 0, "before"), Kill(PUSH, 0, "after")]
    tasks = [Task(str(w.path), kill=k) for w, k in zip(worlds, kills, strict=True)]
    assert [o.code for o in run(tasks)] == [-9, -9]
    there = [w.git("ls-remote", "origin", "refs/heads/mtf/ledger") != "" for w in worlds]
    here = [w.git("for-each-ref", "refs/heads/mtf") != "" for w in worlds]
    assert (there, here) == ([False, True], [False, False])


def test_every_new_file_is_named_by_an_effect(folder: Path) -> None:
    """This fails if mtf changes files in a way that the harness does not see."""
    lab = make_world(folder / "base", executor="local", remote=False)
    kill = Kill(SUBMITS["local"])  # no job starts: all new files are the sync's
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
    """Return a path of a checkout as it was before the checkout was put in place."""
    return re.sub(r"/[0-9a-f]{40}(/|$)", r"/<code>\1", path)
