"""Trees that git stores but would never check out: nothing is written outside of a checkout."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.ids import CommitId
from mtf.errors import RepositoryError
from mtf.git.repo import GitRepo
from mtf.project.spec_tree import SpecTree
from mtf.reconcile.checkout import materialise
from mtf.spec.yaml.reader import MAX_BYTES
from tests.cli.lab import make_lab, spec, stop_jobs, sync_until
from tests.cli.mtf import mtf
from tests.repos import Repo, make_remote, make_repo

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPEC = "kind: experiment\nexperiment_name: one\nmodel: {type: mlp}\ndata: {dataset_name: digits}\n"
Entry = tuple[str, str, str]  # mode, name, object id


def store(repo: Repo, kind: str, content: bytes) -> str:
    command = ["git", "hash-object", "-t", kind, "-w", "--stdin", "--literally"]
    done = subprocess.run(command, cwd=repo.path, input=content, capture_output=True, check=True)
    return done.stdout.decode().strip()


def tree(repo: Repo, *entries: Entry) -> str:
    raw = (f"{mode} {name}".encode() + b"\0" + bytes.fromhex(oid) for mode, name, oid in entries)
    return store(repo, "tree", b"".join(raw))


def top(repo: Repo, *entries: Entry) -> str:
    """Return the tree of HEAD with more entries, in the order in which they are given."""
    old = subprocess.run(
        ["git", "cat-file", "tree", "HEAD^{tree}"], cwd=repo.path, capture_output=True
    )
    new = tree(repo, *entries)
    raw = subprocess.run(["git", "cat-file", "tree", new], cwd=repo.path, capture_output=True)
    return store(repo, "tree", raw.stdout + old.stdout)


def dotdot(repo: Repo) -> str:
    below = tree(repo, ("100644", "PWNED", store(repo, "blob", b"x")))
    for _ in range(3):
        below = tree(repo, ("40000", "..", below))
    return top(repo, ("40000", "..", below))


def git_folder(repo: Repo) -> str:
    hooks = tree(repo, ("100755", "PWNED", store(repo, "blob", b"x")))
    return top(repo, ("40000", ".GIT", tree(repo, ("40000", "hooks", hooks))))


def slashes(repo: Repo) -> str:
    return top(repo, ("100644", "../../../PWNED", store(repo, "blob", b"x")))


def absolute(repo: Repo) -> str:
    return top(repo, ("100644", f"{repo.path.parent}/PWNED", store(repo, "blob", b"x")))


def through_a_link(repo: Repo) -> str:
    inside = tree(repo, ("100644", "PWNED", store(repo, "blob", b"x")))
    link = store(repo, "blob", str(repo.path.parent).encode())
    return top(repo, ("120000", "a", link), ("40000", "a", inside))


def over_a_link(repo: Repo) -> str:
    link = store(repo, "blob", f"{repo.path.parent}/PWNED".encode())
    return top(repo, ("120000", "a", link), ("100644", "a", store(repo, "blob", b"x")))


def links(repo: Repo) -> str:
    up, two = store(repo, "blob", b".."), store(repo, "blob", b"a0/../..")
    return top(repo, ("120000", "a0", up), ("120000", "a1", two))


def nul(repo: Repo) -> str:
    return top(repo, ("120000", "a0", store(repo, "blob", b"a\0b")))


def padded(repo: Repo) -> str:
    return top(repo, ("0100644", "a0", store(repo, "blob", b"x")))


def odd_mode(repo: Repo) -> str:
    return top(repo, ("60000", "a0", store(repo, "blob", b"x")))


def unsorted(repo: Repo) -> str:
    return top(repo, ("100644", "zz", store(repo, "blob", b"x")))


def empty_folder(repo: Repo) -> str:
    return top(repo, ("40000", "a0", tree(repo)))


def bomb(repo: Repo) -> str:
    below = tree(repo, ("100644", "a0", store(repo, "blob", b"x")))
    for _ in range(10):  # 10 ** 10 files
        below = tree(repo, *(("40000", f"a{i}", below) for i in range(10)))
    return top(repo, ("40000", "a0", below))


def deep(repo: Repo) -> str:
    below = tree(repo, ("100644", "a0", store(repo, "blob", b"x")))
    for _ in range(250):
        below = tree(repo, ("40000", "a0", below))
    return top(repo, ("40000", "a0", below))


def cut_off(repo: Repo) -> str:
    return top(repo, ("40000", "a0", store(repo, "tree", b"100644 a0\0cut")))


def not_a_tree(repo: Repo) -> str:
    return top(repo, ("40000", "a0", store(repo, "blob", b"x")))


KINDS = [
    dotdot,
    git_folder,
    slashes,
    absolute,
    through_a_link,
    over_a_link,
    links,
    nul,
    padded,
    odd_mode,
    unsorted,
    empty_folder,
    bomb,
    deep,
    cut_off,
    not_a_tree,
]


def commit_of(repo: Repo, made: str) -> CommitId:
    return CommitId(repo.git("commit-tree", made, "-p", "HEAD", "-m", "evil"))


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    files = {"mtf.yaml": "executor: local\n", "experiments/one.yaml": SPEC, ".gitignore": "runs/\n"}
    return make_repo(tmp_path / "lab" / "r", files)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_unsafe_tree_is_not_checked_out(
    kind: Callable[[Repo], str], repo: Repo, tmp_path: Path
) -> None:
    commit = commit_of(repo, kind(repo))
    with pytest.raises(RepositoryError) as caught:
        materialise(GitRepo(repo.path), repo.path / "runs", commit)
    assert commit[:8] in str(caught.value) or "not a valid tree" in str(caught.value)
    assert list(tmp_path.rglob("*PWNED")) == []
    assert list((repo.path / "runs").rglob("*")) in ([], [repo.path / "runs/.code"])


def test_every_command_and_the_server_refuse_an_unsafe_tree(repo: Repo, tmp_path: Path) -> None:
    bare = make_remote(tmp_path / "r.git", repo)
    commit = commit_of(repo, dotdot(repo))
    for command in (
        ("plan", "--base", "main", "--rev", commit),
        ("validate", "--rev", commit),
        ("validate", "--range", f"main..{commit}"),
        ("plan", "--rev", commit),
        ("sync", "--rev", commit),
    ):
        done = mtf(repo.path, *command, code=1)
        assert "has a name that no file can have: '..'" in done.stdout + done.stderr, command
        assert "Traceback" not in done.stderr
    mtf(bare, "hooks", "install")
    repo.git("push", "-q", "origin", f"{commit}:main", check=False)
    assert repo.git("ls-remote", "origin", "main").split()[0] != commit
    assert list(tmp_path.rglob("PWNED")) == []


def test_runs_are_recorded_although_the_newest_commit_is_unsafe(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"one.yaml": spec("one"), "two.yaml": spec("two")})
    try:
        mtf(lab.path, "sync", "--only", "one")
        lab.git("update-ref", "refs/heads/main", commit_of(lab, git_folder(lab)))
        lab.git("push", "-q", "origin", "main")
        done = mtf(lab.path, "sync", code=1)
        assert "git's own folder" in done.stdout + done.stderr
        found = sync_until(lab, lambda found: found["one"]["state"] == "completed")
        assert list(found) == ["one"]  # two is not submitted: the commit that asks for it is unsafe
    finally:
        stop_jobs(tmp_path)


def test_a_huge_file_is_an_error_and_is_not_kept_in_memory(repo: Repo) -> None:
    (repo.path / "experiments/huge.yaml").write_bytes(b"# x\n" * (3 << 20))
    (repo.path / "experiments/data.bin").write_bytes(bytes(9 << 20))
    commit = repo.commit({})
    tree = SpecTree.at(GitRepo(repo.path), CommitId(commit))
    assert {path: len(raw) for path, raw in tree.texts.items() if len(raw) > 1000} == {
        "experiments/huge.yaml": MAX_BYTES + 1,
        "experiments/data.bin": MAX_BYTES + 1,
    }
    (problem,) = tree.load_all().problems
    assert str(problem).startswith("experiments/huge.yaml:1:1: the file has more than 1,048,576")
    assert [desired.name for desired in tree.load_all().desired] == ["one"]
    on_disk = SpecTree.on_disk(repo.path)
    assert on_disk.load_all().problems == (problem,)
