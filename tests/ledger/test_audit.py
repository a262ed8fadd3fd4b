"""The audit finds what was done to the ledger by hand, and the last good version of each record."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.ids import (
    CommitId,
    JobId,
    RunId,
    Token,
    record_path,
    submission_path,
)
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


def append(store: LedgerStore, *records: RunRecord, **more: Any) -> Ledger:
    """Append records to an audited ledger."""
    return store.append(store.read_audited(), Change(runs=records, **more), "m")


def forge(made: Repo, files: Mapping[str, bytes | None]) -> str:
    """Commit to the ledger with plain git."""
    repo = GitRepo(made.path)
    tip = repo.commit("mtf/ledger")
    new = repo.write_commit(files.items(), parents=(tip,), message="by hand", committer="x <x@x>")
    made.git("update-ref", "refs/heads/mtf/ledger", new)
    return new


def edited(record: RunRecord, **changes: Any) -> bytes:
    return json.dumps({**json.loads(encode_run(record)), **changes}).encode()


def why(ledger: Ledger) -> dict[str, str]:
    return {f.path: f.why for f in ledger.findings or ()}


def make_ledger(tmp_path: Path) -> tuple[Repo, LedgerStore]:
    made = make_repo(tmp_path / "r", {"a": "1"})
    store = open_store(made.path)
    append(store, ONE, TWO)
    append(store, replace(TWO, state=RunState.RUNNING))
    return made, store


def test_what_mtf_writes_gives_no_findings(tmp_path: Path) -> None:
    made, store = make_ledger(tmp_path)
    again = replace(ONE.attempt, token="b" * 16, job_id=None)  # type: ignore[arg-type]
    ended = replace(ONE, state=RunState.TIMEOUT)
    for record in (ended, replace(ended, state=RunState.CLAIMED, attempts=(*ONE.attempts, again))):
        store.append(store.read(), Change(runs=(record,)), "by another clone, not audited here")
    assert store.read_audited().findings == ()
    assert made.git("rev-parse", "refs/mtf/seen") != made.git("rev-parse", "mtf/ledger")
    append(store, run_record(3))
    assert made.git("rev-parse", "refs/mtf/seen") == made.git("rev-parse", "mtf/ledger")


def test_a_removed_record_is_read_from_history_until_it_is_restored(tmp_path: Path) -> None:
    made, store = make_ledger(tmp_path)
    store.append(store.read(), Change(runs=(replace(ONE, epoch=7),)), "newer than the last audit")
    forge(made, {PATH: None})
    found = store.read_audited()
    assert why(found) == {PATH: "was removed"}
    assert found.runs[ONE.run].epoch == 7
    # it stays missing until it is restored
    kept = store.append(found, Change(runs=(run_record(3),)), "something else")
    assert kept.findings == found.findings
    assert why(store.read_audited()) == {PATH: "was removed"}
    store.append(store.read_audited(), Change(runs=(found.runs[ONE.run],)), "back")
    assert store.read_audited().findings == ()
    # a clone without audits finds nothing wrong either
    made.git("update-ref", "-d", "refs/mtf/seen")
    assert store.read_audited().findings == ()


def test_a_clone_without_earlier_audits_finds_a_removed_record(tmp_path: Path) -> None:
    made, store = make_ledger(tmp_path)
    forge(made, {PATH: None})
    made.git("update-ref", "-d", "refs/mtf/seen")
    found = store.read_audited()
    assert why(found) == {PATH: "was removed"}
    assert found.runs[ONE.run] == ONE


def test_an_edit_is_found_by_the_fields_that_cannot_change(tmp_path: Path) -> None:
    attempt = json.loads(encode_run(ONE))["attempts"][0]
    done = replace(TWO, state=RunState.COMPLETED)
    made, store = make_ledger(tmp_path)
    append(store, done)
    for record, changes, message in (
        (ONE, {"key": "f" * 64, "commit": "c" * 8 + "d" * 32}, "was edited (commit, key changed)"),
        (ONE, {"attempts": [{**attempt, "job_id": "78"}]}, "was edited (an attempt changed)"),
        (done, {"state": "pending"}, "was edited (completed became pending)"),
    ):
        tip = made.git("rev-parse", "mtf/ledger")
        path = record_path(record.run)
        forge(made, {path: edited(record, **changes)})
        found = store.read_audited()
        assert why(found) == {path: message}
        assert found.runs[record.run] == record
        made.git("update-ref", "refs/heads/mtf/ledger", tip)


def test_a_damaged_record_is_read_from_history_and_a_newer_one_is_left_alone(
    tmp_path: Path,
) -> None:
    made, store = make_ledger(tmp_path)
    forge(made, {PATH: b"{torn", record_path(TWO.run): edited(TWO, format=99)})
    found = store.read_audited()
    assert "is damaged" in why(found)[PATH]
    assert found.runs == {ONE.run: ONE}
    newer = next(f for f in found.findings or () if f.path == record_path(TWO.run))
    assert newer.last_good is None
    assert "written by a newer mtf" in newer.why
    # restoring one of them does not make the ledger good
    left = store.append(found, Change(runs=(ONE,)), "m")
    assert [f.path for f in left.findings or ()] == [newer.path]
    assert set(left.damaged) == {newer.path}


def test_a_removed_submission_is_read_from_history(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    store = open_store(made.path)
    pinned = submission(CommitId(made.git("rev-parse", "HEAD")))
    append(store, RUN, submissions=(pinned,))
    forge(made, {submission_path(pinned.submission): None})
    found = store.read_audited()
    assert [f.last_good for f in found.findings or ()] == [pinned]
    store.append(found, Change(submissions=(pinned,)), "back")
    assert store.submission(store.read(), pinned.submission) == pinned


def test_a_ledger_that_is_reset_or_deleted_loses_no_record(tmp_path: Path) -> None:
    made, store = make_ledger(tmp_path)
    append(store, replace(TWO, state=RunState.COMPLETED))
    append(store, run_record(3))
    tip = made.git("rev-parse", "mtf/ledger")
    made.git("update-ref", "refs/heads/mtf/ledger", f"{tip}~2")
    found = store.read_audited()
    assert found.runs[TWO.run].state is RunState.COMPLETED
    assert run_record(3).run in found.runs
    made.git("branch", "-D", "mtf/ledger")
    store.fetch("main")
    assert made.git("rev-parse", "mtf/ledger") == tip
    assert store.read_audited().findings == ()


def test_a_merge_whose_first_parent_is_another_history_hides_nothing(tmp_path: Path) -> None:
    made, store = make_ledger(tmp_path)
    path, tip = record_path(ONE.run), CommitId(made.git("rev-parse", "mtf/ledger"))
    forged = [(path, edited(ONE, key="f" * 64))]
    repo = GitRepo(made.path)
    other = repo.write_commit(forged, parents=(), message="m", committer="x <x@x>")
    both = repo.write_commit([], parents=(other, tip), message="m", committer="x <x@x>")
    made.git("update-ref", "refs/heads/mtf/ledger", both)
    found = store.read_audited()
    assert why(found)[path] == "was edited (key changed)"
    assert why(found)[record_path(TWO.run)] == "was removed"
    assert found.runs[ONE.run] == ONE


def test_two_ledgers_that_diverged_are_united_with_all_records(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    bare = make_remote(tmp_path / "bare.git", made)
    mine = open_store(made.path, "origin")
    mine.fetch("main")
    start = append(mine, ONE).tip
    append(mine, TWO)  # the remote is then reset and goes on without it
    git(bare, "update-ref", "refs/heads/mtf/ledger", str(start))
    git(tmp_path, "clone", "-q", str(bare), "other")
    theirs = open_store(tmp_path / "other", "origin")
    theirs.fetch("main")
    append(theirs, run_record(3))

    mine = open_store(made.path, "origin")
    mine.fetch("main")
    found = mine.read_audited()
    assert why(found) == {record_path(TWO.run): "was removed"}
    assert set(found.runs) == {ONE.run, TWO.run, RunId("e3/20260101T110000Z/cccccccc")}
    mine.append(found, Change(runs=(found.runs[TWO.run],)), "back")
    theirs.fetch("main")
    assert theirs.read_audited().runs == found.runs


def test_a_run_continued_in_two_ledgers_gets_the_attempts_of_both(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    bare = make_remote(tmp_path / "bare.git", made)
    mine = open_store(made.path, "origin")
    mine.fetch("main")
    append(mine, ONE)
    git(tmp_path, "clone", "-q", str(bare), "other")
    theirs = open_store(tmp_path / "other", "origin")
    theirs.fetch("main")
    ours, others = (replace(ONE.attempt, token=Token(name * 16)) for name in "bc")
    append(theirs, replace(ONE, attempts=(*ONE.attempts, others)))
    kept_back = LedgerStore(GitRepo(made.path), "origin", publish=False)
    append(kept_back, replace(ONE, attempts=(*ONE.attempts, ours)))

    mine.fetch("main")
    found = mine.read_audited()
    (finding,) = found.findings or ()
    assert finding.why == "was continued in two ledgers that diverged"
    assert finding.rivals == (others,)
    assert [a.token[0] for a in found.runs[ONE.run].attempts] == ["a", "c", "b"]
    mine.append(found, Change(runs=(found.runs[ONE.run],)), "united")
    theirs.fetch("main")
    for store in (mine, theirs):
        assert store.read_audited().findings == ()
        assert store.read().runs == found.runs


def test_recording_the_job_of_a_claim_is_not_an_edit(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    store = open_store(made.path)
    claim = Attempt(**{**vars(ONE.attempt), "job_id": None, "submitted_at": None})
    append(store, replace(ONE, attempts=(claim,), state=RunState.CLAIMED))
    store.append(store.read(), Change(runs=(replace(ONE, attempts=(replace(claim, job_id=JobId("9")),)),)), "m")  # fmt: skip
    assert store.read_audited().findings == ()


def test_a_record_at_the_path_of_another_run_is_damage(tmp_path: Path) -> None:
    made, store = make_ledger(tmp_path)
    forge(made, {PATH: encode_run(TWO)})
    reason = f"it is the record of {TWO.run}"
    assert store.read().damaged == {PATH: reason}
    assert store.read().runs == {TWO.run: replace(TWO, state=RunState.RUNNING)}
    found = store.read_audited()
    assert why(found) == {PATH: f"is damaged ({reason})"}
    assert found.runs[ONE.run] == ONE


def test_an_audit_of_no_ledger_has_no_findings_and_its_first_append_counts_as_good(
    tmp_path: Path,
) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    store = open_store(made.path)
    assert store.read().findings is None, "a read is no audit"
    assert store.read_audited().findings == ()
    append(store, ONE)
    assert made.git("rev-parse", "refs/mtf/seen") == made.git("rev-parse", "mtf/ledger")


def test_an_append_to_a_ledger_that_was_not_audited_does_not_count_as_good(tmp_path: Path) -> None:
    made, store = make_ledger(tmp_path)
    seen = made.git("rev-parse", "refs/mtf/seen")
    forge(made, {PATH: None})
    after = store.append(store.read(), Change(runs=(run_record(3),)), "m")
    assert after.findings is None
    assert made.git("rev-parse", "refs/mtf/seen") == seen
    assert why(store.read_audited()) == {PATH: "was removed"}
