"""Which remote the clones of a project share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.errors import RepositoryError
from mtf.project.location.remote import shared_remote
from mtf.project.project import open_project
from mtf.spec.schema.settings import parse_settings
from tests.cli.lab import QUICK, runs
from tests.cli.mtf import mtf
from tests.repos import Repo, git, make_remote, make_repo

if TYPE_CHECKING:
    from pathlib import Path

UNSAID, NONE, NAMED = b"branch: main\n", b"remote: null\n", b"remote: lab\n"


@pytest.mark.parametrize(
    ("settings", "remotes", "tracked", "shared"),
    [
        (UNSAID, [], None, None),
        (UNSAID, ["origin"], None, "origin"),
        (UNSAID, ["origin", "lab"], None, "origin"),
        (UNSAID, ["origin", "lab"], "lab", "lab"),
        (UNSAID, ["upstream"], "upstream", "upstream"),
        (UNSAID, ["upstream"], None, "upstream"),
        (UNSAID, ["a", "b"], "b", "b"),
        (UNSAID, ["a.b/c"], "a.b/c", "a.b/c"),
        (UNSAID, ["origin"], ".", "origin"),  # the branch tracks a branch of this clone
        (UNSAID, [], "gone", None),
        (NONE, ["origin"], "origin", None),
        (NAMED, ["origin", "lab"], "origin", "lab"),
    ],
)
def test_the_remote_is_the_settings_or_the_tracked_branchs_or_origin_or_the_only_one(
    settings: bytes, remotes: list[str], tracked: str | None, shared: str | None
) -> None:
    config = {f"remote.{name}.url": "/x" for name in remotes}
    config |= {"branch.main.remote": tracked} if tracked else {}
    assert shared_remote(parse_settings(settings), config) == shared


def test_several_remotes_of_which_none_is_tracked_are_an_error() -> None:
    config = {"remote.a.url": "/x", "remote.b.url": "/y", "branch.other.remote": "a"}
    with pytest.raises(
        RepositoryError, match=r"several remotes \(a, b\).*--set-upstream-to a/main"
    ):
        shared_remote(parse_settings(UNSAID), config)


def test_a_remote_of_the_settings_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(RepositoryError, match=r"'lab' is not a remote .* It has: origin\. "):
        shared_remote(parse_settings(NAMED), {"remote.origin.url": "/x"})


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    one = QUICK.replace("kind: base", "kind: experiment\nexperiment_name: one")
    files = {"mtf.yaml": "executor: local\n", "experiments/one.yaml": one, ".gitignore": "/runs/\n"}
    made = make_repo(tmp_path / "made", files)
    return make_remote(tmp_path / "lab.git", made)


def clone(bare: Path, name: str, *options: str) -> Repo:
    git(bare.parent, "clone", "-q", *options, f"file://{bare}", name)
    return Repo(bare.parent / name)


def test_two_clones_that_call_the_remote_otherwise_submit_a_run_once(bare: Path) -> None:
    ann, bob = (clone(bare, name, "-o", "upstream") for name in ("ann", "bob"))
    assert "1 submitted" in mtf(ann.path, "sync").stderr
    assert "nothing to do, 1 unchanged" in mtf(bob.path, "plan").stdout
    assert "submit" not in mtf(bob.path, "sync").stderr
    assert git(bare, "for-each-ref", "refs/heads/mtf/ledger") != ""


@pytest.mark.parametrize(
    "options", [("--single-branch",), ("--depth", "1"), ("--filter=blob:none",)]
)
def test_a_partial_clone_knows_the_ledger(bare: Path, options: tuple[str, ...]) -> None:
    git(bare, "config", "uploadpack.allowFilter", "true")
    full = clone(bare, "full")
    mtf(full.path, "sync", "--wait")
    partial = clone(bare, "partial", *options)
    assert runs(partial)["one"]["state"] == "completed"
    assert "nothing to do, 1 unchanged" in mtf(partial.path, "plan").stdout
    assert "one" in mtf(partial.path, "show", "one").stdout
    mtf(partial.path, "sync")
    assert open_project(partial.path).ledger().tip == open_project(full.path).ledger().tip


def test_a_clone_from_before_the_first_sync_sees_its_runs(bare: Path) -> None:
    early, other = clone(bare, "early"), clone(bare, "other")
    assert "No runs yet" in mtf(early.path, "status").stderr
    mtf(other.path, "sync")
    git(early.path, "remote", "set-url", "origin", f"file://{bare}.gone")
    said = mtf(early.path, "status", code=1).stderr
    assert said.startswith(
        "error: this clone has no ledger of runs yet, and origin cannot be asked"
    )
    git(early.path, "remote", "set-url", "origin", f"file://{bare}")
    assert "one" in mtf(early.path, "show", "one").stdout
    git(early.path, "remote", "set-url", "origin", f"file://{bare}.gone")
    assert runs(early).keys() == {"one"}  # which needs no remote any more
