"""Partial clones (``--filter=blob:none``): what a commit needs is fetched in one request.

Otherwise git fetches each object when it is read, by a request of its own.
Source: git's Documentation/technical/partial-clone.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo


def prefetch(repo: GitRepo, commit: CommitId) -> None:
    """Fetch the files of a commit that a partial clone lacks; other clones lack none.

    If that fails, git tries again for each object that is read.
    """
    with suppress(OSError):
        if "promisor" not in (repo.common_dir / "config").read_text(errors="replace"):
            return
    walk = ("rev-list", "--objects", "--missing=print", "--no-walk", commit)
    found = repo.processes.attempt(*walk)[1].decode(errors="replace").splitlines()
    missing = [line[1:] for line in found if line.startswith("?")]
    promisors = repo.processes.attempt("config", "--get-regexp", r"^remote\..*\.promisor$")[1]
    names = promisors.decode(errors="replace").split()[:1]
    if missing and names:
        remote = names[0].removeprefix("remote.").removesuffix(".promisor")
        options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--recurse-submodules=no")
        command = ("-c", "fetch.negotiationAlgorithm=noop", "fetch", *options, "--filter=blob:none")
        repo.processes.attempt(*command, "--stdin", remote, stdin="\n".join(missing).encode())
