"""`mtf plan --base`: the review of a merge; neither remote nor cluster is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.commands import review as review_command
from mtf.commands.review import compare
from mtf.core.review.changed_runs import summarise
from mtf.core.vocabulary.ids import RunId
from mtf.core.vocabulary.states import RunState
from mtf.errors import RepositoryError
from mtf.git.repo import GitRepo
from mtf.ledger.store import Change, LedgerStore
from mtf.project.affected import touched
from mtf.project.project import open_project
from mtf.report.comments import comment
from mtf.report.reviews import review_text
from tests.cli.mtf import mtf, mtf_json
from tests.cli.specs import BASE, GRID, SINGLE
from tests.core.planner.worlds import record
from tests.repos import Repo, make_remote, make_repo

if TYPE_CHECKING:
    from pathlib import Path

    from mtf.core.review.changed_runs import Review

OTHERS = {f"experiments/x{n}.yaml": SINGLE.replace("alone", f"x{n}") for n in range(5)}


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    files = {
        "mtf.yaml": "executor: local\n",
        "experiments/alone.yaml": SINGLE,
        "experiments/base.yaml": BASE,
        "experiments/search.yaml": GRID,
        **OTHERS,
    }
    made = make_repo(tmp_path / "r", files)
    made.git("checkout", "-q", "-b", "feature")
    return made


def review(repo: Repo, rev: str = "feature") -> Review:
    return compare(open_project(repo.path), "main", rev)


def counts(found: Review) -> dict[str, int]:
    kinds = ("new", "changed", "done", "unchanged", "removed")
    return {kind: found.count(kind) for kind in kinds if found.count(kind)}


def test_a_change_of_a_base_counts_in_each_grid_and_is_summarised_once(repo: Repo) -> None:
    grid = GRID.replace("search", "second").replace("[1, 2]", "[1, 2, 3]")
    repo.git("checkout", "-q", "main")
    repo.commit({"experiments/deep/second.yaml": grid.replace("base.yaml", "../base.yaml")})
    repo.git("checkout", "-q", "-B", "feature")
    repo.commit({"experiments/base.yaml": BASE.replace("hidden_size: 16", "hidden_size: 32")})
    found = review(repo)
    assert counts(found) == {"changed": 10}
    assert found.untouched == 6
    [one] = summarise(found.specs)
    assert (one.change.key, one.change.old, one.change.new, one.runs) == (
        "model.hidden_size",
        "16",
        "32",
        10,
    )
    assert one.specs == ("search", "second")


def test_a_changed_default_in_the_settings_counts_in_every_spec(repo: Repo) -> None:
    repo.commit({"mtf.yaml": "executor: local\nslurm: {mem: 4G}\nretry: {max_attempts: 5}\n"})
    found = review(repo)
    assert counts(found) == {"unchanged": 10}
    [one] = summarise(found.specs)
    assert (one.change.key, one.change.reruns, one.runs) == ("slurm.mem", False, 10)
    assert [d.key for d in found.settings] == ["slurm.mem", "retry.max_attempts"]
    assert not found.is_empty


def test_a_moved_file_and_a_comment_run_nothing(repo: Repo) -> None:
    repo.git("mv", "experiments/alone.yaml", "experiments/moved.yaml")
    repo.commit({"experiments/x1.yaml": "# words\n" + OTHERS["experiments/x1.yaml"]})
    found = review(repo)
    assert counts(found) == {"unchanged": 2}
    assert found.is_empty
    moved = found.specs[0]
    assert moved.path_before == "experiments/alone.yaml"
    assert moved.path == "experiments/moved.yaml"


def test_an_experiment_that_ran_already_is_shown_with_its_run(repo: Repo, tmp_path: Path) -> None:
    """The remote-tracking ledger is used because the local one is behind; nothing is fetched."""
    make_remote(tmp_path / "bare.git", repo)
    repo.commit({"experiments/alone.yaml": SINGLE.replace("hidden_size: 16", "hidden_size: 32")})
    [spec] = review(repo).specs
    store = LedgerStore(GitRepo(repo.path), None)
    old, new = spec.changed[0].before, spec.changed[0].now
    assert old
    assert new
    then = record(old, "alone/20260101T100000Z/cccccccc", state=RunState.RUNNING)
    now = record(new, "alone/20260101T110000Z/cccccccc", state=RunState.COMPLETED)
    store.append(store.read(), Change(runs=(then, now)), "runs")
    repo.git("push", "-q", "origin", "mtf/ledger")
    repo.git("update-ref", "-d", "refs/heads/mtf/ledger")
    repo.git("remote", "set-url", "origin", str(tmp_path / "gone.git"))
    found = review(repo)
    assert counts(found) == {"done": 1}
    [spec] = found.specs
    assert [r.run for r in spec.recorded] == [now.run]
    assert [r.run for r in spec.going_on] == [RunId("alone/20260101T100000Z/cccccccc")]


def test_a_review_names_the_active_runs_that_it_will_cancel(repo: Repo) -> None:
    repo.git("checkout", "-q", "main")
    repo.commit({"experiments/alone.yaml": SINGLE + "on_change: cancel\n"})
    repo.git("checkout", "-q", "-B", "feature")
    changed = SINGLE.replace("hidden_size: 16", "hidden_size: 32")
    repo.commit({"experiments/alone.yaml": changed + "on_change: cancel\n"})
    [spec] = review(repo).specs
    before = spec.changed[0].before
    assert before
    running = record(before, "alone/20260101T100000Z/cccccccc", state=RunState.RUNNING)
    store = LedgerStore(GitRepo(repo.path), None)
    store.append(store.read(), Change(runs=(running,)), "runs")
    found = review(repo)
    assert [r.run for r in found.specs[0].giving_way] == [running.run]
    assert not found.specs[0].going_on
    headline = "**⚠️ 1 run will be cancelled** and replaced by changed runs (`on_change: cancel`):"
    assert f"{headline}\n- `{running.run}` is running\n" in comment(found)
    assert f"! {running.run} is running and will be cancelled (on_change: cancel)" in review_text(
        found
    )


def test_changed_code_in_rerun_on_counts_as_a_change(repo: Repo) -> None:
    repo.git("checkout", "-q", "main")
    repo.commit(
        {
            "src/net.py": "1",
            "experiments/code.yaml": SINGLE.replace("alone", "code") + "rerun_on: [src]\n",
        }
    )
    repo.git("checkout", "-q", "-B", "feature")
    repo.commit({"src/net.py": "2"})
    found = review(repo)
    assert counts(found) == {"changed": 1}
    assert [s.change.key for s in summarise(found.specs)] == ["rerun_on src"]


def test_a_changed_config_group_counts_in_the_specs_that_use_it(repo: Repo) -> None:
    pytest.importorskip("hydra")
    composed = SINGLE.replace("alone", "composed").replace(
        "optimizer: {type: adamw, lr: 1e-3}", "defaults: [optimizer: fast]"
    )
    repo.git("checkout", "-q", "main")
    repo.commit(
        {"experiments/composed.yaml": composed, "conf/optimizer/fast.yaml": "type: sgd\nlr: 0.1\n"}
    )
    repo.git("checkout", "-q", "-B", "feature")
    repo.commit({"conf/optimizer/fast.yaml": "type: sgd\nlr: 0.2\n"})
    [one] = summarise(review(repo).specs)
    assert (one.change.key, one.change.old, one.change.new) == ("optimizer.lr", "0.1", "0.2")


def test_later_work_on_the_base_branch_is_no_removal(repo: Repo) -> None:
    repo.commit({"experiments/new.yaml": SINGLE.replace("alone", "new")})
    repo.git("checkout", "-q", "main")
    repo.commit({"experiments/other.yaml": SINGLE.replace("alone", "other")})
    assert counts(review(repo)) == {"new": 1}


def test_mistakes_are_in_the_comment_and_fail_the_command(repo: Repo) -> None:
    repo.commit(
        {
            "experiments/alone.yaml": SINGLE.replace("lr: 1e-3", "lr: fast"),
            "experiments/twin.yaml": SINGLE.replace("alone", "x3"),
            "experiments/from.yaml": SINGLE.replace("alone", "from") + "init_from: nobody\n",
        }
    )
    text = mtf(repo.path, "plan", "--base", "main", "--format", "markdown", code=1).stdout
    assert text.startswith("<!-- mtf-plan:v1 -->\n### mtf plan: ")
    for expected in (
        "experiments/alone.yaml:6:",
        "experiments/twin.yaml:2:18",
        "experiments/x3.yaml:2:18",
        "nobody",
    ):
        assert expected in text
    assert "**❌ 4 mistakes.**" in text
    assert "removed" not in text  # a spec with mistakes is not a removed one


def test_a_review_has_json_and_a_detailed_exit_code(repo: Repo) -> None:
    assert mtf_json(repo.path, "plan", "--base", "main", "--format", "json")["specs"] == []
    repo.commit({"experiments/x1.yaml": SINGLE.replace("alone", "x1").replace("1e-3", "1e-2")})
    done = mtf(repo.path, "plan", "--base", "main", "--detailed-exitcode", code=2)
    assert done.stdout.splitlines()[-1].endswith(": 1 changed run, at most 0.08333 CPU-h.")


RULES = "executor: local\npolicies: {{max_runs: {0}, pull_request: {{max_cpu_hours: 10}}}}\n"


class TestPolicies:
    """Policies that hold after the merge apply; changes to policies are shown."""

    @pytest.fixture
    def ruled(self, repo: Repo) -> Repo:
        repo.git("checkout", "-q", "main")
        repo.commit({"mtf.yaml": RULES.format(4)})
        repo.git("checkout", "-q", "-B", "feature")
        return repo

    def test_only_policies_that_this_change_breaks_are_problems(self, ruled: Repo) -> None:
        ruled.commit({"experiments/search.yaml": GRID.replace("[1, 2]", "[1, 2, 3]")})
        found = review(ruled)
        assert [(p.path, p.line, p.rule) for p in found.problems] == [
            ("experiments/search.yaml", 2, "max_runs")
        ]
        assert found.is_refused
        assert mtf(ruled.path, "plan", "--base", "main", code=1).stdout.count("[max_runs]") == 1

    def test_a_loosened_policy_is_shown_with_the_specs_it_lets_through(self, ruled: Repo) -> None:
        grid = GRID.replace("[1, 2]", "[1, 2, 3]")
        ruled.commit({"experiments/search.yaml": grid, "mtf.yaml": RULES.format(9)})
        found = review(ruled)
        assert not found.is_refused
        assert [(d.key, d.old, d.new) for d in found.policies] == [("max_runs", "4", "9")]
        assert [p.rule for p in found.loosened] == ["max_runs"]

    def test_a_policy_that_the_base_branch_has_added_since_applies(self, ruled: Repo) -> None:
        ruled.commit({"experiments/search.yaml": GRID.replace("[1, 2]", "[1, 3]")})
        ruled.git("checkout", "-q", "main")
        ruled.commit({"mtf.yaml": RULES.format(3)})
        assert [p.rule for p in review(ruled).problems] == ["max_runs"]

    def test_a_pull_request_has_a_budget_for_all_runs_it_adds(self, ruled: Repo) -> None:
        slow = SINGLE.replace("00:05:00", "06:00:00")
        ruled.commit({f"experiments/n{n}.yaml": slow.replace("alone", f"n{n}") for n in (1, 2)})
        assert [rule for rule, _ in review(ruled).over_budget] == ["pull_request.max_cpu_hours"]


def test_skipping_unaffected_specs_finds_the_same_changes(
    repo: Repo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare with a review that parses every spec."""
    repo.commit(
        {
            "experiments/base.yaml": BASE.replace("hidden_size: 16", "hidden_size: 32"),
            "experiments/x2.yaml": SINGLE.replace("alone", "renamed"),
            "experiments/from.yaml": SINGLE.replace("alone", "from") + "init_from: x4\n",
        }
    )
    quick = review(repo)
    assert quick.untouched == 4  # alone, x0, x1, x3
    monkeypatch.setattr(review_command, "touched", lambda one, other, _: {*one, *other})
    whole = review(repo)
    assert [s for s in quick.specs if s.name != "x4"] == list(whole.specs)


def test_a_name_behind_an_escape_sequence_is_not_overlooked() -> None:
    same = {
        "plain.yaml": b"base: a.yaml\n",
        "json.yaml": b'{"base": "../x/a.yaml"}',
        "escaped.yaml": b'base: "\\x61.yaml"\n',
        "longer.yaml": b"base: aa.yaml\nname: a.yaml.old\n",
        "chain.yaml": b"base: plain.yaml\n",
        "other.txt": b"base: a.yaml\n",
    }
    found = touched({**same, "a.yaml": b"1"}, {**same, "a.yaml": b"2"})
    assert found == {"a.yaml", "plain.yaml", "json.yaml", "escaped.yaml", "chain.yaml"}
    spaced = {"b.yaml": b"base: >\n  a\n  b.yaml\n"}
    assert touched({**spaced, "a b.yaml": b""}, spaced) == {"a b.yaml", "b.yaml"}


def test_unrelated_histories_are_an_error_that_says_what_to_do(repo: Repo) -> None:
    repo.git("checkout", "-q", "--orphan", "apart")
    repo.commit({"y": "1"})
    with pytest.raises(RepositoryError, match="fetch-depth: 0"):
        review(repo, "apart")
