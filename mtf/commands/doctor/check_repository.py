"""Checks of git and the repository: version, remote, branches, hooks, history, pruning."""

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
# A ref is a file or a folder, never both: these branches keep mtf's own from being created.
_BLOCKING = re.compile(
    rf"refs/heads/mtf|{LEDGER_REF}/.*|{JOB_BRANCH_PREFIX.rstrip('/')}(/[^/]+){{0,2}}"
)


def git_version(checkup: Checkup) -> Iterator[Finding]:
    """Find a git that is too old for what mtf uses, atomic pushes with leases above all."""
    version = checkup.project.repo.version
    found = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if found < _OLDEST_GIT:
        oldest = ".".join(map(str, _OLDEST_GIT))
        what = f"{version} is older than {oldest}, which mtf needs for atomic pushes"
        yield Finding("error", what, "git", f"install git {oldest} or newer")


def blocking_branches(checkup: Checkup) -> Iterator[Finding]:
    """Find branches whose names keep mtf/ledger and slurm-job/... from being created."""
    repo = checkup.project.repo
    for ref in _blocking(repo.refs("refs/heads/")):
        short = ref.removeprefix("refs/heads/")
        yield Finding(
            "error",
            f"the branch {short} keeps mtf's own branches from being created",
            ref,
            f"git branch -m {short} {short.replace('/', '-')}-renamed",
        )


def _blocking(refs: Iterable[str]) -> list[str]:
    return [ref for ref in refs if _BLOCKING.fullmatch(ref)]


def remote(checkup: Checkup) -> Iterator[Finding]:
    """Find a missing remote, one that does not answer, and branches there that block mtf's."""
    name = checkup.project.remote
    if name is None:
        wanted = checkup.project.settings.remote
        if wanted is not None:
            yield Finding(
                "warning",
                "there is no remote: the ledger and the job branches exist in this clone only",
                f"remote {wanted}",
                f"git remote add {wanted} URL",
            )
        return
    try:
        on_remote = checkup.project.repo.remote_refs(
            name, ["refs/heads/mtf*", "refs/heads/slurm-job*"]
        )
    except RepositoryError as e:
        what = f"the remote cannot be reached, so nothing can be synced: {e}"
        yield Finding("error", what, name, f"git ls-remote {name}")
        return
    for ref in _blocking(on_remote):
        short = ref.removeprefix("refs/heads/")
        yield Finding(
            "error",
            f"the branch {short} keeps mtf's own branches from being created",
            f"{name} {ref}",
            f"git push {name} {on_remote[ref]}:refs/heads/renamed :{ref}",
        )


def tracked_branch(checkup: Checkup) -> Iterator[Finding]:
    """Find a tracked branch that does not exist."""
    try:
        checkup.project.tracked()
    except RepositoryError as e:
        branch = checkup.project.settings.branch
        yield Finding("error", str(e), branch, f"git branch {branch}, or set `branch:` in mtf.yaml")


def hooks(checkup: Checkup) -> Iterator[Finding]:
    """Find a clone without the git hooks."""
    if not has_hooks(checkup.project.repo):
        yield Finding(
            "warning",
            "the git hooks are not installed: mistakes in specs are noticed only after the commit",
            str(checkup.project.repo.common_dir / "hooks"),
            "mtf hooks install",
        )


def shallow(checkup: Checkup) -> Iterator[Finding]:
    """Find a shallow clone."""
    marker = checkup.project.repo.common_dir / "shallow"
    if marker.exists():
        yield Finding(
            "warning",
            "this clone is shallow: it lacks older pinned commits and the ledger's history",
            str(marker),
            "git fetch --unshallow",
        )


def garbage_collection(checkup: Checkup) -> Iterator[Finding]:
    """Find a setting with which git deletes objects that were just written."""
    value = checkup.project.repo.config("gc.pruneExpire")
    if value in ("now", "all"):
        yield Finding(
            "error",
            f"gc.pruneExpire is {value}: git may delete a ledger commit before the ledger's branch"
            " points to it",
            "gc.pruneExpire",
            "git config gc.pruneExpire 2.weeks.ago",
        )


THEME = Theme(
    "repository",
    (
        git_version,
        blocking_branches,
        remote,
        tracked_branch,
        hooks,
        shallow,
        garbage_collection,
    ),
)
