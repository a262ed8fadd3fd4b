"""Checkouts with the code of submodules and the contents of Git LFS, on real repositories."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest

from mtf import rundir
from mtf.core.vocabulary.ids import CommitId
from mtf.errors import RepositoryError
from mtf.git.repo import GitRepo
from mtf.git.trees import RefusedTreeError
from mtf.reconcile.checkout import alteration, materialise
from mtf.reconcile.pinned_code.collect import IncompleteCodeError, remarks_on, whole_code
from mtf.spec.schema.run_config import RunInfo
from mtf.trainer.job.code_proof import RefusedError, prove_checkout
from tests.repos import Repo, git, make_repo

ALLOWED = ("-c", "protocol.file.allow=always")
CONTENT = b"a large file\n" * 10
POINTER = (
    "version https://git-lfs.github.com/spec/v1\n"
    f"oid sha256:{sha256(CONTENT).hexdigest()}\nsize {len(CONTENT)}\n"
)
needs_git_lfs = pytest.mark.skipif(
    shutil.which("git-lfs") is None, reason="git-lfs is not installed: apt-get install git-lfs"
)


def head(repo: Repo) -> CommitId:
    return CommitId(repo.git("rev-parse", "HEAD"))


def add_submodule(repo: Repo, inner: Repo | str, path: str) -> None:
    url = inner if isinstance(inner, str) else str(inner.path)
    repo.git(*ALLOWED, "submodule", "--quiet", "add", url, path)
    repo.git("commit", "-qm", f"add {path}")


def checkout(repo: Repo, remote: str | None = None) -> Path:
    return materialise(GitRepo(repo.path), repo.path / "runs", head(repo), remote)


def clone(repo: Repo, name: str, *options: str) -> Repo:
    git(repo.path.parent, *ALLOWED, "clone", "-q", *options, str(repo.path), name)
    return Repo(repo.path.parent / name)


def proved(repo: Repo) -> frozenset[str]:
    """Return the files that a job proves before it trains."""
    root, commit = repo.path / "runs", head(repo)
    info = {
        **dict.fromkeys(("run", "submission", "experiment", "key"), "x"),
        "grid": None,
        "commit": commit,
        "code_dir": str(rundir.code_dir(root, commit)),
        "manifest": str(rundir.code_manifest(root, commit)),
        "repository": "/live",
    }
    return prove_checkout(RunInfo.model_validate(info)).files


@pytest.fixture
def nested(tmp_path: Path) -> Repo:
    """Return a repository with the submodule ``third``, which has the submodule ``deep/er``."""
    deepest = make_repo(tmp_path / "deepest", {"d.py": "D = 1\n"})
    inner = make_repo(tmp_path / "inner", {"nets/__init__.py": "N = 1\n"})
    add_submodule(inner, deepest, "deep/er")
    outer = make_repo(tmp_path / "outer", {"train.py": "T = 1\n", ".gitignore": "/runs/\n"})
    add_submodule(outer, inner, "third")
    outer.git(*ALLOWED, "submodule", "--quiet", "update", "--init", "--recursive")
    return outer


NESTED = {
    ".gitignore",
    ".gitmodules",
    "train.py",
    "third/.gitmodules",
    "third/nets/__init__.py",
    "third/deep/er/d.py",
}


class TestSubmodules:
    def test_nested_ones_are_checked_out_from_what_the_clone_has(self, nested: Repo) -> None:
        (nested.path / "third/nets/__init__.py").write_text("dirty")
        code = checkout(nested)
        assert (code / "third/nets/__init__.py").read_text() == "N = 1\n"
        assert (code / "third/nets").stat().st_mode & 0o222 == 0
        assert alteration(code, rundir.code_manifest(code.parents[1], head(nested))) is None
        assert proved(nested) == NESTED

    def test_the_work_trees_of_submodules_play_no_part(self, nested: Repo) -> None:
        nested.git("submodule", "--quiet", "deinit", "--all", "--force")
        shutil.rmtree(nested.path / "third")
        assert (checkout(nested) / "third/deep/er/d.py").read_text() == "D = 1\n"

    def test_a_changed_file_of_a_submodule_is_noticed(self, nested: Repo) -> None:
        code = checkout(nested)
        file = code / "third/deep/er/d.py"
        file.chmod(0o644)
        file.write_text("D = 2\n")
        manifest = rundir.code_manifest(code.parents[1], head(nested))
        assert alteration(code, manifest) == "third/deep/er/d.py"
        with pytest.raises(RefusedError, match=r"third/deep/er/d\.py has other content"):
            proved(nested)

    def test_a_manifest_of_another_commit_of_the_submodule_proves_nothing(
        self, nested: Repo
    ) -> None:
        code = checkout(nested)
        manifest = rundir.code_manifest(code.parents[1], head(nested))
        value = json.loads(manifest.read_text())
        value["submodules"]["third"] = value["submodules"]["third"]["submodules"]["deep/er"]
        manifest.write_text(json.dumps(value))
        with pytest.raises(RefusedError, match="the submodule third is not that of commit"):
            proved(nested)

    def test_missing_ones_are_fetched_without_touching_the_work_tree(
        self, nested: Repo, tmp_path: Path
    ) -> None:
        git(tmp_path, "config", "--global", "protocol.file.allow", "always")
        plain = clone(nested, "plain")
        assert (checkout(plain, "origin") / "third/deep/er/d.py").read_text() == "D = 1\n"
        assert list((plain.path / "third").iterdir()) == []
        assert plain.git("submodule", "status").startswith("-")  # as before: not initialised
        assert proved(plain) == NESTED

    def test_a_newer_commit_is_fetched_into_what_the_clone_has(
        self, nested: Repo, tmp_path: Path
    ) -> None:
        git(tmp_path, "config", "--global", "protocol.file.allow", "always")
        behind = clone(nested, "behind", "--recurse-submodules")
        make_repo(tmp_path / "inner").commit({"new.py": "1"})
        nested.git(*ALLOWED, "-C", "third", "pull", "-q")
        nested.git("commit", "-qam", "newer")
        behind.git("pull", "-q", "--no-recurse-submodules")
        assert (checkout(behind, "origin") / "third/new.py").read_text() == "1"
        assert not (behind.path / "third/new.py").exists()

    def test_a_relative_url_starts_from_the_remote(self, nested: Repo, tmp_path: Path) -> None:
        git(tmp_path, "config", "--global", "protocol.file.allow", "always")
        nested.git("config", "--file", ".gitmodules", "submodule.third.url", "../inner")
        nested.git("commit", "-qam", "relative")
        plain = clone(nested, "plain", "-o", "upstream")
        assert (checkout(plain, "upstream") / "third/nets/__init__.py").exists()

    def test_all_that_cannot_be_fetched_are_named_with_the_cure(
        self, nested: Repo, tmp_path: Path
    ) -> None:
        add_submodule(nested, make_repo(tmp_path / "fourth", {"x": ""}), "libs/fourth")
        plain = clone(nested, "plain")  # git refuses files as transport for submodules
        with pytest.raises(IncompleteCodeError) as refused:
            checkout(plain, "origin")
        told = str(refused.value)
        assert told.startswith(f"the code of commit {head(plain)[:8]} is not whole:\n")
        for path in ("libs/fourth", "third"):
            assert f"  {path}: a submodule, and this clone lacks its commit" in told
            assert f"Run git submodule update --init --recursive -- {path}; " in told
        assert "transport 'file' not allowed" in told
        assert not (plain.path / "runs/.code").exists() or not [*plain.path.glob("runs/.code/*")]

    def test_one_that_the_clone_does_not_want_is_left_out(self, nested: Repo) -> None:
        plain = clone(nested, "plain")
        plain.git("config", "submodule.third.update", "none")
        assert list((checkout(plain) / "third").iterdir()) == []
        assert proved(plain) == {".gitignore", ".gitmodules", "train.py"}

    def test_a_repository_that_gitmodules_does_not_name_is_empty_as_for_git(
        self, tmp_path: Path
    ) -> None:
        repo = make_repo(tmp_path / "r", {"a": "", ".gitignore": "/runs/\n"})
        pin = make_repo(repo.path / "inner", {"x.py": "1"}).git("rev-parse", "HEAD")
        repo.git("update-index", "--add", "--cacheinfo", f"160000,{pin},inner")
        repo.git("commit", "-qm", "embedded")
        assert (checkout(repo) / "inner/x.py").read_text() == "1"
        assert list((checkout(clone(repo, "other")) / "inner").iterdir()) == []

    def test_linked_work_trees_have_submodules_of_their_own(self, nested: Repo) -> None:
        nested.git("submodule", "--quiet", "deinit", "--all", "--force")
        shutil.rmtree(nested.path / ".git/modules")
        nested.git("worktree", "add", "-q", "--detach", "../linked")
        linked = Repo(nested.path.parent / "linked")
        linked.git(*ALLOWED, "submodule", "--quiet", "update", "--init", "--recursive")
        assert (checkout(linked) / "third/deep/er/d.py").exists()

    @pytest.mark.parametrize("name", ["../../../elsewhere", "/elsewhere", "a/../../b"])
    def test_a_name_that_leads_out_of_the_clone_is_never_followed(
        self, nested: Repo, name: str, tmp_path: Path
    ) -> None:
        shutil.copytree(nested.path / ".git/modules/third", tmp_path / "elsewhere")
        plain = clone(nested, "plain")
        text = f'[submodule "{name}"]\n\tpath = third\n\turl = -u/evil\n'
        plain.write({".gitmodules": text})
        plain.git("commit", "-qam", "evil")
        with pytest.raises(IncompleteCodeError, match="third: a submodule"):
            checkout(plain, "origin")

    def test_links_into_a_submodule_are_followed_to_their_end(
        self, nested: Repo, tmp_path: Path
    ) -> None:
        (nested.path / "nets").symlink_to("third/nets")
        nested.commit({})
        assert (checkout(nested) / "nets/__init__.py").read_text() == "N = 1\n"
        inner = Repo(nested.path / "third")
        (inner.path / "here").symlink_to(".")  # so that here/.. is the top, and not third
        inner.commit({})
        nested.git("commit", "-qam", "here")
        assert (checkout(nested) / "third/here/nets/__init__.py").read_text() == "N = 1\n"
        (nested.path / "out").symlink_to("third/here/../../secret")
        nested.commit({})
        with pytest.raises(RefusedTreeError, match="leads out of the repository"):
            checkout(nested)


class TestLfs:
    @pytest.fixture
    def repo(self, tmp_path: Path) -> Repo:
        files = {
            "lab/vocab.bin": POINTER,
            "plain.bin": "committed before LFS\n",
            "other.txt": POINTER,  # without LFS's filter
            ".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n",
            ".gitignore": "/runs/\n",
        }
        return make_repo(tmp_path / "r", files)

    def store(self, repo: Repo, content: bytes) -> Path:
        oid = sha256(CONTENT).hexdigest()
        place = repo.path / ".git/lfs/objects" / oid[:2] / oid[2:4] / oid
        place.parent.mkdir(parents=True)
        place.write_bytes(content)
        return place

    def test_files_have_the_content_that_the_clone_has(self, repo: Repo) -> None:
        self.store(repo, CONTENT)
        code = checkout(repo)
        assert (code / "lab/vocab.bin").read_bytes() == CONTENT
        assert (code / "plain.bin").read_text() == "committed before LFS\n"
        assert (code / "other.txt").read_text() == POINTER
        assert "lab/vocab.bin" in proved(repo)
        (code / "lab/vocab.bin").chmod(0o644)
        (code / "lab/vocab.bin").write_bytes(CONTENT.upper())
        with pytest.raises(RefusedError, match=r"vocab\.bin has other content"):
            proved(repo)

    def test_a_missing_content_is_named_with_the_cure(
        self, repo: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        only_git = tmp_path / "bin"
        only_git.mkdir()
        git_program = shutil.which("git")
        assert git_program is not None
        (only_git / "git").symlink_to(git_program)
        monkeypatch.setenv("PATH", str(only_git))
        monkeypatch.setenv("GIT_EXEC_PATH", without_lfs(tmp_path / "core", git_program))
        with pytest.raises(IncompleteCodeError) as refused:
            checkout(repo)
        told = str(refused.value)
        assert "  lab/vocab.bin: in Git LFS, and this clone lacks the content" in told
        assert "Install git-lfs, then run git lfs fetch origin" in told

    def test_a_damaged_content_is_refused(self, repo: Repo) -> None:
        place = self.store(repo, CONTENT.upper())
        with pytest.raises(IncompleteCodeError, match=rf"damaged: {place}"):
            checkout(repo)

    @needs_git_lfs
    def test_a_missing_content_is_fetched_by_git_lfs(self, repo: Repo) -> None:
        self.store(repo, CONTENT)
        other = clone(repo, "other")
        assert (other.path / "lab/vocab.bin").read_text() == POINTER
        assert (checkout(other, "origin") / "lab/vocab.bin").read_bytes() == CONTENT
        assert other.git("status", "--porcelain") == ""

    @needs_git_lfs
    def test_what_the_clone_leaves_out_stays_a_pointer_and_is_said(self, repo: Repo) -> None:
        self.store(repo, CONTENT)
        repo.git("rm", "-q", "other.txt")  # git-lfs would fetch its content, which is the same
        repo.commit({})
        other = clone(repo, "other")
        other.git("config", "lfs.fetchexclude", "lab/*")
        assert (checkout(other, "origin") / "lab/vocab.bin").read_text() == POINTER
        (remark,) = remarks_on(whole_code(GitRepo(other.path), head(other), "origin"))
        assert remark == "lab/vocab.bin: jobs get the pointers of Git LFS, as lfs.fetchexclude says"
        other.git("config", "lfs.fetchexclude", "data")
        assert "lab/vocab.bin" in proved_anew(other)

    def test_files_in_lfs_of_a_submodule_have_their_content(
        self, repo: Repo, tmp_path: Path
    ) -> None:
        outer = make_repo(tmp_path / "outer", {".gitignore": "/runs/\n"})
        add_submodule(outer, repo, "data")
        place = self.store(repo, CONTENT)
        shutil.copytree(
            place.parents[4] / "lfs", outer.path / ".git/modules/data/lfs", dirs_exist_ok=True
        )
        assert (checkout(outer) / "data/lab/vocab.bin").read_bytes() == CONTENT
        assert "data/lab/vocab.bin" in proved(outer)


def proved_anew(repo: Repo) -> frozenset[str]:
    code = rundir.code_dir(repo.path / "runs", head(repo))
    for folder in [code, *code.rglob("*")]:
        folder.chmod(0o755)
    shutil.rmtree(code)
    assert (checkout(repo, "origin") / "lab/vocab.bin").read_bytes() == CONTENT
    return proved(repo)


def without_lfs(folder: Path, git_program: str) -> str:
    """Return a folder with git's own programs, for a machine without git-lfs."""
    core = Path(git(folder.parent, "--exec-path"))
    folder.mkdir()
    for program in core.iterdir():
        if program.name != "git-lfs":
            (folder / program.name).symlink_to(program)
    return str(folder)


