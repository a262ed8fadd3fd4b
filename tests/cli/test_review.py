"""`mtf plan --base`: what merging means, from real commits; neither remote nor cluster is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.commands import review as comparing
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


def test_a_base_that_changes_shows_in_each_grid_and_is_said_once(repo: Repo) -> None:
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


def test_a_default_of_the_settings_shows_in_every_spec(repo: Repo) -> None:
    repo.commit({"mtf.yaml": "executor: local\nslurm: {mem: 4G}\nretry: {max_attempts: 5}\n"})
    found = review(repo)
    assert counts(found) == {"unchanged": 10}
    [one] = summarise(found.specs)
    assert (one.change.key, one.change.reruns, one.runs) == ("slurm.mem", False, 10)
    assert [d.key for d in found.settings] == ["slurm.mem", "retry.max_attempts"]
    assert not found.is_empty


def test_a_moved_file_and_other_words_run_nothing(repo: Repo) -> None:
    repo.git("mv", "experiments/alone.yaml", "experiments/moved.yaml")
    repo.commit({"experiments/x1.yaml": "# words\n" + OTHERS["experiments/x1.yaml"]})
    found = review(repo)
    assert counts(found) == {"unchanged": 2}
    assert found.is_empty
    moved = found.specs[0]
    assert moved.path_before == "experiments/alone.yaml"
    assert moved.path == "experiments/moved.yaml"


def test_what_ran_already_does_not_run_again_and_shows_its_result(
    repo: Repo, tmp_path: Path
) -> None:
    """The ledger here is behind: the remote-tracking one counts. Nothing is fetched."""
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


def test_a_review_says_which_active_runs_are_cancelled(repo: Repo) -> None:
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
    told = "**⚠️ 1 run will be cancelled** and replaced by changed runs (`on_change: cancel`):"
    assert f"{told}\n- `{running.run}` is running\n" in comment(found)
    assert f"! {running.run} is running and will be cancelled (on_change: cancel)" in review_text(
        found
    )


def test_rerun_on_tells_whose_code_changed(repo: Repo) -> None:
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


def test_a_config_group_that_changes_shows_in_the_specs_that_use_it(repo: Repo) -> None:
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


def test_what_main_has_got_since_the_branch_is_not_a_removal(repo: Repo) -> None:
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
    for said in (
        "experiments/alone.yaml:6:",
        "experiments/twin.yaml:2:18",
        "experiments/x3.yaml:2:18",
        "nobody",
    ):
        assert said in text
    assert "**❌ 4 mistakes.**" in text
    assert "removed" not in text  # what cannot be read is not what is gone


def test_exit_codes_and_json(repo: Repo) -> None:
    assert mtf_json(repo.path, "plan", "--base", "main", "--format", "json")["specs"] == []
    repo.commit({"experiments/x1.yaml": SINGLE.replace("alone", "x1").replace("1e-3", "1e-2")})
    done = mtf(repo.path, "plan", "--base", "main", "--detailed-exitcode", code=2)
    assert done.stdout.splitlines()[-1].endswith(": 1 changed run, at most 0.08333 CPU-h.")


RULES = "executor: local\npolicies: {{max_runs: {0}, pull_request: {{max_cpu_hours: 10}}}}\n"


class TestPolicies:
    """Those that hold after the merge; a change of them is shown."""

    @pytest.fixture
    def ruled(self, repo: Repo) -> Repo:
        repo.git("checkout", "-q", "main")
        repo.commit({"mtf.yaml": RULES.format(4)})
        repo.git("checkout", "-q", "-B", "feature")
        return repo

    def test_what_this_change_breaks_is_refused_and_nothing_else(self, ruled: Repo) -> None:
        ruled.commit({"experiments/search.yaml": GRID.replace("[1, 2]", "[1, 2, 3]")})
        found = review(ruled)
        assert [(p.path, p.line, p.rule) for p in found.problems] == [
            ("experiments/search.yaml", 2, "max_runs")
        ]
        assert found.is_refused
        assert mtf(ruled.path, "plan", "--base", "main", code=1).stdout.count("[max_runs]") == 1

    def test_loosening_them_is_shown_with_what_it_lets_through(self, ruled: Repo) -> None:
        grid = GRID.replace("[1, 2]", "[1, 2, 3]")
        ruled.commit({"experiments/search.yaml": grid, "mtf.yaml": RULES.format(9)})
        found = review(ruled)
        assert not found.is_refused
        assert [(d.key, d.old, d.new) for d in found.policies] == [("max_runs", "4", "9")]
        assert [p.rule for p in found.loosened] == ["max_runs"]

    def test_a_rule_that_the_base_has_got_since_counts(self, ruled: Repo) -> None:
        ruled.commit({"experiments/search.yaml": GRID.replace("[1, 2]", "[1, 3]")})
        ruled.git("checkout", "-q", "main")
        ruled.commit({"mtf.yaml": RULES.format(3)})
        assert [p.rule for p in review(ruled).problems] == ["max_runs"]

    def test_a_pull_request_has_a_budget_for_all_it_adds(self, ruled: Repo) -> None:
        slow = SINGLE.replace("00:05:00", "06:00:00")
        ruled.commit({f"experiments/n{n}.yaml": slow.replace("alone", f"n{n}") for n in (1, 2)})
        assert [rule for rule, _ in review(ruled).over_budget] == ["pull_request.max_cpu_hours"]


def test_only_what_may_differ_is_parsed(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """And yet the same is found as when all is parsed."""
    repo.commit(
        {
            "experiments/base.yaml": BASE.replace("hidden_size: 16", "hidden_size: 32"),
            "experiments/x2.yaml": SINGLE.replace("alone", "renamed"),
            "experiments/from.yaml": SINGLE.replace("alone", "from") + "init_from: x4\n",
        }
    )
    quick = review(repo)
    assert quick.untouched == 4  # alone, x0, x1, x3
    monkeypatch.setattr(comparing, "touched", lambda one, other, _: {*one, *other})
    whole = review(repo)
    assert [s for s in quick.specs if s.name != "x4"] == list(whole.specs)


def test_a_disguised_name_is_not_overlooked() -> None:
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


def test_histories_that_do_not_meet_say_what_to_do(repo: Repo) -> None:
    repo.git("checkout", "-q", "--orphan", "apart")
    repo.commit({"y": "1"})
    with pytest.raises(RepositoryError, match="fetch-depth: 0"):
        review(repo, "apart")
