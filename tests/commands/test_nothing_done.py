"""Commands that find nothing to act on say so, say what there is, and do not exit with 0."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.ids import CommitId
from mtf.core.vocabulary.states import RunState
from mtf.git.repo import GitRepo
from mtf.ledger.store import Change, LedgerStore
from tests.cli.mtf import mtf
from tests.cli.specs import SINGLE
from tests.core.planner.worlds import experiment, record
from tests.repos import Repo, make_repo

if TYPE_CHECKING:
    from pathlib import Path

SPECS = {"mtf.yaml": "executor: local\n", "experiments/alone.yaml": SINGLE}


def repo_with(folder: Path, *states: RunState) -> Repo:
    """Return a repository whose ledger has a run of `alone` in each state, named after it."""
    repo = make_repo(folder, SPECS)
    pin = CommitId(repo.git("rev-parse", "HEAD"))
    records = tuple(
        record(
            experiment(state),
            f"{state}/20260101T000000Z/{pin[:8]}",
            commit=pin,
            state=state,
            executor="local",
            run_dir=str(repo.path / "runs" / f"{state}/20260101T000000Z/{pin[:8]}"),
            generation=2,
        )
        for state in states
    )
    store = LedgerStore(GitRepo(repo.path), None)
    store.append(store.read(), Change(runs=records), "runs")
    return repo


def ledger(repo: Repo) -> str:
    return repo.git("rev-parse", "mtf/ledger")


# -- runs in a state in which nothing can be done --------------------------------------------------


@pytest.mark.parametrize(
    ("act", "state", "messages"),
    [
        ("retry", "completed", ["not retried", "set `generation: 3` in its spec, commit, and run"]),
        ("cancel", "completed", ["is completed: not cancelled", "error: no run was cancelled"]),
        ("preempt", "completed", ["is completed: it has no live job", "No run was preempted"]),
    ],
)
def test_an_action_that_a_runs_state_rules_out_changes_nothing_and_exits_with_1(
    tmp_path: Path, act: str, state: str, messages: list[str]
) -> None:
    repo = repo_with(tmp_path / "r", RunState(state))
    before = ledger(repo)
    done = mtf(repo.path, act, state, code=1)
    assert [m for m in messages if m not in done.stderr] == []
    assert (done.stdout, ledger(repo)) == ("", before)


@pytest.mark.parametrize(
    ("act", "what"), [("cancel", "can be cancelled"), ("retry", "can be retried")]
)
def test_conditions_that_meet_only_runs_in_another_state_say_which(
    tmp_path: Path, act: str, what: str
) -> None:
    repo = repo_with(tmp_path / "r", RunState.COMPLETED)
    said = mtf(repo.path, act, "--where", "name=comp*", code=1).stderr
    assert f"no run with name=comp* {what}: 1 completed." in said


# -- names that match nothing ----------------------------------------------------------------------

NAMING = (
    ["show", "compleet"],
    ["logs", "compleet"],
    ["results", "compleet"],
    ["cancel", "compleet"],
    ["retry", "compleet"],
    ["preempt", "compleet"],
    ["cancel", "--where", "name=compleet"],
    ["diff", "compleet", "HEAD"],
)


@pytest.mark.parametrize("args", NAMING, ids=" ".join)
def test_a_name_of_no_run_is_an_error_that_says_what_there_is(
    tmp_path: Path, args: list[str]
) -> None:
    repo = repo_with(tmp_path / "r", RunState.COMPLETED)
    said = mtf(repo.path, *args, code=1).stderr
    assert said.startswith("error: ")
    assert "completed" in said
    assert "mtf status lists the runs" in said


def test_a_name_is_answered_with_the_way_to_a_first_run_if_there_is_none(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "r", SPECS)
    said = mtf(repo.path, "show", "alone", code=1).stderr
    assert said == (
        "error: alone: no such run. No runs yet. Commit a spec under experiments/, then run"
        " mtf sync\n"
    )


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_glob_that_matches_no_run_is_answered_with_what_there_is(
    tmp_path: Path, options: list[str]
) -> None:
    repo = repo_with(tmp_path / "r", RunState.COMPLETED)
    done = mtf(repo.path, "status", "nope*", *options)
    assert done.stderr == "no run matches nope*. Known: completed. mtf status lists the runs\n"
    assert done.stdout == ("[]\n" if options else "")


@pytest.mark.parametrize("args", [["plan"], ["sync", "--dry-run"], ["sync"]], ids=" ".join)
def test_a_selection_of_no_spec_is_answered_with_the_specs_there_are(
    tmp_path: Path, args: list[str]
) -> None:
    repo = make_repo(tmp_path / "r", SPECS)
    done = mtf(repo.path, *args, "--only", "nope")
    assert (
        "note: --only nope matches no experiment or grid. Known: alone" in done.stdout + done.stderr
    )
    assert "--only" not in mtf(repo.path, "plan", "--only", "al*").stdout


def test_options_that_a_review_ignores_are_refused(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "r", SPECS)
    for option in (["--only", "alone"], ["--prune"]):
        said = mtf(repo.path, "plan", "--base", "main", *option, code=64).stderr
        assert "--only, --executor, --prune and --scripts cannot be combined with --base" in said


# -- outside a repository --------------------------------------------------------------------------


@pytest.mark.parametrize("args", [["schema", "--write"], ["doctor", "--write"]], ids=" ".join)
def test_nothing_is_written_outside_a_repository(tmp_path: Path, args: list[str]) -> None:
    done = mtf(tmp_path, *args, code=1)
    assert "not in a git repository" in done.stderr
    assert "Run mtf init" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_schemas_are_written_to_the_root_of_a_project_without_git(tmp_path: Path) -> None:
    (tmp_path / "mtf.yaml").touch()
    (tmp_path / "experiments").mkdir()
    mtf(tmp_path / "experiments", "schema", "--write")
    assert (tmp_path / ".mtf" / "spec.schema.json").is_file()


# -- a comment by hand -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variables", "messages"),
    [
        ({}, ["GITHUB_TOKEN", "CI_API_V4_URL", "by hand"]),
        (
            {"GITHUB_REPOSITORY": "a/b", "GITHUB_API_URL": "http://x"},
            ["error: GITHUB_TOKEN is not set. On GitHub"],
        ),
        (
            {"CI_PROJECT_ID": "3"},
            ["error: CI_API_V4_URL, MTF_COMMENT_TOKEN are not set. On GitLab"],
        ),
    ],
    ids=["no CI", "GitHub", "GitLab"],
)
def test_a_comment_names_the_variables_that_its_forge_lacks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    messages: list[str],
) -> None:
    for name in ("GITHUB_REPOSITORY", "GITHUB_API_URL", "GITHUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "plan.md").write_text("a plan\n")
    said = mtf(tmp_path, "comment", "--number", "7", "plan.md", code=1).stderr
    assert [m for m in messages if m not in said] == []
    if variables:
        assert ("CI_" in said) == ("CI_PROJECT_ID" in variables)