def test_other_filters_are_not_run_and_said(tmp_path: Path) -> None:
    rules = "*.key filter=crypt\n*.ipynb filter=strip\n*.x filter=gone\n"
    files = {
        ".gitattributes": rules,
        "a.key": "stored",
        "b.ipynb": "{}",
        "c.x": "",
        ".gitignore": "/runs/\n",
    }
    repo = make_repo(tmp_path / "r", files)
    repo.git("config", "filter.crypt.smudge", f"touch {tmp_path}/was-run; cat")
    repo.git("config", "filter.strip.smudge", "cat")
    said: list[str] = []
    root = repo.path / "runs"
    code = materialise(GitRepo(repo.path), root, head(repo), say=said.append)
    materialise(GitRepo(repo.path), root, head(repo), say=said.append)  # it is there
    assert (code / "a.key").read_text() == "stored"
    (remark,) = remarks_on(whole_code(GitRepo(repo.path), head(repo), None))
    assert remark.startswith("a.key: jobs get what git stores")
    assert remark.endswith("not crypt")
    assert said == [f"note     {remark}"]
    assert not (tmp_path / "was-run").exists()


def test_an_encoding_of_the_work_tree_is_not_used_and_said(tmp_path: Path) -> None:
    rules = "*.txt working-tree-encoding=UTF-16\n*.md working-tree-encoding=utf-8\n"
    repo = make_repo(tmp_path / "r", {".gitattributes": rules, ".gitignore": "/runs/\n"})
    (repo.path / "a.txt").write_text("voilà", "utf-16")
    repo.commit({"b.md": "voilà"})
    assert (checkout(repo) / "a.txt").read_text("utf-8") == "voilà"
    assert proved(repo)
    assert remarks_on(whole_code(GitRepo(repo.path), head(repo), None)) == [
        "a.txt: jobs get UTF-8, as git stores it, and not UTF-16 (working-tree-encoding)"
    ]


