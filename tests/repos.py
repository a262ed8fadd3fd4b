"""Git repositories for tests: real ones, made with the git command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def git(folder: Path, *args: str, check: bool = True) -> str:
    """Run git in a folder and return its output."""
    done = subprocess.run(["git", "-C", str(folder), *args], capture_output=True, text=True)
    assert not (check and done.returncode), done.stderr
    return done.stdout.strip()


@dataclass
class Repo:
    """A git repository with a work tree."""

    path: Path

    def git(self, *args: str, check: bool = True) -> str:
        """Run git here and return its output."""
        return git(self.path, *args, check=check)

    def write(self, files: dict[str, str]) -> None:
        """Write files, by their path in the work tree."""
        for name, text in files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(text)

    def commit(self, files: dict[str, str], message: str = "change") -> str:
        """Write files, commit everything, and return the commit."""
        self.write(files)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")


def make_repo(path: Path, files: dict[str, str] | None = None) -> Repo:
    """Return a new repository on the branch main, with a first commit if files are given."""
    path.mkdir(parents=True, exist_ok=True)
    git(path, "init", "-q", "-b", "main")
    repo = Repo(path)
    if files is not None:
        repo.commit(files, "first")
    return repo


def make_remote(path: Path, repo: Repo) -> Path:
    """Return a new bare repository, made the remote origin of ``repo``; push main to it."""
    git(path.parent, "init", "-q", "--bare", "-b", "main", str(path))
    repo.git("remote", "add", "origin", str(path))
    repo.git("push", "-q", "origin", "main")
    return path
