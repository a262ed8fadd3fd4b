"""Drift: changes made by hand are named by plan and status, and restored by sync.

The jobs sleep: nothing here depends on what they would train.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mtf import rundir
from mtf.core.vocabulary.ids import Token, job_name
from mtf.executor.local.local_executor import LocalExecutor
from tests.cli.lab import SETTINGS, make_lab, push, runs, spec, stop_jobs, sync_until, wait_until
from tests.cli.mtf import mtf, mtf_json
from tests.repos import Repo, git, make_repo

if TYPE_CHECKING:
    from collections.abc import Iterator

ASLEEP = {"templates/local.sh.j2": "#!/bin/bash\nexec sleep 600 # {{ command }}\n"}
TWO = {"a.yaml": spec("a"), "b.yaml": spec("b")}


@pytest.fixture(autouse=True)
def stop_worker(tmp_path: Path) -> Iterator[None]:
    yield
    stop_jobs(tmp_path)


def synced_lab(tmp_path: Path) -> Repo:
    lab = make_lab(tmp_path, TWO, settings=SETTINGS)
    push(lab, ASLEEP)
    sync_until(lab, lambda found: {r["state"] for r in found.values()} == {"running"})
    return lab


def planned(lab: Repo) -> dict[str, Any]:
    return dict(mtf_json(lab.path, "plan", "--format", "json"))


def todo(lab: Repo) -> list[tuple[str, str]]:
    return sorted((a["action"], a["experiment"]) for a in planned(lab)["actions"])


def forge(tmp_path: Path, change: Any, *, force: bool = False) -> None:
    """Commit to the remote's ledger with git alone."""
    git(tmp_path, "clone", "-q", "-b", "mtf/ledger", str(tmp_path / "lab.git"), "forger")
    forger = tmp_path / "forger"
    change(forger)
    git(forger, "add", "-A")
    git(forger, "commit", "-q", "--allow-empty", "-m", "tidy up")
    git(forger, "push", "-q", *(["--force"] if force else []), "origin", "mtf/ledger")


def record_of(folder: Path, name: str) -> Path:
    (path,) = folder.glob(f"runs/{name}/*/run.json")
    return path


def test_moved_and_deleted_job_branches_are_restored(tmp_path: Path) -> None:
    lab = synced_lab(tmp_path)
    pins = lab.git("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads/slurm-job")
    a, b = (runs(lab)[name]["branch"] for name in "ab")
    stray = lab.commit({"x": "1"})
    lab.git("branch", "-D", a)
    lab.git("branch", "-f", b, stray)
    lab.git("push", "-q", "origin", f":refs/heads/{a}", f"+{stray}:refs/heads/{b}")

    stderr = mtf(lab.path, "status").stderr
    assert f"note: {a} was deleted: mtf sync restores it" in stderr
    assert f"note: {b} was moved to {stray}: mtf sync restores it" in stderr
    assert todo(lab) == [("repin", name) for name in "aabb"]
    assert f"{a} was deleted on the remote" in mtf(lab.path, "plan").stdout
    mtf(lab.path, "sync")
    for where in (lab.path, tmp_path / "lab.git"):
        now = git(
            where, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads/slurm-job"
        )
        assert now == pins
    assert lab.git("cat-file", "-t", stray) == "commit"
    assert todo(lab) == []
    # a clone that never had the branches need not have them
    git(tmp_path, "clone", "-q", str(tmp_path / "lab.git"), "other")
    assert todo(Repo(tmp_path / "other")) == []


def test_a_record_changed_by_hand_is_restored_and_nothing_runs_twice(
    tmp_path: Path,
) -> None:
    lab = synced_lab(tmp_path)
    before = runs(lab)

    def change(folder: Path) -> None:
        record_of(folder, "a").unlink()
        other = record_of(folder, "b")
        other.write_text(json.dumps({**json.loads(other.read_text()), "key": "0" * 64}))

    forge(tmp_path, change)
    git(tmp_path, "clone", "-q", str(tmp_path / "lab.git"), "new")  # has only the history
    for clone in (lab, Repo(tmp_path / "new")):
        assert todo(clone) == [("restore", "a"), ("restore", "b")]
    lines = mtf(lab.path, "plan").stdout
    assert f"! {before['a']['run']}: its record was removed" in lines
    assert f"! {before['b']['run']}: its record was edited (key changed)" in lines
    lab.git("fetch", "-q")
    stderr = mtf(lab.path, "status").stderr
    assert f"note: {before['a']['run']}: its record was removed: mtf sync restores it" in stderr
    mtf(lab.path, "sync")
    after = runs(lab)
    assert {n: (r["run"], r["key"], r["job_id"]) for n, r in after.items()} == {
        n: (r["run"], r["key"], r["job_id"]) for n, r in before.items()
    }
    assert todo(lab) == todo(Repo(tmp_path / "new")) == []