def test_attributes_of_archives_and_line_ends_change_nothing(tmp_path: Path) -> None:
    rules = "secret.py export-ignore\nversion.py export-subst\n*.py text eol=crlf\n*.id ident\n"
    files = {
        ".gitattributes": rules,
        "secret.py": "S = 1\n",
        "version.py": "$Format:%H$\n",
        "x.id": "$Id$\n",
        ".gitignore": "/runs/\n",
    }
    code = checkout(make_repo(tmp_path / "r", files))
    assert {p: (code / p).read_bytes().decode() for p in files} == files


def test_a_partial_clone_fetches_the_files_of_a_commit_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = make_repo(tmp_path / "r", {f"f{n}.py": f"{n}" for n in range(30)})
    repo.git("config", "uploadpack.allowFilter", "true")
    repo.git("config", "uploadpack.allowAnySHA1InWant", "true")
    options = ("--filter=blob:none", "--no-checkout")
    git(tmp_path, "clone", "-q", *options, f"file://{repo.path}", "partial")
    partial = Repo(tmp_path / "partial")
    monkeypatch.setenv("GIT_TRACE", str(tmp_path / "trace"))
    assert (checkout(partial, "origin") / "f7.py").read_text() == "7"
    assert (tmp_path / "trace").read_text().count("built-in: git fetch") == 1


def test_a_commit_that_the_clone_lacks_is_an_error(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "r", {"a": ""})
    with pytest.raises(RepositoryError, match="missing"):
        materialise(GitRepo(repo.path), repo.path / "runs", CommitId("1" * 40))
