"""Checking a change finds the problems of everything that the change affects."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtf.commands.validate import Checked, SlurmQuery, changed, new_in, revision, staged
from mtf.core.vocabulary.ids import CommitId
from mtf.git.repo import GitRepo
from tests.cli.specs import BASE, GRID, SINGLE
from tests.repos import Repo, make_repo

pytest.importorskip("hydra")  # for config groups


def named(name: str, more: str = "") -> str:
    return SINGLE.replace("alone", name) + more


GROUPED = named("grouped").replace(
    "optimizer: {type: adamw, lr: 1e-3}\n", "defaults: [{optimizer: quick}, _self_]\n"
)
CLEAN = {
    "mtf.yaml": "executor: local\n",
    "conf/optimizer/quick.yaml": "type: sgd\nlr: 0.25\n",
    "experiments/alone.yaml": SINGLE,
    "experiments/base.yaml": BASE,
    "experiments/search.yaml": GRID,
    "experiments/deep/second.yaml": GRID.replace("search", "second").replace("base.", "../base."),
    "experiments/grouped.yaml": GROUPED,
    "experiments/tuned.yaml": named("tuned", "init_from: alone\n"),
    "experiments/later.yaml": named("later", "init_from: tuned\n"),
    "experiments/other.yaml": named("other"),
}
EDITS: dict[str, tuple[str, str | None]] = {
    "a wrong value": ("experiments/alone.yaml", SINGLE.replace("1e-3", "fast")),
    "a wrong key": ("experiments/other.yaml", named("other", "trainign: {}\n")),
    "no YAML": ("experiments/other.yaml", "kind: [\n"),
    "another name": ("experiments/alone.yaml", named("renamed")),
    "a spec deleted": ("experiments/alone.yaml", None),
    "a name taken": ("experiments/new.yaml", named("other")),
    "a name in other case": ("experiments/new.yaml", named("Other")),
    "a base with a mistake": ("experiments/base.yaml", BASE.replace("mlp", "mpl: x")),
    "a base deleted": ("experiments/base.yaml", None),
    "a group with a mistake": ("conf/optimizer/quick.yaml", "type: sgd\nlr: fast\n"),
    "a group deleted": ("conf/optimizer/quick.yaml", None),
    "a policy": ("mtf.yaml", "executor: local\npolicies: {max_runs: 2}\n"),
    "a wrong setting": ("mtf.yaml", "brunch: main\n"),
    "a circle": ("experiments/alone.yaml", named("alone", "init_from: later\n")),
    "an unknown run": ("experiments/other.yaml", named("other", "init_from: alnoe\n")),
    "a warning": ("experiments/other.yaml", named("other").replace("workers: 0", "workers: 9")),
    "a comment": ("experiments/search.yaml", f"# words\n{GRID}"),
    "nothing that counts": ("README.md", "words\n"),
}


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Return a repository whose first commit has no problem; each example starts from it."""
    return Repo(tmp_path_factory.mktemp("validate"))


def checks_of(repo: Repo, edits: set[str]) -> dict[str, Checked]:
    """Make these edits and return the results of all ways to check them."""
    if not (repo.path / ".git").exists():
        make_repo(repo.path, CLEAN)
        repo.git("tag", "clean")
    repo.git("reset", "-q", "--hard", "clean")
    for path, text in (EDITS[edit] for edit in sorted(edits)):
        if text is None:
            (repo.path / path).unlink(missing_ok=True)
        else:
            repo.write({path: text})
    repo.git("add", "-A")
    before = staged(repo.path)
    commit = CommitId(repo.commit({}))
    clean = CommitId(repo.git("rev-parse", "clean"))
    return {
        "staged": before,
        "range": changed(repo.path, "clean..HEAD", SlurmQuery.NONE),
        "pushed": new_in(GitRepo(repo.path), [clean], commit),
        "whole": revision(repo.path, "HEAD", SlurmQuery.NONE),
    }


def test_the_commit_to_start_from_has_no_problem(repo: Repo) -> None:
    found = checks_of(repo, set())
    assert found["whole"].problems == ()
    assert found["range"].files == found["staged"].files == 0


# In these the specs that stay as they are have problems too, which are left to `mtf validate`.
PARTLY = {"another name", "a spec deleted", "a name taken", "a name in other case", "a circle"}


@pytest.mark.parametrize("edit", sorted(EDITS.keys() - PARTLY))
def test_an_edit_is_checked_with_every_spec_that_builds_on_it(repo: Repo, edit: str) -> None:
    found = checks_of(repo, {edit})
    for way in ("staged", "range", "pushed"):
        assert found[way].problems == found["whole"].problems, way
    harmless = {"a comment", "nothing that counts"}
    assert bool(found["whole"].problems) == (edit not in harmless)


# Without valid settings at HEAD the ledger cannot be opened, so init_from is not checked.
TOGETHER = sorted(EDITS.keys() - {"a wrong setting"})


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.sets(st.sampled_from(TOGETHER), min_size=1, max_size=4))
def test_every_problem_in_an_edited_file_is_found_and_none_is_made_up(
    repo: Repo, edits: set[str]
) -> None:
    found = checks_of(repo, edits)
    paths = {path for path, _ in (EDITS[edit] for edit in edits)}
    whole = set(found["whole"].problems)
    for way in ("staged", "range", "pushed"):
        problems = set(found[way].problems)
        assert problems <= whole, way
        assert {p for p in whole if p.path in paths} <= problems, way
        assert problems == set(found["staged"].problems), way
