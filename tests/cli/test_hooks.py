"""The git hooks as git runs them: at a commit, at a push, and on a server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mtf.commands.hooks.install import install, uninstall
from mtf.core.vocabulary.ids import CommitId
from mtf.git.repo import GitRepo
from mtf.ledger.store import Change, LedgerStore
from tests.cli.mtf import mtf
from tests.cli.specs import BASE, GRID, SINGLE
from tests.core.planner.worlds import experiment, record
from tests.repos import Repo, make_remote, make_repo

if TYPE_CHECKING:
    from pathlib import Path

BROKEN = SINGLE.replace("max_epochs: 1", "max_epoch: 1")
ALONE = "experiments/alone.yaml"


def named(name: str, text: str = SINGLE) -> str:
    return text.replace("alone", name)


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    made = make_repo(tmp_path / "r", {"mtf.yaml": "", ALONE: SINGLE, "sub/note": ""})
    install(GitRepo(made.path))
    return made


@pytest.fixture
def server(repo: Repo, tmp_path: Path) -> Path:
    """Return an origin of ``repo`` with the server's hook; the client hooks are removed."""
    bare = make_remote(tmp_path / "origin.git", repo)
    uninstall(GitRepo(repo.path))
    install(GitRepo(bare))
    return bare


def run(folder: Path, *args: str, **env: str) -> tuple[int, str]:
    """Run git; return its exit code and what it and its hooks printed."""
    done = subprocess.run(
        ["git", *args], cwd=folder, env={**os.environ, **env}, capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


# -- pre-commit ------------------------------------------------------------------------------------


def test_every_kind_of_commit_is_checked_by_what_it_stages(repo: Repo) -> None:
    """Each of these commits has an index of its own, and git starts in another folder."""
    repo.write({ALONE: BROKEN, "experiments/good.yaml": named("good")})
    repo.git("add", "experiments/good.yaml")
    sub = repo.path / "sub"
    refused = [
        run(repo.path, "commit", "-qam", "all"),
        run(repo.path, "commit", "-qm", "a part", ALONE),
        run(sub, "commit", "-qm", "from a folder", "../" + ALONE),
        run(repo.path, "-C", "sub", "commit", "-qam", "-C"),
        run(repo.path, "commit", "-qam", "by variables", GIT_DIR=".git", GIT_WORK_TREE="."),
        run(sub, "commit", "-qam", "of elsewhere", GIT_DIR="../.git", GIT_WORK_TREE=".."),
    ]
    for code, output in refused:
        assert code == 1
        assert f"{ALONE}:5:" in output
    assert run(repo.path, "commit", "-qm", "the good part", "experiments/good.yaml") == (0, "")
    repo.git("add", "-A")
    repo.write({ALONE: SINGLE})
    code, output = run(sub, "commit", "-qm", "staged is broken, on disk it is not")
    assert (code, f"{ALONE}:5:" in output) == (1, True)


def test_specs_that_build_on_a_changed_file_are_checked_too(repo: Repo) -> None:
    repo.commit(
        {
            "experiments/base.yaml": BASE,
            "experiments/deep/search.yaml": GRID.replace("base.yaml", "../base.yaml"),
        }
    )
    repo.write({"experiments/base.yaml": BASE.replace("adamw", "sgd")})
    grid = "experiments/deep/search.yaml"
    repo.write({grid: (repo.path / grid).read_text().replace("training.seed", "training.sed")})
    repo.git("commit", "-qnm", "a mistake that no hook has checked", grid)
    code, output = run(repo.path, "commit", "-qam", "the base alone")
    assert code == 1
    assert f"{grid}:4:" in output
    repo.git("checkout", "-q", "HEAD~1", "--", grid)
    assert run(repo.path, "commit", "-qam", "both")[0] == 0
    repo.git("rm", "-q", "experiments/base.yaml")
    code, output = run(repo.path, "commit", "-qm", "no base")
    assert code == 1
    assert "the file experiments/base.yaml does not exist" in output


def test_specs_that_use_a_changed_config_group_are_checked_too(repo: Repo) -> None:
    pytest.importorskip("hydra")
    composed = "defaults: [{model: small}, _self_]\n" + re.sub(r"model: .*\n", "", SINGLE)
    repo.commit({"conf/model/small.yaml": "type: mlp\nhidden_size: 16\n", ALONE: composed})
    repo.write({"conf/model/small.yaml": "type: mlp\nhidden_size: none\n"})
    code, output = run(repo.path, "commit", "-qam", "the group alone")
    assert (code, "conf/model/small.yaml:2:" in output) == (1, True), output


def test_a_name_that_an_untouched_spec_has_is_refused(repo: Repo) -> None:
    repo.write({"experiments/second.yaml": SINGLE})
    repo.git("add", "-A")
    code, output = run(repo.path, "commit", "-qm", "twice")
    assert (code, output.count("the name 'alone' is also used")) == (1, 1)


def test_a_change_of_the_settings_checks_every_spec(repo: Repo) -> None:
    repo.write({ALONE: BROKEN})
    repo.git("commit", "-qanm", "a mistake that no hook has checked")
    repo.write({"mtf.yaml": "slurm: {partition: low}\n"})
    code, output = run(repo.path, "commit", "-qam", "settings")
    assert (code, f"{ALONE}:5:" in output) == (1, True)


def test_the_hooks_work_in_linked_work_trees_and_submodules(repo: Repo, tmp_path: Path) -> None:
    repo.git("worktree", "add", "-q", "-b", "feature", str(tmp_path / "linked"))
    outer = make_repo(tmp_path / "outer", {"mtf.yaml": ""})
    allowed = ("-c", "protocol.file.allow=always")
    outer.git(*allowed, "submodule", "add", "-q", str(repo.path), "inner")
    inner = outer.path / "inner"
    install(GitRepo(inner))
    for folder in (tmp_path / "linked", inner):
        (folder / ALONE).write_text(BROKEN)
        assert run(folder, "commit", "-qam", "x")[0] == 1
        (folder / ALONE).write_text(SINGLE.replace("1e-3", "3e-3"))
        assert run(folder, "commit", "-qam", "x") == (0, "")
    outer.git("add", "-A")
    assert run(outer.path, "commit", "-qm", "outer")[0] == 0


def test_a_commit_without_specs_does_not_import_the_schema(repo: Repo) -> None:
    repo.write({"notes.txt": "x"})
    repo.git("add", "-A")
    code = """
import sys
sys.argv = ["mtf", "hooks", "run", "pre-commit"]
from mtf.cli.main import cli
cli.main(standalone_mode=False)
assert not {"pydantic", "ruamel.yaml"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=repo.path, check=True)


# -- installing ------------------------------------------------------------------------------------


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_existing_hooks_keep_running_and_are_restored_by_uninstall(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "r", {ALONE: SINGLE})
    make_remote(tmp_path / "origin.git", repo)
    hooks = repo.path / ".git/hooks"
    script(hooks / "pre-commit", "echo theirs ran >&2")
    script(hooks / "pre-push", 'echo "$1 got: $(cat)" >&2')
    mtf(repo.path, "hooks", "install")
    mtf(repo.path, "hooks", "install")
    repo.write({ALONE: BROKEN})
    code, output = run(repo.path, "commit", "-qam", "x")
    assert (code, "theirs ran" in output, f"{ALONE}:5:" in output) == (1, True, True)
    repo.git("commit", "-qanm", "x")
    code, output = run(repo.path, "push", "-q", "origin", "main")
    assert (code, f"{ALONE}:5:" in output) == (1, True)
    assert "origin got: refs/heads/main" in output
    mtf(repo.path, "hooks", "uninstall")
    assert "theirs ran" in (hooks / "pre-commit").read_text()
    assert run(repo.path, "push", "-q", "origin", "main")[0] == 0


def test_a_foreign_hook_is_never_overwritten(repo: Repo) -> None:
    hook = repo.path / ".git/hooks/pre-commit"
    script(hook.with_name("pre-commit.legacy"), "echo one")
    script(hook, "echo two")
    assert "both exist. Merge them" in mtf(repo.path, "hooks", "install", code=1).stderr
    assert "two" in hook.read_text()


def test_core_hookspath_is_followed_only_inside_the_repository(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "r", {ALONE: SINGLE, "sub/note": ""})
    repo.git("config", "core.hooksPath", ".githooks")
    mtf(repo.path / "sub", "hooks", "install")
    hook = repo.path / ".githooks/pre-commit"
    assert str(tmp_path) not in hook.read_text(), "it may be committed"
    repo.write({ALONE: BROKEN})
    assert run(repo.path, "commit", "-qam", "x")[0] == 1
    mtf(repo.path, "hooks", "uninstall")
    assert not hook.exists()
    for elsewhere in (str(tmp_path / "shared"), ".husky/_"):
        repo.git("config", "core.hooksPath", elsewhere)
        output = mtf(repo.path, "hooks", "install", code=1).stderr
        assert 'mtf hooks run pre-push "$@"' in output
        assert not (repo.path / elsewhere).exists()


# -- pre-push --------------------------------------------------------------------------------------


@pytest.fixture
def clone(repo: Repo, tmp_path: Path) -> Repo:
    """Return the repository with its hooks and an origin without any."""
    make_remote(tmp_path / "origin.git", repo)
    return repo


def test_the_commits_that_the_remote_lacks_are_checked_in_every_pushed_ref(clone: Repo) -> None:
    clone.write({"experiments/old.yaml": named("old", BROKEN)})
    clone.git("add", "-A")
    clone.git("commit", "-qnm", "broken, and there already")
    old = clone.git("rev-parse", "HEAD")
    clone.git("push", "-q", "--no-verify", "origin", "main", f"{old}:refs/heads/other")
    clone.commit({"experiments/new.yaml": named("new")})
    assert run(clone.path, "push", "origin", "main")[0] == 0, "what it brings is fine"
    clone.git("branch", "good")
    clone.git("checkout", "-qb", "bad")
    clone.write({ALONE: BROKEN})
    clone.git("commit", "-qanm", "broken")
    for refs in (["good", "bad"], ["bad:elsewhere"], ["good", "HEAD:refs/tags/v1"], ["+bad:other"]):
        code, output = run(clone.path, "push", "origin", *refs)
        assert (code, output.count(f"{ALONE}:5:")) == (1, 1)
        assert "old.yaml" not in output
    clone.write({ALONE: SINGLE.replace("1e-3", "5e-3")})
    clone.git("commit", "-qam", "fixed")
    assert run(clone.path, "push", "origin", "good", "bad", "HEAD:refs/tags/v1")[0] == 0
    assert run(clone.path, "push", "origin", ":bad", "+good~1:other")[0] == 0


def test_a_push_to_the_tracked_branch_prints_its_plan_and_cost(clone: Repo) -> None:
    clone.commit({"experiments/base.yaml": BASE, "experiments/search.yaml": GRID})
    _, output = run(clone.path, "push", "origin", "main")
    assert "mtf: main: 4 new runs, at most 0.3333 CPU-h" in output
    assert "new run" not in run(clone.path, "push", "origin", "main:feature")[1]


def test_job_branches_and_the_ledger_are_pushed_unchecked(clone: Repo) -> None:
    clone.write({ALONE: BROKEN})
    clone.git("commit", "-qanm", "broken")
    refs = ["HEAD:refs/heads/slurm-job/a/b/c", "HEAD:refs/heads/mtf/ledger"]
    assert run(clone.path, "push", "origin", *refs, "HEAD:refs/heads/mtf/other")[0] == 1
    assert run(clone.path, "push", "origin", *refs)[0] == 0


def test_a_push_under_the_pre_commit_framework_is_checked(clone: Repo) -> None:
    """Version 4.7 passes the push in variables, with an old commit or without a known one."""
    old = clone.git("rev-parse", "HEAD")
    clone.write({ALONE: BROKEN})
    clone.git("commit", "-qanm", "broken")
    variables = {
        "PRE_COMMIT_REMOTE_NAME": "origin",
        "PRE_COMMIT_REMOTE_BRANCH": "refs/heads/f",
        "PRE_COMMIT_LOCAL_BRANCH": "refs/heads/main",
    }
    for span in ({}, {"PRE_COMMIT_FROM_REF": old, "PRE_COMMIT_TO_REF": "HEAD"}):
        done = subprocess.run(
            [sys.executable, "-m", "mtf.cli", "hooks", "run", "pre-push"],
            cwd=clone.path,
            env={**os.environ, **variables, **span},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, f"{ALONE}:5:" in done.stderr) == (1, True), done.stderr


# -- pre-receive -----------------------------------------------------------------------------------


def test_a_server_refuses_broken_specs_on_the_tracked_branch_only(repo: Repo, server: Path) -> None:
    repo.commit({ALONE: BROKEN})
    code, output = run(repo.path, "push", "origin", "main:main", "main:feature", "--atomic")
    assert (code, f"refs/heads/main: {ALONE}:5:" in output) == (1, True)
    repo.commit({"mtf.yaml": "branch: other\n"})
    assert run(repo.path, "push", "origin", "main")[0] == 1, "its own settings count too"
    assert run(repo.path, "push", "origin", "main:feature")[0] == 0
    repo.commit({"mtf.yaml": "", ALONE: SINGLE.replace("1e-3", "2e-3")})
    assert run(repo.path, "push", "origin", "main")[0] == 0
    assert run(server, "fsck", "--strict")[0] == 0


def test_a_server_refuses_to_lose_job_branches_or_the_ledger(repo: Repo, server: Path) -> None:
    pin = CommitId(repo.git("rev-parse", "HEAD"))
    store = LedgerStore(GitRepo(repo.path), "origin")
    store.fetch("main")
    run_id = f"alone/20260101T000000Z/{pin[:8]}"
    one = record(experiment(), run_id, commit=pin)
    branch = f"refs/heads/slurm-job/{run_id}"
    ledger = store.append(store.read(), Change(runs=(one,), branches={branch: pin}), "one")
    store.append(ledger, Change(runs=(replace(one, epoch=1),)), "more")
    tip = repo.git("rev-parse", "mtf/ledger")
    emptied = repo.git("commit-tree", "-m", "x", "-p", tip, "HEAD^{tree}")
    wrong = {
        f":{branch}": "is never deleted",
        f"+{repo.commit({}, 'next')}:{branch}": "is never moved",
        f"HEAD:refs/heads/slurm-job/alone/20260101T000001Z/{pin[:8]}": "named after its commit",
        ":mtf/ledger": "must not be deleted",
        "+mtf/ledger~1:mtf/ledger": "only grows",
        f"{emptied}:refs/heads/mtf/ledger": "is missing (1 in all)",
    }
    for refs, why in wrong.items():
        code, output = run(repo.path, "push", "origin", refs)
        assert (code, why in output) == (1, True), output
    assert run(server, "rev-parse", "mtf/ledger", branch)[1].split() == [tip, pin]
