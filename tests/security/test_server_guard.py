"""The server's `pre-receive`: pushes to the ledger and to job branches that mtf cannot have made."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mtf.core.vocabulary.ids import CommitId, record_path, submission_path
from mtf.git.repo import GitRepo
from mtf.ledger.codec import encode_run, encode_submission
from mtf.ledger.store import Change, LedgerStore
from tests.cli.mtf import mtf
from tests.ledger.test_store import RUN, run_record, submission
from tests.repos import Repo, make_remote, make_repo

if TYPE_CHECKING:
    from pathlib import Path

SUBMISSION = submission(CommitId("c" * 40))
PATH, OTHER = record_path(RUN.run), record_path(run_record(2).run)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Return a clone whose remote has the hook and a ledger."""
    folder = tmp_path_factory.mktemp("guard")
    made = make_repo(folder / "lab", {"a": "1"})
    bare = make_remote(folder / "lab.git", made)
    store = LedgerStore(GitRepo(made.path), "origin")
    store.append(store.read(), Change(runs=(RUN,), submissions=()), "m")
    mtf(bare, "hooks", "install")
    made.git("update-ref", "refs/saved", "refs/heads/mtf/ledger")
    return made


def push(lab: Repo, *refs: str) -> str:
    """Push, and return the server's answer; an empty text means that it was accepted."""
    command = ["git", "-C", str(lab.path), "push", "-q", "origin", *refs]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.stderr if done.returncode else ""


def push_ledger(lab: Repo, files: dict[str, bytes | None], *, parent: str = "refs/saved") -> str:
    repo = GitRepo(lab.path)
    new = repo.write_commit(
        files.items(), parents=(repo.commit(parent),), message="m", committer="x <x@x>"
    )
    return push(lab, f"{new}:refs/heads/mtf/ledger")


def changed(**changes: Any) -> bytes:
    return json.dumps({**json.loads(encode_run(RUN)), **changes}).encode()


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"entry.py": b"x"}, "the ledger holds records and README.md alone"),
        ({".github/workflows/x.yml": b"x"}, "holds records"),
        ({"runs/a/b.json": b"{}"}, "holds records"),
        ({"runs/a/b/c.txt": b"{}"}, "holds records"),
        ({"README.md": None, "README.md/x": b"x"}, "holds records"),
        ({PATH: None}, "only grows"),
        ({PATH: b"{"}, "not a record"),
        ({PATH: b"[" * 100_000}, "nested too deeply"),
        ({PATH: changed(reason="x" * (1 << 20))}, "more than 1,048,576 bytes"),
        ({PATH: changed(key="f" * 64)}, "edited (key changed)"),
        ({PATH: changed(branch="main")}, "not a record (branch"),
        ({PATH: changed(attempts=[])}, "not a record"),
        ({OTHER: encode_run(RUN)}, "it is the record of alone"),
        ({submission_path(SUBMISSION.submission): b"{}"}, "not a record"),
        (
            {"submissions/x/20260101T110000Z-cccccccc.json": encode_submission(SUBMISSION)},
            "it is the record of alone",
        ),
    ],
)
def test_what_mtf_never_writes_is_refused(
    lab: Repo, files: dict[str, bytes | None], why: str
) -> None:
    assert why in push_ledger(lab, files)


def test_what_mtf_writes_is_accepted(lab: Repo) -> None:
    later = replace(RUN, epoch=3)
    files = {
        PATH: encode_run(later),
        OTHER: encode_run(run_record(2)),
        submission_path(SUBMISSION.submission): encode_submission(SUBMISSION),
        "README.md": b"x",
        "runs/new/20260101T110000Z-cccccccc/run.json": changed(format=99),
    }
    assert push_ledger(lab, dict(files)) == ""
    lab.git(
        "--git-dir",
        str(lab.path.parent / "lab.git"),
        "update-ref",
        "refs/heads/mtf/ledger",
        lab.git("rev-parse", "refs/saved"),
    )


def test_a_new_ledger_is_checked_as_well(lab: Repo, tmp_path: Path) -> None:
    other = make_repo(tmp_path / "r", {"a": "1"})
    bare = make_remote(tmp_path / "r.git", other)
    mtf(bare, "hooks", "install")
    assert "holds records" in push(other, "main:refs/heads/mtf/ledger")


def test_an_intermediate_commit_hides_nothing(lab: Repo) -> None:
    repo = GitRepo(lab.path)
    parents = (repo.commit("refs/saved"),)
    for files in ({PATH: None}, {PATH: encode_run(RUN)}):
        items: dict[str, bytes | None] = dict(files)
        new = repo.write_commit(items.items(), parents=parents, message="m", committer="x <x@x>")
        parents = (new,)
    assert "only grows" in push(lab, f"{parents[0]}:refs/heads/mtf/ledger")


def test_the_ledger_only_grows_from_its_tip(lab: Repo) -> None:
    repo, tip = GitRepo(lab.path), lab.git("rev-parse", "refs/saved")
    other = repo.write_commit(
        [(PATH, changed(key="f" * 64))], parents=(), message="m", committer="x <x@x>"
    )
    assert "does not continue its tip" in push(lab, f"+{other}:refs/heads/mtf/ledger")
    assert "must not be deleted" in push(lab, ":refs/heads/mtf/ledger")
    # it contains the tip, but the record is new in the history of its first parent
    both = repo.write_commit([], parents=(other, CommitId(tip)), message="m", committer="x <x@x>")
    assert "does not continue its tip" in push(lab, f"{both}:refs/heads/mtf/ledger")


def test_job_branches_are_created_under_their_own_names_and_never_moved(lab: Repo) -> None:
    commit = lab.git("rev-parse", "main")
    other = lab.commit({"a": "2"})
    lab.git("push", "-q", "origin", "main")
    branch = f"refs/heads/slurm-job/alone/20260101T110000Z/{commit[:8]}"
    for wrong in ("slurm-job/x", "slurm-job/a/b/c/d", f"slurm-job/alone/now/{commit[:8]}"):
        assert "a job branch is named" in push(lab, f"{commit}:refs/heads/{wrong}")
    assert "named after its commit" in push(lab, f"{other}:{branch}")
    assert push(lab, f"{commit}:{branch}") == ""
    assert "never moved" in push(lab, f"+{other}:{branch}")
    assert "never deleted" in push(lab, f":{branch}")


def test_a_server_that_requires_signatures_refuses_unsigned_ledgers(lab: Repo) -> None:
    bare = Repo(lab.path.parent / "lab.git")
    bare.git("config", "mtf.requireSignedLedger", "true")
    try:
        assert "no good signature" in push_ledger(lab, {"README.md": b"y"})
    finally:
        bare.git("config", "--unset", "mtf.requireSignedLedger")
