"""Policies in `validate`, `plan` and `sync`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.cli.mtf import mtf, mtf_json
from tests.cli.specs import BASE, GRID, SINGLE
from tests.repos import make_repo

if TYPE_CHECKING:
    from pathlib import Path


def test_a_spec_that_breaks_a_policy_fails_every_command_and_stops_no_other_spec(
    tmp_path: Path,
) -> None:
    rules = "executor: local\npolicies: {max_runs: 3, require: [owner]}\n"
    owned = "owner: me\n"
    repo = make_repo(
        tmp_path / "r",
        {
            "mtf.yaml": rules,
            "experiments/alone.yaml": SINGLE + owned,
            "experiments/base.yaml": BASE + owned,
            "experiments/search.yaml": GRID,
        },
    )
    problem = "experiments/search.yaml:2:7: search: 4 runs, at most 3 are allowed [max_runs]"
    assert problem in mtf(repo.path, "validate", code=1).stdout
    found = mtf_json(repo.path, "plan", "--format", "json", code=1)
    assert [a["experiment"] for a in found["actions"]] == ["alone"]
    assert found["held"] == 4
    assert "1 to submit, 0 unchanged, 4 held back" in mtf(repo.path, "plan", code=1).stdout
    synced = mtf(repo.path, "sync", "--only", "search", code=3)
    assert f"search: 4 of its runs are not submitted: {problem}" in synced.stderr
