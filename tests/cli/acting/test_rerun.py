"""`mtf rerun`, and the previews of the commands that act on runs, in repositories with real jobs."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.mtf import mtf, mtf_json
from tests.cli.terminal.at_terminal import at_terminal
from tests.crash.campaign import wait_for
from tests.crash.repositories import make_world
from tests.executor.local.bench import end_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.repos import Repo


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Repo]:
    """A repository with a grid of two runs, which wait in the queue until `hold` is gone."""
    lab = make_world(tmp_path, executor="local", remote=False, seeds=2)
    (lab.path / "runs").mkdir()
    (lab.path / "runs" / "hold").touch()
    mtf(lab.path, "sync")
    yield lab
    end_all(tmp_path)


def status(lab: Repo, *args: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = mtf_json(lab.path, "status", "--json", *args)
    return found


def states(lab: Repo) -> list[str]:
    return sorted(run["state"] for run in status(lab))


def finish(lab: Repo) -> None:
    (lab.path / "runs" / "hold").unlink(missing_ok=True)
    mtf(lab.path, "sync", "--wait", "--interval", "0.2")


def ledger(lab: Repo) -> str:
    return lab.git("rev-parse", "mtf/ledger")


def test_an_experiment_is_run_again_at_the_newest_commit_and_its_old_run_is_hidden_and_kept(
    lab: Repo,
) -> None:
    finish(lab)
    before = {run["experiment"]: run for run in status(lab)}
    newer = lab.commit({"model.py": "# mended\n"})
    one = before["training.seed=0"]
    said = mtf(lab.path, "rerun", one["run"], "--yes").stderr
    assert f"{one['commit'][:8]} -> {newer[:8]}" in said
    assert f"rerun    {one['run']} at commit {newer[:8]}" in said
    finish(lab)

    # status shows the new run, and the old one on request
    after = {run["experiment"]: run for run in status(lab)}
    assert {name: run["commit"] for name, run in after.items()} == {
        "training.seed=0": newer,
        "training.seed=1": one["commit"],
    }
    assert {run["state"] for run in after.values()} == {"completed"}
    old = next(run for run in status(lab, "--all") if run["run"] == one["run"])
    superseded = {"superseded_by": after["training.seed=0"]["run"], "as_of": old["as_of"]}
    assert old == {**one, **superseded}
    assert [run["run"] for run in status(lab, one["run"])] == [one["run"]]
    assert "1 superseded run not shown: mtf status --all" in mtf(lab.path, "status").stderr
    assert f"by {after['training.seed=0']['run']}" in mtf(lab.path, "show", one["run"]).stdout

    # the grid is whole, and there is nothing left to do
    results = mtf_json(lab.path, "results", "many", "--json")
    assert {run["run"] for run in results} == {run["run"] for run in after.values()}
    assert mtf_json(lab.path, "plan", "--format", "json")["actions"] == []
    assert "was run again as" in mtf(lab.path, "rerun", one["run"], "--yes", code=1).stderr
    assert "was run again as" in mtf(lab.path, "retry", one["run"], code=1).stderr


def test_nothing_is_rerun_without_consent_and_a_dry_run_changes_nothing(lab: Repo) -> None:
    mtf(lab.path, "cancel", "many")
    mtf(lab.path, "sync", "--wait", "--interval", "0.2")
    before = ledger(lab)
    looked = mtf(lab.path, "rerun", "many", "--dry-run")
    assert [line.split()[1] for line in looked.stdout.splitlines()] == ["STATE", *["cancelled"] * 2]
    assert "2 runs would be rerun. Nothing was done" in looked.stderr
    assert "main is still at" in looked.stderr
    refused = mtf(lab.path, "rerun", "--where", "state=cancelled", code=1).stderr
    assert "rerun 2 runs? There is no terminal to ask at, so nothing was done. Add --yes" in refused
    refused = mtf(lab.path, "retry", "--where", "state=cancelled", code=1).stderr
    assert "Add --yes" in refused
    mtf(lab.path, "retry", "many", "--dry-run")
    code, seen = at_terminal(lab.path, "rerun", "many", answer="n")
    assert (code, seen.endswith("[y/N]: Nothing was done\n")) == (1, True)
    assert ledger(lab) == before

    # at a terminal, consent is enough; for names on the command line of a script, too
    code, seen = at_terminal(lab.path, "retry", "many/seed=0", answer="y")
    assert code == 0, seen
    assert f"at commit {lab.git('rev-parse', 'HEAD')[:8]}\n" in seen
    mtf(lab.path, "retry", "many")
    assert {*states(lab)} <= {"pending", "running"}


def test_a_grid_is_cancelled_at_a_terminal_after_a_question_and_by_a_script_at_once(
    lab: Repo,
) -> None:
    before = ledger(lab)
    for act, done in (("retry", "retried"), ("rerun", "rerun")):  # they wait: there is no need
        said = mtf(lab.path, act, "many", "--yes", code=1).stderr
        assert said.count(f": not {done}. To end its job first, run mtf cancel many/") == 2
        assert f"no run was {done}" in said
    mtf(lab.path, "cancel", "many", "--dry-run")
    code, seen = at_terminal(lab.path, "cancel", "many", answer="n")
    assert code == 1
    assert "Cancel 2 runs? [y/N]" in seen
    assert "Add --yes" in mtf(lab.path, "cancel", "--where", "grid=many", code=1).stderr
    assert ledger(lab) == before
    code, seen = at_terminal(lab.path, "cancel", "many/seed=0", answer="n")  # one run: not asked
    assert (code, "[y/N]" in seen) == (0, False)
    mtf(lab.path, "cancel", "many")
    assert wait_for(lambda: _synced(lab) == ["cancelled"] * 2, 60)


def test_runs_are_cancelled_by_their_states_of_now_and_not_by_those_of_the_last_sync(
    lab: Repo,
) -> None:
    (lab.path / "runs" / "hold").unlink()
    assert wait_for(lambda: states(lab) == ["completed"] * 2, 60)
    assert {run["state"] for run in status(lab, "--recorded")} == {"pending"}
    before = ledger(lab)
    refused = mtf(lab.path, "cancel", "--where", "state=pending", "--yes", code=1).stderr
    assert "no run with state=pending" in refused
    assert ledger(lab) == before


def _synced(lab: Repo) -> list[str]:
    mtf(lab.path, "sync")
    return states(lab)


def test_a_prune_asks_at_a_terminal_and_is_carried_out_by_a_script(lab: Repo) -> None:
    lab.git("rm", "-q", "experiments/many.yaml")
    lab.commit({})
    code, seen = at_terminal(lab.path, "sync", "--prune", answer="n")
    assert code == 1
    assert "Cancel 2 runs? [y/N]" in seen
    assert not any(run["reason"].startswith("cancel requested") for run in status(lab))
    code, seen = at_terminal(lab.path, "sync", "--prune", answer="y")
    assert (code, "2 pruned" in seen) == (0, True)
    assert wait_for(lambda: _synced(lab) == ["cancelled"] * 2, 60)
    left = mtf(lab.path, "retry", "many", code=1).stderr
    assert left.count("no spec on main asks for it any more. --force") == 2
    selections = (["many"], ["--where", "state=cancelled"])
    reruns = [mtf(lab.path, "rerun", *s, "--yes", code=1).stderr for s in selections]
    for rerun in reruns:
        assert rerun.count("no spec on main asks for this experiment any more") == 2
    mtf(lab.path, "retry", "many/seed=1", "--force")
    (cure,) = {*re.findall(r"\(git (checkout [^)]*)\)", reruns[0])}
    lab.git(*cure.split())
    lab.commit({})
    mtf(lab.path, "rerun", "many/seed=0", "--yes")
    assert {*states(lab)} <= {"pending", "running"}


def test_a_plan_says_that_failed_runs_are_pinned_to_older_code(lab: Repo) -> None:
    finish(lab)
    lab.commit({"templates/local.sh.j2": "#!/bin/bash\nexit 1 # mtf.trainer\n"})
    mtf(lab.path, "rerun", "many", "--yes")
    mtf(lab.path, "sync", "--wait", "--interval", "0.2", code=3)
    assert states(lab) == ["failed", "failed"]
    newer = lab.commit({"experiments/more.txt": "no code"})
    assert mtf_json(lab.path, "plan", "--format", "json")["notes"] == []
    newer = lab.commit({"model.py": "# mended\n"})
    (note,) = json.loads(mtf(lab.path, "plan", "--format", "json").stdout)["notes"]
    assert note == (
        f"2 runs of many failed at older commits, and main has newer code ({newer[:8]}):"
        " mtf rerun --where 'grid=many and state=failed'"
    )
