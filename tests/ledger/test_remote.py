"""A clone's ledger and the remote's: which is ahead, what is pushed, what a force-push cannot lose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.ids import CommitId
from mtf.git.refs import RefMovedError
from mtf.git.repo import GitRepo
from mtf.ledger.store import Change, LedgerStore
from tests.ledger.test_store import open_store, run_record, submission
from tests.repos import Repo, git, make_remote, make_repo

if TYPE_CHECKING:
    from pathlib import Path

    from mtf.core.vocabulary.records import SubmissionRecord


@pytest.fixture
def made(tmp_path: Path) -> Repo:
    """Return a clone whose origin is bare.git beside it."""
    repo = make_repo(tmp_path / "r", {"a": "1"})
    make_remote(tmp_path / "bare.git", repo)
    return repo


@pytest.fixture
def bare(made: Repo) -> Path:
    return made.path.parent / "bare.git"


def write(store: LedgerStore, number: int) -> None:
    store.append(store.read(), Change(runs=(run_record(number),)), "m")


def is_ahead(store: LedgerStore) -> bool:
    return store.is_ahead


def quiet(made: Repo) -> LedgerStore:
    """Return a store that does not push, as with `mtf sync --no-push`."""
    store = LedgerStore(GitRepo(made.path), "origin", publish=False)
    store.fetch("main")
    return store


def test_a_clone_is_ahead_as_long_as_the_remote_lacks_its_commits(made: Repo) -> None:
    store = quiet(made)
    assert not is_ahead(store)  # neither has a ledger
    write(store, 1)
    loud = open_store(made.path, "origin")
    loud.fetch("main")
    assert is_ahead(loud)
    assert loud.publish()
    assert not is_ahead(loud)
    write(loud, 2)
    assert not is_ahead(loud)  # what a store appends it has pushed


def test_a_clone_that_follows_is_not_ahead(made: Repo, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", str(tmp_path / "bare.git"), "other")
    other = open_store(tmp_path / "other", "origin")
    other.fetch("main")
    write(other, 1)
    store = open_store(made.path, "origin")
    store.fetch("main")
    assert not is_ahead(store)
    assert set(store.read().runs) == {run_record(1).run}


def test_a_clone_without_a_remote_is_never_ahead(made: Repo) -> None:
    store = open_store(made.path)
    store.fetch("main")
    write(store, 1)
    assert not is_ahead(store)
    assert not store.publish()


def test_what_is_published_once_is_not_published_again(made: Repo) -> None:
    write(quiet(made), 1)
    store = open_store(made.path, "origin")
    store.fetch("main")
    assert store.publish()
    assert not store.publish()
    again = open_store(made.path, "origin")
    again.fetch("main")
    assert not again.publish()


def test_a_store_that_does_not_push_publishes_nothing(made: Repo, bare: Path) -> None:
    store = quiet(made)
    write(store, 1)
    assert not store.publish()
    assert git(bare, "for-each-ref", "refs/heads/mtf") == ""


def test_job_branches_that_the_remote_lacks_are_published_with_the_ledger(
    made: Repo, bare: Path
) -> None:
    commit = CommitId(made.git("rev-parse", "main"))
    pin = submission(commit)
    branches = {f"refs/heads/{pin.branch}": commit}
    store = quiet(made)
    store.append(store.read(), Change(submissions=(pin,), branches=branches), "m")
    loud = open_store(made.path, "origin")
    loud.fetch("main")
    assert loud.publish()
    assert git(bare, "rev-parse", str(pin.branch)) == commit


def keep_back(made: Repo) -> SubmissionRecord:
    """Record a submission with its job branch in the clone only, and return its record."""
    commit = CommitId(made.git("rev-parse", "main"))
    pin = submission(commit)
    store, branches = quiet(made), {f"refs/heads/{pin.branch}": commit}
    store.append(store.read(), Change(submissions=(pin,), branches=branches), "m")
    return pin


def test_an_append_also_pushes_the_job_branches_of_records_that_the_remote_lacks(
    made: Repo, bare: Path
) -> None:
    pin = keep_back(made)
    loud = open_store(made.path, "origin")
    loud.fetch("main")
    write(loud, 2)
    assert git(bare, "rev-parse", str(pin.branch)) == pin.commit
    assert git(bare, "rev-parse", "mtf/ledger") == made.git("rev-parse", "mtf/ledger")


@pytest.mark.parametrize("how", ["moved", "deleted"])
def test_a_job_branch_is_pushed_as_it_is_recorded(made: Repo, bare: Path, how: str) -> None:
    pin = keep_back(made)
    made.commit({"a": "2"})
    change = ["-f", str(pin.branch), "main"] if how == "moved" else ["-D", str(pin.branch)]
    made.git("branch", *change)
    loud = open_store(made.path, "origin")
    loud.fetch("main")
    assert loud.publish()
    assert git(bare, "rev-parse", str(pin.branch)) == pin.commit


def test_a_job_branch_that_was_deleted_at_the_remote_is_not_pushed_with_another_change(
    made: Repo, bare: Path
) -> None:
    pin = keep_back(made)
    loud = open_store(made.path, "origin")
    loud.fetch("main")
    write(loud, 2)
    git(bare, "update-ref", "-d", f"refs/heads/{pin.branch}")
    write(quiet(made), 3)
    loud = open_store(made.path, "origin")
    loud.fetch("main")
    write(loud, 4)
    assert git(bare, "for-each-ref", "refs/heads/slurm-job") == ""


def test_a_ledger_that_was_deleted_at_the_remote_stays_in_the_clone(made: Repo, bare: Path) -> None:
    store = open_store(made.path, "origin")
    store.fetch("main")
    write(store, 1)
    git(bare, "update-ref", "-d", "refs/heads/mtf/ledger")
    store = open_store(made.path, "origin")
    store.fetch("main")
    assert set(store.read().runs) == {run_record(1).run}
    assert is_ahead(store)
    assert store.publish()
    assert git(bare, "rev-parse", "mtf/ledger") == made.git("rev-parse", "mtf/ledger")


def test_records_that_a_force_push_took_away_are_found_missing(made: Repo, bare: Path) -> None:
    store = open_store(made.path, "origin")
    store.fetch("main")
    write(store, 1)
    first = git(bare, "rev-parse", "mtf/ledger")
    write(store, 2)
    tree = git(bare, "rev-parse", f"{first}^{{tree}}")
    other = git(bare, "commit-tree", tree, "-p", first, "-m", "somebody else's")
    git(bare, "update-ref", "refs/heads/mtf/ledger", other)
    store = open_store(made.path, "origin")
    store.fetch("main")
    ledger = store.read_audited()
    assert ledger.tip == other
    assert [f.last_good for f in ledger.findings or ()] == [run_record(2)]
    assert set(ledger.runs) == {run_record(1).run, run_record(2).run}


def test_a_finding_is_made_again_until_its_record_is_restored(made: Repo) -> None:
    store = open_store(made.path)
    for number in (1, 2):
        write(store, number)
    store.read_audited()
    made.git("checkout", "-q", "mtf/ledger")
    made.git("rm", "-q", "-r", "runs/e1")
    made.git("commit", "-q", "-m", "gone")
    made.git("checkout", "-q", "main")
    lost = store.read_audited()
    assert len(lost.findings or ()) == 1
    store.append(lost, Change(runs=(run_record(3),)), "another record")
    still = open_store(made.path).read_audited()
    assert len(still.findings or ()) == 1
    mended = store.append(still, Change(runs=(run_record(1),)), "the record")
    assert mended.findings == ()
    assert open_store(made.path).read_audited().findings == ()


@pytest.mark.parametrize("remote", [False, True])
def test_a_branch_that_moved_meanwhile_is_not_moved_back(made: Repo, remote: bool) -> None:
    commit = CommitId(made.git("rev-parse", "main"))
    pin = submission(commit)
    store = open_store(made.path, "origin")
    store.fetch("main")
    branches = {f"refs/heads/{pin.branch}": commit}
    store.append(store.read(), Change(submissions=(pin,), branches=branches), "m")
    moved = CommitId(made.commit({"a": "2"}))
    where = made.path.parent / "bare.git" if remote else made.path
    made.git("push", "-q", "origin", "main")
    git(where, "update-ref", f"refs/heads/{pin.branch}", moved)
    with pytest.raises(RefMovedError):
        store.repin(str(pin.branch), commit, commit, remote=remote)
    store.repin(str(pin.branch), commit, moved, remote=remote)
    assert git(where, "rev-parse", f"refs/heads/{pin.branch}") == commit
