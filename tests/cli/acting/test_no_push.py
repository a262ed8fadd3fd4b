"""`--no-push`: the ledger and the job branches stay in this clone until they are pushed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.cli.lab import make_lab, runs, spec, stop_jobs
from tests.cli.mtf import mtf
from tests.repos import Repo, git

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def stop_worker(tmp_path: Path) -> Iterator[None]:
    yield
    stop_jobs(tmp_path)


@pytest.fixture
def lab(tmp_path: Path) -> Repo:
    return make_lab(tmp_path, {"a.yaml": spec("a", pause=0.2, epochs=500)})


def shared(tmp_path: Path) -> set[str]:
    """Return the names of the remote's branches besides main."""
    refs = git(tmp_path / "lab.git", "for-each-ref", "--format=%(refname:short)", "refs/heads/")
    return set(refs.split()) - {"main"}


def test_a_sync_that_does_not_push_submits_but_leaves_the_remote_alone(
    lab: Repo, tmp_path: Path
) -> None:
    mtf(lab.path, "sync", "--no-push")
    assert runs(lab)["a"]["job_id"]
    assert shared(tmp_path) == set()


def test_the_next_sync_pushes_what_was_kept_back_and_submits_nothing_again(
    lab: Repo, tmp_path: Path
) -> None:
    mtf(lab.path, "sync", "--no-push")
    run = runs(lab)["a"]
    mtf(lab.path, "sync")
    assert shared(tmp_path) == {"mtf/ledger", run["branch"]}
    assert git(tmp_path / "lab.git", "rev-parse", "mtf/ledger") == lab.git(
        "rev-parse", "mtf/ledger"
    )
    assert len(runs(lab)["a"]["attempts"]) == 1
    assert "deleted" not in mtf(lab.path, "plan").stdout


def test_a_sync_with_more_to_record_pushes_the_job_branches_that_were_kept_back(
    lab: Repo, tmp_path: Path
) -> None:
    mtf(lab.path, "sync", "--no-push")
    first = runs(lab)["a"]["branch"]
    lab.commit({"experiments/b.yaml": spec("b", pause=0.2, epochs=500)})
    lab.git("push", "-q", "origin", "main")
    mtf(lab.path, "sync")
    assert shared(tmp_path) == {"mtf/ledger", first, runs(lab)["b"]["branch"]}


def test_a_cancellation_and_a_retry_that_do_not_push_leave_the_remote_alone(
    lab: Repo, tmp_path: Path
) -> None:
    mtf(lab.path, "sync")
    tip = git(tmp_path / "lab.git", "rev-parse", "mtf/ledger")
    for act in ("cancel", "retry"):
        before = lab.git("rev-parse", "mtf/ledger")
        mtf(lab.path, act, "a", "--no-push", code=None)
        if act == "cancel":
            assert lab.git("rev-parse", "mtf/ledger") != before
    assert git(tmp_path / "lab.git", "rev-parse", "mtf/ledger") == tip
