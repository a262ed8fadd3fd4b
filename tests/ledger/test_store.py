"""The ledger's store: compare-and-swap in one clone and across clones, and the code it keeps."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.ids import CommitId, SubmissionId, record_path
from mtf.core.vocabulary.records import Best, Checkpoint, SubmissionRecord
from mtf.core.vocabulary.states import RunState
from mtf.git.refs import RefMovedError
from mtf.git.repo import GitRepo
from mtf.ledger.codec import decode_run, encode_run
from mtf.ledger.store import Change, LedgerStore
from mtf.reconcile.cas_retry import with_retries
from tests.core.planner.worlds import experiment, record
from tests.repos import git, make_remote, make_repo

if TYPE_CHECKING:
    from pathlib import Path

    from mtf.core.vocabulary.records import RunRecord

RUN = record(experiment())


def run_record(number: int) -> RunRecord:
    return record(experiment(f"e{number}"), f"e{number}/20260101T110000Z/cccccccc")


def submission(commit: CommitId, name: str = "alone") -> SubmissionRecord:
    sid = SubmissionId(f"{name}/20260101T110000Z/{commit[:8]}")
    return SubmissionRecord(
        sid, "s.yaml", commit, f"slurm-job/{sid}", None, RUN.claimed_at, "me", None, (), {}
    )


def open_store(path: Path, remote: str | None = None) -> LedgerStore:
    return LedgerStore(GitRepo(path), remote)


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    full = replace(
        RUN, state=RunState.COMPLETED, checkpoint=Checkpoint(f"{RUN.run_dir}/c", 1, "f" * 64, 2, 3),
        best=Best("val_accuracy", 0.9, 1, 2, "max"), metrics={"a": 1.5}, parameters={"x.y": [1]},
    )  # fmt: skip
    assert decode_run(encode_run(full)) == full
    made = make_repo(tmp_path / "r", {"a": "1"})
    store = open_store(made.path)
    store.append(store.read(), Change(runs=(full,)), "m")
    assert store.read().runs == {full.run: full}


def test_the_ledger_is_an_orphan_branch_with_an_overview(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"secret.py": "1"})
    store = open_store(made.path)
    store.append(store.read(), Change(runs=(RUN,)), "m")
    files = made.git("ls-tree", "-r", "--name-only", "mtf/ledger").splitlines()
    assert files == ["README.md", record_path(RUN.run)]
    assert made.git("merge-base", "main", "mtf/ledger", check=False) == ""
    assert "alone/20260101T110000Z" in made.git("show", "mtf/ledger:README.md")


def test_a_writer_with_a_stale_ledger_is_refused(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    store = open_store(made.path)
    stale = store.read()
    store.append(stale, Change(runs=(run_record(1),)), "first")
    with pytest.raises(RefMovedError):
        store.append(stale, Change(runs=(run_record(2),)), "second")
    assert set(store.read().runs) == {run_record(1).run}


def test_damaged_and_newer_records_do_not_hide_the_others(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    store = open_store(made.path)
    store.append(store.read(), Change(runs=(run_record(1), run_record(2))), "m")
    repo = GitRepo(made.path)
    tip = repo.commit("mtf/ledger")
    path = record_path(run_record(1).run)
    future = json.dumps({**json.loads(encode_run(run_record(3))), "format": 99}).encode()
    bad = repo.write_commit({path: b"{torn", record_path(run_record(3).run): future}.items(), parents=(tip,), message="x", committer=repo.identity)  # fmt: skip
    made.git("update-ref", "refs/heads/mtf/ledger", bad)
    ledger = store.read()
    assert set(ledger.runs) == {run_record(2).run}
    assert set(ledger.damaged) == {path, record_path(run_record(3).run)}
    assert "newer mtf" in ledger.damaged[record_path(run_record(3).run)]


def test_the_pinned_code_survives_branch_deletion_and_gc(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"train.py": "v1"})
    made.git("checkout", "-q", "-b", "feature")
    pinned = CommitId(made.commit({"train.py": "v2"}))
    store = open_store(made.path)
    store.append(store.read(), Change(submissions=(submission(pinned),)), "m")
    made.git("checkout", "-q", "main")
    made.git("branch", "-D", "feature")
    made.git("reflog", "expire", "--expire=now", "--all")
    made.git("gc", "-q", "--prune=now")
    assert made.git("show", f"{pinned}:train.py") == "v2"


def test_job_branches_and_ledger_reach_the_remote_together(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    bare = make_remote(tmp_path / "bare.git", made)
    store = open_store(made.path, "origin")
    tip = store.fetch("main")
    assert tip == made.git("rev-parse", "main")
    pin = submission(CommitId(tip))
    branches = {f"refs/heads/{pin.branch}": CommitId(tip)}
    store.append(store.read(), Change(runs=(RUN,), submissions=(pin,), branches=branches), "m")  # fmt: skip
    refs = git(bare, "for-each-ref", "--format=%(refname:short) %(objectname)").splitlines()
    assert f"{pin.branch} {tip}" in refs
    assert f"mtf/ledger {made.git('rev-parse', 'mtf/ledger')}" in refs


def test_writers_in_several_clones_lose_no_update(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r0", {"a": "1"})
    bare = make_remote(tmp_path / "bare.git", made)
    clones = [made.path]
    for number in (1, 2, 3):
        git(tmp_path, "clone", "-q", str(bare), f"r{number}")
        clones.append(tmp_path / f"r{number}")

    def write(writer: int) -> None:
        store = open_store(clones[writer], "origin")
        for number in range(4):

            def once(number: int = number) -> None:
                store.fetch("main")
                store.append(store.read(), Change(runs=(run_record(10 * writer + number),)), "m")

            with_retries(once)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    for clone in clones:
        store = open_store(clone, "origin")
        store.fetch("main")
        assert len(store.read().runs) == 16


def test_commits_that_were_not_pushed_are_published_later(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    bare = make_remote(tmp_path / "bare.git", made)
    quiet = LedgerStore(GitRepo(made.path), "origin", publish=False)
    quiet.fetch("main")
    quiet.append(quiet.read(), Change(runs=(RUN,)), "m")
    assert git(bare, "for-each-ref", "refs/heads/mtf") == ""
    loud = open_store(made.path, "origin")
    loud.fetch("main")
    assert loud.publish()
    assert git(bare, "rev-parse", "mtf/ledger") == made.git("rev-parse", "mtf/ledger")