def test_records_lost_by_a_forced_push_are_restored(tmp_path: Path) -> None:
    lab = synced_lab(tmp_path)
    before = {name: (r["run"], r["job_id"]) for name, r in runs(lab).items()}
    beginning = lab.git("rev-list", "--first-parent", "mtf/ledger").splitlines()[-1]
    forge(tmp_path, lambda folder: git(folder, "reset", "-q", "--hard", beginning), force=True)

    # a clone that has only the remote's rest submits nothing that may have run before
    git(tmp_path, "clone", "-q", str(tmp_path / "lab.git"), "new")
    new = planned(Repo(tmp_path / "new"))
    assert new["actions"] == []
    assert "but mtf/ledger has no record of it" in " ".join(new["notes"])
    findings = mtf(tmp_path / "new", "doctor", code=1).stdout
    assert "the job branch has no record in the ledger: there is no run folder here" in findings
    assert "git push origin :refs/heads/slurm-job/a/" in findings

    assert {kind for kind, _ in todo(lab)} == {"restore"}
    mtf(lab.path, "sync")
    assert {name: (r["run"], r["job_id"]) for name, r in runs(lab).items()} == before
    assert todo(lab) == todo(Repo(tmp_path / "new")) == []


def job_states(root: Path, tokens: list[str]) -> list[str]:
    """Return the local executor's views of the jobs of these attempts."""
    names = {Token(token): job_name("a", Token(token)) for token in tokens}
    views = LocalExecutor(root, 2).jobs(names, datetime(2000, 1, 1, tzinfo=UTC))
    by_token = {view.token: str(view.state) for view in views}
    return [by_token[Token(token)] for token in tokens]


def test_only_one_of_two_attempts_started_by_diverged_ledgers_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    settings = SETTINGS.replace("runs_root: runs", f"runs_root: {root}")
    lab = make_lab(tmp_path, {"a.yaml": spec("a")}, settings=settings)
    push(lab, ASLEEP)
    sync_until(lab, lambda found: found["a"]["state"] == "running")
    git(tmp_path, "clone", "-q", str(tmp_path / "lab.git"), "other")
    other = Repo(tmp_path / "other")
    assert todo(other) == []  # only the clone that submitted a run has its branch
    mtf(lab.path, "cancel", "a")
    sync_until(lab, lambda found: found["a"]["state"] == "cancelled")
    mtf(lab.path, "retry", "a", "--no-push")
    mtf(other.path, "retry", "a")
    theirs = runs(other)["a"]["attempts"][-1]
    ours = runs(lab)["a"]["attempts"][-1]
    assert theirs["token"] != ours["token"]

    stderr = mtf(lab.path, "sync").stderr
    assert "1 attempt of another ledger" in stderr
    found = sync_until(lab, lambda found: found["a"]["state"] == "running")["a"]
    assert [a["token"] for a in found["attempts"]][1:] == [theirs["token"], ours["token"]]
    assert (Path(found["run_dir"]) / ".claims" / theirs["token"]).read_text() in (
        "fenced",
        theirs["job_id"],
    )
    tokens = [theirs["token"], ours["token"]]
    wait_until(
        lambda: job_states(root, tokens) == ["cancelled", "running"],
        lambda: job_states(root, tokens),
    )


def test_a_damaged_record_affects_no_other_and_its_run_is_not_submitted_again(
    tmp_path: Path,
) -> None:
    lab = synced_lab(tmp_path)
    forge(tmp_path, lambda folder: record_of(folder, "a").write_text("{torn"))
    assert todo(lab) == [("restore", "a")]
    # a record without a good version in history is reported and left alone
    lab.git("update-ref", "-d", "refs/mtf/seen")
    lab.git("fetch", "-q")
    tree = lab.git("rev-parse", "origin/mtf/ledger^{tree}")
    alone = lab.git("commit-tree", "-m", "no history", tree)
    lab.git("push", "-q", "--force", "origin", f"{alone}:refs/heads/mtf/ledger")
    lab.git("update-ref", "refs/heads/mtf/ledger", alone)
    plan = planned(lab)
    assert plan["actions"] == []
    assert any("is damaged" in note and "its run is left alone" in note for note in plan["notes"])
    assert "a is not submitted: its record" in " ".join(plan["notes"])
    mtf(lab.path, "cancel", "b")  # others can be acted on
    assert "the record is damaged" in mtf(lab.path, "doctor", code=1).stdout


