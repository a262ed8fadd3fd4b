"""The output formats of `mtf status`, `mtf results` and `mtf controller status`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.ids import CommitId
from mtf.core.vocabulary.records import Best
from mtf.core.vocabulary.states import RunState
from mtf.git.repo import GitRepo
from mtf.ledger.store import Change, LedgerStore
from tests.cli.mtf import mtf, mtf_json
from tests.core.planner.worlds import experiment, record
from tests.repos import Repo, make_repo

if TYPE_CHECKING:
    from pathlib import Path

LOSSES = {"training.seed=1": 0.5, "training.seed=2": 0.25, "training.seed=3": 0.75}


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    """Return a repository whose ledger has a completed grid of three runs."""
    made = make_repo(tmp_path / "r", {"mtf.yaml": "remote: null\n"})
    pin = CommitId(made.git("rev-parse", "HEAD"))
    records = tuple(
        record(
            experiment(name, "search"),
            f"search/20260101T000000Z/{pin[:8]}/{name}",
            state=RunState.COMPLETED,
            commit=pin,
            parameters={"training.seed": int(name[-1])},
            metrics={"val_loss": loss},
            best=Best("val_loss", loss, 1, 10, "min"),
        )
        for name, loss in LOSSES.items()
    )
    store = LedgerStore(GitRepo(made.path), None)
    store.append(store.read(), Change(runs=records), "three")
    return made


def test_results_begin_with_the_best_run_in_every_format(repo: Repo) -> None:
    def printed(*options: str) -> str:
        return mtf(repo.path, "results", "search", *options).stdout

    seeds = ["2", "1", "3"]
    table = printed().splitlines()
    assert [line.split()[0][-1] for line in table[1:]] == seeds
    assert table[0].split() == ["RUN", "STATE", "BEST", "training.seed", "val_loss"]
    assert [row.split(",")[3] for row in printed("--format", "csv").splitlines()[1:]] == seeds
    rows = printed("--format", "markdown").splitlines()[2:]
    assert [row.split(" | ")[3] for row in rows] == seeds
    value = json.loads(printed("--format", "json"))
    assert [str(run["parameters"]["training.seed"]) for run in value] == seeds
    assert value[0]["best"]["value"] == 0.25
    assert printed("--json") == printed("--format", "json")


def test_status_ends_with_a_summary_and_hints_only_if_there_are_no_runs(
    repo: Repo, tmp_path: Path
) -> None:
    found = mtf(repo.path, "status")
    assert found.stdout.splitlines()[-1].startswith("3 runs: 3 completed · best val_loss 0.25 (")
    none = mtf(repo.path, "status", "zz*")
    assert (none.stdout, none.stderr) == (
        "",
        "no run matches zz*. Known: search. mtf status lists the runs\n",
    )
    empty = make_repo(tmp_path / "empty", {"mtf.yaml": "remote: null\n"})
    assert "No runs yet. Commit a spec" in mtf(empty.path, "status").stderr


def test_records_that_cannot_be_read_are_named_though_no_run_is_left_to_show(
    tmp_path: Path,
) -> None:
    made = make_repo(tmp_path / "r", {"mtf.yaml": "remote: null\n"})
    made.git("switch", "-q", "--orphan", "mtf/ledger")
    made.commit({"runs/a/20260101T000000Z-cccccccc/_.json": "{torn"})
    made.git("switch", "-q", "main")
    for options in ((), ("--json",)):
        stderr = mtf(made.path, "status", *options).stderr
        assert "no record of mtf/ledger can be read" in stderr
        assert "note: mtf/ledger:runs/a/20260101T000000Z-cccccccc/_.json is damaged" in stderr


def test_a_glob_selects_runs(repo: Repo) -> None:
    assert len(mtf_json(repo.path, "status", "--json")) == 3
    assert len(mtf_json(repo.path, "status", "--json", "*seed=2")) == 1


def test_a_wide_status_has_more_columns(repo: Repo) -> None:
    narrow, wide = (mtf(repo.path, "status", *o).stdout.splitlines()[0] for o in ((), ("--wide",)))
    assert "EXECUTOR" in wide
    assert "EXECUTOR" not in narrow


def test_a_cluster_without_a_controller_is_an_error(repo: Repo) -> None:
    done = mtf(repo.path, "controller", "status", code=1)
    assert done.stdout == ""
    assert done.stderr.startswith("error: cluster default has no live controller.")
    assert mtf_json(repo.path, "controller", "status", "--json", code=1) == []
