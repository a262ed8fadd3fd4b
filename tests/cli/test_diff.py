"""`mtf diff` of runs, specs and revisions, with real commits, ledger and journals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mtf import rundir
from mtf.commands.diff import Diff, diff
from mtf.core.vocabulary.ids import CommitId, RunId, submission_of
from mtf.core.vocabulary.records import Best, SubmissionRecord
from mtf.core.vocabulary.states import RunState
from mtf.errors import MtfError
from mtf.git.repo import GitRepo
from mtf.ledger.store import Change, LedgerStore
from mtf.project.project import open_project
from mtf.report.diffs import contrast_text
from tests.cli.mtf import mtf, mtf_json
from tests.cli.specs import BASE, GRID, SINGLE
from tests.core.planner.worlds import experiment, record
from tests.repos import Repo, git, make_repo

if TYPE_CHECKING:
    from pathlib import Path

FILES = {
    "mtf.yaml": "executor: local\n",
    ".gitignore": "/runs/\n",
    "net.py": "1\n2\n",
    "experiments/alone.yaml": SINGLE,
    "experiments/base.yaml": BASE,
    "experiments/search.yaml": GRID,
}


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(tmp_path / "r", FILES)


def diffed(repo: Repo, a: str, b: str) -> Diff:
    return diff(open_project(repo.path), a, b)


def text(found: Diff) -> list[str]:
    assert found.contrast
    return contrast_text(found.contrast, found.files).splitlines()


def add_run(
    repo: Repo, name: str, stamp: str, installed: dict[str, str] | None, **changes: Any
) -> str:
    """Record a run of a spec at HEAD, with the journal of its job."""
    commit = CommitId(repo.git("rev-parse", "HEAD"))
    [side] = [diffed(repo, f"HEAD:{name}", f"HEAD:{name}").contrast.a]  # type: ignore[union-attr]
    subject = side.subjects[0]
    run = RunId(f"{name}/{stamp}/{commit[:8]}")
    folder = repo.path / "runs" / run
    folder.mkdir(parents=True)
    if installed is not None:
        digest = str(sorted(installed.items()))
        rundir.append_journal(
            folder, "proof", {"packages": installed, "packages_sha256": digest, "python": "3.11.2"}
        )
    stored = record(
        experiment(name),
        run,
        commit=commit,
        run_dir=str(folder),
        state=RunState.COMPLETED,
        **changes,
    )
    submission = SubmissionRecord(
        submission_of(run),
        f"experiments/{name}.yaml",
        commit,
        f"slurm-job/{run}",
        None,
        stored.claimed_at,
        "",
        None,
        (run,),
        {"run": dict(subject.config)},
    )
    store = LedgerStore(GitRepo(repo.path), None)
    store.append(store.read(), Change((stored,), (submission,)), "a run")
    return run


def test_two_runs_are_compared_though_only_job_branches_hold_their_commits(repo: Repo) -> None:
    best = Best("val_loss", 0.5, 1, 10)
    repo.git("checkout", "-q", "-b", "work")
    repo.commit({"lib.py": "x\n"})
    first = add_run(
        repo,
        "alone",
        "20260101T110000Z",
        {"torch": "2.6", "old": "1"},
        metrics={"val_loss": 0.5},
        best=best,
    )
    repo.commit(
        {
            "net.py": "1\n3\n4\n",
            "experiments/alone.yaml": SINGLE.replace("1e-3", "1e-2").replace("00:05", "00:09"),
        }
    )
    second = add_run(
        repo, "alone", "20260101T120000Z", {"torch": "2.7", "new": "1"}, metrics={"val_loss": 0.25}
    )
    repo.git("checkout", "-q", "main")
    repo.git("branch", "-q", "-D", "work")
    repo.git("reflog", "expire", "--expire=now", "--all")
    repo.git("gc", "-q", "--prune=now")
    lines = text(diffed(repo, first, "alone"))
    assert lines == [
        f"A  {first}  completed",
        f"B  {second}  completed",
        "",
        "configuration",
        "  ~ optimizer.lr 0.001 -> 0.01",
        '  ~ slurm.time "00:05:00" -> "00:09:00"   (does not affect the result)',
        "",
        f"code {first[-8:]}..{second[-8:]}: 2 files, +4 -3",
        "  M experiments/alone.yaml  +2 -2",
        "  M net.py                  +2 -1",
        "",
        "environment: 3 packages changed",
        "  ~ new unset -> 1",
        "  ~ old 1 -> unset",
        "  ~ torch 2.6 -> 2.7",
        "",
        "metrics",
        "  METRIC         A    B     B - A",
        "  val_loss       0.5  0.25  -0.25",
        "  best val_loss  0.5  -     -",
    ]
    found = mtf_json(repo.path, "diff", first, second, "--json")
    assert [d["key"] for d in found["configuration"]] == ["optimizer.lr", "slurm.time"]
    assert found["environment"]["same"] is False
    assert found["metrics"][0] == {"run": "alone", "metric": "val_loss", "a": 0.5, "b": 0.25}


def test_a_run_is_compared_with_its_committed_spec(repo: Repo) -> None:
    run = add_run(repo, "alone", "20260101T110000Z", None, packages="a" * 64)
    repo.commit({"experiments/alone.yaml": SINGLE.replace("hidden_size: 16", "hidden_size: 32")})
    for spelled in ("main", "HEAD:alone", "main:experiments/alone.yaml"):
        lines = text(diffed(repo, run, spelled))
        assert "  ~ model.hidden_size 16 -> 32" in lines
        assert "environment: not recorded for both (jobs record it when they start)" in lines
    assert text(diffed(repo, "main~1", run))[4] == "  the same"


def test_members_of_two_grids_are_paired_by_their_parameters(repo: Repo) -> None:
    repo.commit(
        {
            "experiments/base.yaml": BASE.replace("hidden_size: 16", "hidden_size: 32"),
            "experiments/search.yaml": GRID.replace("[1, 2]", "[2, 3]"),
        }
    )
    lines = text(diffed(repo, "main~1:search", "search"))
    assert lines[3] == "configuration (2 pairs of equal parameters)"
    assert lines[4] == "  ~ model.hidden_size 16 -> 32 (2 of 2 pairs)"
    assert [line for line in lines if "only in" in line] == [
        "  - only in A: search/lr=0.001,seed=1",
        "  - only in A: search/lr=0.01,seed=1",
        "  + only in B: search/lr=0.001,seed=3",
        "  + only in B: search/lr=0.01,seed=3",
    ]
    one = text(diffed(repo, "search/lr=0.001,seed=3", "search/lr=0.01,seed=3"))
    assert one[4:6] == ["  ~ optimizer.lr 0.001 -> 0.01", ""]
    with pytest.raises(MtfError, match=r"Name one of them, like search/lr=0\.001,seed=2"):
        diffed(repo, "alone", "search")


def test_two_revisions_are_compared_with_their_submodules(repo: Repo, tmp_path: Path) -> None:
    lib = make_repo(tmp_path / "lib", {"a": "1"})
    repo.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(lib.path), "lib")
    repo.commit({})
    old = lib.git("rev-parse", "HEAD")
    new = lib.commit({"a": "2"})
    git(repo.path / "lib", "fetch", "-q")
    git(repo.path / "lib", "checkout", "-q", new)
    repo.commit({"experiments/new.yaml": SINGLE.replace("alone", "new"), "raw.bin": "\0"})
    out = mtf(repo.path, "diff", "main~1", "main").stdout.splitlines()
    assert f"  M lib                   submodule {old[:8]} -> {new[:8]}" in out
    assert "  A raw.bin               binary" in out
    assert "  + 1 new run" in out


def test_a_name_of_nothing_and_a_broken_spec_are_errors(repo: Repo) -> None:
    assert "no such run, spec or revision" in mtf(repo.path, "diff", "nope", "main", code=1).stderr
    with pytest.raises(MtfError, match="gone: no such spec"):
        diffed(repo, "main:gone", "main")
    repo.commit({"experiments/alone.yaml": SINGLE.replace("1e-3", "fast")})
    with pytest.raises(MtfError, match=r"experiments/alone.yaml:6:\d+: optimizer.lr"):
        diffed(repo, "main:alone", "main~1:alone")