def test_a_lost_run_folder_is_reported_and_never_recreated(tmp_path: Path) -> None:
    lab = synced_lab(tmp_path)
    folder = Path(runs(lab)["a"]["run_dir"])
    folder.rename(tmp_path / "moved away")
    for command, stream in (("plan", "stdout"), ("status", "stderr")):
        text = getattr(mtf(lab.path, command), stream)
        assert f"the folder of {runs(lab)['a']['run']}" in text
    mtf(lab.path, "sync")
    assert not folder.exists()
    assert "its folder is gone" in mtf(lab.path, "doctor", code=1).stdout


def save(folder: Path, step: int) -> None:
    """Write the files that a job writes when it saves a checkpoint."""
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / f"{step}.ckpt").write_bytes(b"x")
    rundir.append_journal(folder, "checkpoint", {"path": f"checkpoints/{step}.ckpt", "step": step})


def test_a_torn_journal_line_is_skipped_and_a_retry_without_its_folder_starts_over(
    tmp_path: Path,
) -> None:
    lab = synced_lab(tmp_path)
    folder = Path(runs(lab)["a"]["run_dir"])
    save(folder, 1)
    with (folder / rundir.JOURNAL).open("ab") as journal:
        journal.write(
            b'{"event": "checkpoint", "path": "\xff\xfe'
        )  # the disk was full, or the node died
    save(folder, 2)
    mtf(lab.path, "cancel", "a")
    found = sync_until(lab, lambda found: found["a"]["state"] == "cancelled")
    assert found["a"]["checkpoint"]["step"] == 2
    request = folder / rundir.JOBS / ("0" * 16)
    request.mkdir()
    findings = mtf(lab.path, "doctor", code=None).stdout
    assert "1 torn line in a journal" in findings
    assert f"rm -r {request}, if no job is named a+0000000000000000" in findings

    folder.rename(tmp_path / "moved away")
    assert "it starts from the beginning" in mtf(lab.path, "retry", "a").stderr
    again = runs(lab)["a"]
    assert (again["checkpoint"], again["attempts"][-1]["start_step"]) == (None, 0)
    assert (folder / rundir.JOBS / again["attempts"][-1]["token"] / rundir.CONFIGS).is_file()


def test_a_changed_spec_with_on_change_cancel_cancels_the_old_run(tmp_path: Path) -> None:
    lab = synced_lab(tmp_path)
    old = {name: r["run"] for name, r in runs(lab).items()}
    changed = spec("a", epochs=9) + "on_change: cancel\n"
    push(lab, {"experiments/a.yaml": changed, "experiments/b.yaml": spec("b", epochs=9)})
    assert todo(lab) == [("cancel", "a"), ("record", "b"), ("submit", "a"), ("submit", "b")]
    text = mtf(lab.path, "plan").stdout
    assert f"- {old['a']}: its spec has changed to a/" in text
    assert "runs of changed or removed specs continue. mtf sync --prune cancels them" in text
    mtf(lab.path, "sync")
    found = {r["run"]: r for r in mtf_json(lab.path, "status", "--json")}
    assert found[old["a"]]["reason"].startswith(("cancel requested", "cancelled"))
    assert found[old["b"]]["state"] in ("pending", "running", "claimed")
    assert {kind for kind, _ in todo(lab)} <= {"record"}


def test_a_deleted_ledger_without_a_remote_is_restored(tmp_path: Path) -> None:
    files = {"mtf.yaml": SETTINGS, ".gitignore": "/runs/\n", "experiments/a.yaml": spec("a")}
    lab = make_repo(tmp_path / "lab", {**files, **ASLEEP})
    mtf(lab.path, "sync")
    lab.git("branch", "-D", "mtf/ledger")
    assert {kind for kind, _ in todo(lab)} <= {"record"}
    assert lab.git("rev-parse", "mtf/ledger") == lab.git("rev-parse", "refs/mtf/seen")
