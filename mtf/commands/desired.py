"""What is committed: the specs at a commit, resolved, with the keys of their runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mtf.core.experiments import run_key
from mtf.core.ids import timestamp
from mtf.core.proof import GITLINK, SYMLINK
from mtf.errors import Problem, SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from mtf.core.experiments import Desired
    from mtf.core.ids import CommitId, RunKey
    from mtf.gitrepo import GitRepo
    from mtf.gitwire import Entry
    from mtf.spec.groups import Groups

Keyed = tuple["Desired", tuple["RunKey", ...]]
_REGULAR = ("100644", "100755")


def read_desired(
    repo: GitRepo, commit: CommitId, now: datetime
) -> tuple[tuple[Keyed, ...], Mapping[str, tuple[Problem, ...]]]:
    """Return all specs at a commit, each with its cluster, and by name what policies they break.

    The work tree is never looked at.

    Raises:
        SpecError: something committed there is wrong; all of it is said.
    """
    from mtf.commands.project import settings_at  # late: it takes the ledger along, hooks do not
    from mtf.spec.load import load_specs

    settings = settings_at(repo, commit)
    files, problems = spec_files(repo, repo.files(commit, settings.experiments))
    loaded = load_specs(files, settings, timestamp(now), groups_at(repo, commit))
    if wrong := [*problems, *(p for p in loaded.problems if p.is_error and not p.rule)]:
        raise SpecError(wrong)
    named = (replace(d, cluster=d.cluster or settings.cluster.name) for d in loaded.desired)
    return tuple((d, keys_of(repo, commit, d)) for d in named), loaded.refused


def spec_files(
    repo: GitRepo, entries: dict[str, Entry], known: Mapping[str, bytes] | None = None
) -> tuple[dict[str, bytes], list[Problem]]:
    """Return the contents of regular files, and a problem for each YAML file that is not one.

    ``known`` holds contents, by object id, that need not be read again.
    """
    kinds = {SYMLINK: "a symbolic link", GITLINK: "a submodule"}
    problems = [
        Problem(path, 1, 1, f"{kinds.get(e.mode, 'not a regular file')}: a spec must be a file")
        for path, e in entries.items()
        if e.mode not in _REGULAR and path.endswith((".yaml", ".yml"))
    ]
    regular = {path: e.oid for path, e in entries.items() if e.mode in _REGULAR}
    there = known or {}
    contents = {**there, **repo.blobs(oid for oid in regular.values() if oid not in there)}
    return {path: contents[oid] for path, oid in regular.items()}, problems


def groups_at(repo: GitRepo, commit: CommitId) -> Groups:
    """Return the config groups that the specs of a commit may name."""
    from mtf.spec.groups import FOLDER, Groups

    def files() -> dict[str, bytes]:
        return spec_files(repo, repo.files(commit, FOLDER))[0]

    return Groups(files)


def keys_of(repo: GitRepo, commit: CommitId, desired: Desired) -> tuple[RunKey, ...]:
    """Return the keys of a spec's experiments at a commit, in their order."""
    paths = {path for e in desired.experiments for path in e.rerun_on}
    trees = repo.object_ids(commit, sorted(paths))
    return tuple(run_key(e, trees) for e in desired.experiments)
