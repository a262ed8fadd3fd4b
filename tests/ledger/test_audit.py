"""What somebody does to the ledger by hand is found, and what it was before is known."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.ids import CommitId, JobId, RunId, Token, record_path, submission_path
from mtf.core.vocabulary.records import Attempt
from mtf.core.vocabulary.states import RunState
from mtf.git.repo import GitRepo
from mtf.ledger.codec import encode_run
from mtf.ledger.store import Change, Ledger, LedgerStore
from tests.ledger.test_store import RUN, open_store, run_record, submission
from tests.repos import Repo, git, make_remote, make_repo

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mtf.core.vocabulary.records import RunRecord

ONE, TWO = run_record(1), run_record(2)
PATH = record_path(ONE.run)


def whole(store: LedgerStore, *records: RunRecord, **more: Any) -> Ledger:
    """Append records to a ledger that has been compared with its history."""
    return store.append(store.read_whole(), Change(runs=records, **more), "m")


def forge(made: Repo, files: Mapping[str, bytes | None]) -> str:
    """Commit to the ledger as somebody with git and no mtf would."""
    repo = GitRepo(made.path)
    tip = repo.commit("mtf/ledger")
    new = repo.write_commit(files.items(), parents=(tip,), message="by hand", committer="x <x@x>")
    made.git("update-ref", "refs/heads/mtf/ledger", new)
    return new


def edited(record: RunRecord, **changes: Any) -> bytes:
    return json.dumps({**json.loads(encode_run(record)), **changes}).encode()


def why(ledger: Ledger) -> dict[str, str]:
    return {t.path: t.why for t in ledger.troubles or ()}


def make_ledger(tmp_path: Path) -> tuple[Repo, LedgerStore]:
    made = make_repo(tmp_path / "r", {"a": "1"})
    store = open_store(made.path)
    whole(store, ONE, TWO)
    whole(store, replace(TWO, state=RunState.RUNNING))
    return made, store


def test_what_mtf_writes_is_never_trouble(tmp_path: Path) -> None:
    made, store = make_ledger(tmp_path)
    again = replace(ONE.attempt, token="b" * 16, job_id=None)  # type: ignore[arg-type]
    ended = replace(ONE, state=RunState.TIMEOUT)
    for record in (ended, replace(ended, state=RunState.CLAIMED, attempts=(*ONE.attempts, again))):
        store.append(store.read(), Change(runs=(record,)), "another clone's, not compared here")
    assert store.read_whole().troubles == ()
    assert made.git("rev-parse", "refs/mtf/seen") != made.git("rev-parse", "mtf/ledger")
    whole(store, run_record(3))
    assert made.git("rev-parse", "refs/mtf/seen") == made.git("rev-parse", "mtf/ledger")


def test_a_removed_record_is_in_the_ledger_as_it_was_last(tmp_path: Path) -> None:
    made, store = make_ledger(tmp_path)
    store.append(
        store.read(), Change(runs=(replace(ONE, epoch=7),)), "newer than the last compared"
    )
    forge(made, {PATH: None})
    found = store.read_whole()
    assert why(found) == {PATH: "was removed"}
    assert found.runs[ONE.run].epoch == 7
    # it stays missing until somebody puts it back
    kept = store.append(found, Change(runs=(run_record(3),)), "something else")
    assert kept.troubles == found.troubles
    assert why(store.read_whole()) == {PATH: "was removed"}
    store.append(store.read_whole(), Change(runs=(found.runs[ONE.run],)), "back")
    assert store.read_whole().troubles == ()
    # another clone that comes later sees nothing wrong
    made.git("update-ref", "-d", "refs/mtf/seen")
    assert store.read_whole().troubles == ()


def test_a_new_clone_finds_a_removed_record_too(tmp_path: Path) -> None:
    made, store = make_ledger(tmp_path)
    forge(made, {PATH: None})
    made.git("update-ref", "-d", "refs/mtf/seen")
    found = store.read_whole()
    assert why(found) == {PATH: "was removed"}
    assert found.runs[ONE.run] == ONE


def test_an_edited_record_is_told_by_what_cannot_change(tmp_path: Path) -> None:
    attempt = json.loads(encode_run(ONE))["attempts"][0]
    done = replace(TWO, state=RunState.COMPLETED)
    made, store = make_ledger(tmp_path)
    whole(store, done)
    for record, changes, said in (
        (ONE, {"key": "f" * 64, "commit": "d" * 40}, "was edited (commit, key changed)"),
        (ONE, {"attempts": [{**attempt, "job_id": "78"}]}, "was edited (an attempt changed)"),
        (done, {"state": "pending"}, "was edited (completed became pending)"),
    ):
        tip = made.git("rev-parse", "mtf/ledger")
        path = record_path(record.run)
        forge(made, {path: edited(record, **changes)})
        found = store.read_whole()
        assert why(found) == {path: said}
        assert found.runs[record.run] == record
        made.git("update-ref", "refs/heads/mtf/ledger", tip)


def test_a_damaged_record_is_read_from_history_and_a_newer_one_is_left_alone(
    tmp_path: Path,
) -> None:
    made, store = make_ledger(tmp_path)
    forge(made, {PATH: b"{torn", record_path(TWO.run): edited(TWO, format=99)})
    found = store.read_whole()
    assert "is damaged" in why(found)[PATH]
    assert found.runs == {ONE.run: ONE}
    newer = next(t for t in found.troubles or () if t.path == record_path(TWO.run))
    assert newer.good is None
    assert "written by a newer mtf" in newer.why
    # putting one back does not make the ledger whole while the other is not
    left = store.append(found, Change(runs=(ONE,)), "m")
    assert [t.path for t in left.troubles or ()] == [newer.path]
    assert set(left.damaged) == {newer.path}


def test_a_removed_submission_is_known_and_its_code_stays(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    store = open_store(made.path)
    pinned = submission(CommitId(made.git("rev-parse", "HEAD")))
    whole(store, RUN, submissions=(pinned,))
    forge(made, {submission_path(pinned.submission): None})
    found = store.read_whole()
    assert [t.good for t in found.troubles or ()] == [pinned]
    store.append(found, Change(submissions=(pinned,)), "back")
    assert store.submission(store.read(), pinned.submission) == pinned


def test_a_ledger_that_is_set_back_or_deleted_loses_nothing(tmp_path: Path) -> None:
    made, store = make_ledger(tmp_path)
    whole(store, replace(TWO, state=RunState.COMPLETED))
    whole(store, run_record(3))
    tip = made.git("rev-parse", "mtf/ledger")
    made.git("update-ref", "refs/heads/mtf/ledger", f"{tip}~2")
    found = store.read_whole()
    assert found.runs[TWO.run].state is RunState.COMPLETED
    assert run_record(3).run in found.runs
    made.git("branch", "-D", "mtf/ledger")
    store.fetch("main")
    assert made.git("rev-parse", "mtf/ledger") == tip
    assert store.read_whole().troubles == ()


def test_two_ledgers_that_have_parted_become_one_with_all_of_both(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    bare = make_remote(tmp_path / "bare.git", made)
    mine = open_store(made.path, "origin")
    mine.fetch("main")
    start = whole(mine, ONE).tip
    whole(mine, TWO)  # lost by the remote, which is then set back and goes on without it
    git(bare, "update-ref", "refs/heads/mtf/ledger", str(start))
    git(tmp_path, "clone", "-q", str(bare), "other")
    theirs = open_store(tmp_path / "other", "origin")
    theirs.fetch("main")
    whole(theirs, run_record(3))

    mine = open_store(made.path, "origin")
    mine.fetch("main")
    found = mine.read_whole()
    assert why(found) == {record_path(TWO.run): "was removed"}
    assert set(found.runs) == {ONE.run, TWO.run, RunId("e3/20260101T110000Z/cccccccc")}
    mine.append(found, Change(runs=(found.runs[TWO.run],)), "back")
    theirs.fetch("main")
    assert theirs.read_whole().runs == found.runs


def test_a_run_that_two_parted_ledgers_have_continued_is_one_again_for_both(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    bare = make_remote(tmp_path / "bare.git", made)
    mine = open_store(made.path, "origin")
    mine.fetch("main")
    whole(mine, ONE)
    git(tmp_path, "clone", "-q", str(bare), "other")
    theirs = open_store(tmp_path / "other", "origin")
    theirs.fetch("main")
    ours, others = (replace(ONE.attempt, token=Token(name * 16)) for name in "bc")
    whole(theirs, replace(ONE, attempts=(*ONE.attempts, others)))
    kept_back = LedgerStore(GitRepo(made.path), "origin", publish=False)
    whole(kept_back, replace(ONE, attempts=(*ONE.attempts, ours)))

    mine.fetch("main")
    found = mine.read_whole()
    (trouble,) = found.troubles or ()
    assert trouble.why == "was continued in two ledgers that have parted"
    assert trouble.rivals == (others,)
    assert [a.token[0] for a in found.runs[ONE.run].attempts] == ["a", "c", "b"]
    mine.append(found, Change(runs=(found.runs[ONE.run],)), "united")
    theirs.fetch("main")
    for store in (mine, theirs):
        assert store.read_whole().troubles == ()
        assert store.read().runs == found.runs


def test_a_claim_that_was_given_a_job_elsewhere_is_no_contradiction(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    store = open_store(made.path)
    claim = Attempt(**{**vars(ONE.attempt), "job_id": None, "submitted_at": None})
    whole(store, replace(ONE, attempts=(claim,), state=RunState.CLAIMED))
    store.append(store.read(), Change(runs=(replace(ONE, attempts=(replace(claim, job_id=JobId("9")),)),)), "m")  # fmt: skip
    assert store.read_whole().troubles == ()
