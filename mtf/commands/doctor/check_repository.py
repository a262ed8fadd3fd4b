"""Is git fit, is the repository: what blocks our branches, loses objects, or hides the remote."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mtf.commands.doctor.finding import Checkup, Finding, Theme
from mtf.commands.hooks.install import has_hooks
from mtf.core.vocabulary.ids import JOB_BRANCH_PREFIX, LEDGER_REF
from mtf.errors import RepositoryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_OLDEST_GIT = (2, 30)
# A branch is a file or a folder, never both: these names leave no room for ours.
_BLOCKING = re.compile(
    rf"refs/heads/mtf|{LEDGER_REF}/.*|{JOB_BRANCH_PREFIX.rstrip('/')}(/[^/]+){{0,2}}"
)


def git_version(checkup: Checkup) -> Iterator[Finding]:
    """Find a git that is too old for atomic pushes with leases and ordered pipes."""
    version = checkup.project.repo.version
    found = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if found < _OLDEST_GIT:
        oldest = ".".join(map(str, _OLDEST_GIT))
        yield Finding("error", f"{version} is older than {oldest}", "git", "install a newer git")


def blocking_branches(checkup: Checkup) -> Iterator[Finding]:
    """Find branches whose names leave no room for mtf/ledger and slurm-job/..."""
    repo = checkup.project.repo
    for ref in _blocking(repo.refs("refs/heads/")):
        short = ref.removeprefix("refs/heads/")
        yield Finding(
            "error", f"the branch {short} leaves no room for mtf's own branches",
            ref, f"git branch -m {short} {short.replace('/', '-')}-renamed",
        )  # fmt: skip


def _blocking(refs: Iterable[str]) -> list[str]:
    return [ref for ref in refs if _BLOCKING.fullmatch(ref)]


def remote(checkup: Checkup) -> Iterator[Finding]:
    """Find a remote that does not answer, or has branches in our way."""
    name = checkup.project.remote
    if name is None:
        wanted = checkup.project.settings.remote
        if wanted is not None:
            yield Finding(
                "warning", "there is no remote: the ledger and the job branches are in this clone"
                " alone", f"remote {wanted}", f"git remote add {wanted} URL",
            )  # fmt: skip
        return
    try:
        there = checkup.project.repo.remote_refs(name, ["refs/heads/mtf*", "refs/heads/slurm-job*"])
    except RepositoryError as e:
        yield Finding("error", f"the remote cannot be reached: {e}", name, f"git ls-remote {name}")
        return
    for ref in _blocking(there):
        short = ref.removeprefix("refs/heads/")
        yield Finding(
            "error", f"the branch {short} leaves no room for mtf's own branches",
            f"{name} {ref}", f"git push {name} {there[ref]}:refs/heads/renamed :{ref}",
        )  # fmt: skip


def tracked_branch(checkup: Checkup) -> Iterator[Finding]:
    """Find that the branch to track does not exist."""
    try:
        checkup.project.tracked()
    except RepositoryError as e:
        branch = checkup.project.settings.branch
        yield Finding("error", str(e), branch, f"git branch {branch}, or set `branch:` in mtf.yaml")


def hooks(checkup: Checkup) -> Iterator[Finding]:
    """Find that nothing checks specs when they are committed here."""
    if not has_hooks(checkup.project.repo):
        yield Finding(
            "warning", "the git hooks are not installed: mistakes in specs are found after the"
            " commit", str(checkup.project.repo.common_dir / "hooks"), "mtf hooks install",
        )  # fmt: skip


def shallow(checkup: Checkup) -> Iterator[Finding]:
    """Find a clone without its whole history."""
    marker = checkup.project.repo.common_dir / "shallow"
    if marker.exists():
        yield Finding(
            "warning", "this clone is shallow: older pins and the ledger's history are not in it",
            str(marker), "git fetch --unshallow",
        )  # fmt: skip


def garbage_collection(checkup: Checkup) -> Iterator[Finding]:
    """Find settings by which git throws away what was written a moment ago."""
    value = checkup.project.repo.config("gc.pruneExpire")
    if value in ("now", "all"):
        yield Finding(
            "error", f"gc.pruneExpire is {value}: git may throw away a ledger commit before its"
            " branch points to it", "gc.pruneExpire", "git config gc.pruneExpire 2.weeks.ago",
        )  # fmt: skip


THEME = Theme(
    "repository",
    (
        git_version, blocking_branches, remote, tracked_branch, hooks, shallow, garbage_collection,
    ),
)  # fmt: skip
