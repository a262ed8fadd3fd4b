"""What is committed: the specs at a commit, resolved, with the keys of their runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mtf.core.vocabulary.experiments import run_key
from mtf.core.vocabulary.git_tree_ids import GITLINK, SYMLINK
from mtf.core.vocabulary.ids import timestamp
from mtf.errors import Problem
from mtf.project.affected import defining
from mtf.project.init_from_check import unknown_origins_of
from mtf.spec.lint.key_positions import position_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.ids import CommitId, RunId, RunKey
    from mtf.core.vocabulary.records import RunRecord
    from mtf.git.repo import GitRepo
    from mtf.git.wire import Entry
    from mtf.spec.compose.config_groups import Groups

Keyed = tuple["Desired", tuple["RunKey", ...]]
_REGULAR = ("100644", "100755")


@dataclass(frozen=True)
class Specs:
    """The specs of a commit that may be acted on, and what is wrong with the others.

    Those are not gone: nobody knows what they ask for, until they are mended.
    """

    desired: tuple[Keyed, ...] = ()
    problems: tuple[Problem, ...] = ()
    refused: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)  # by name: policies


def read_specs(
    repo: GitRepo, commit: CommitId, records: Mapping[RunId, RunRecord], now: datetime
) -> Specs:
    """Return all specs at a commit, each with its cluster; the work tree is never looked at.

    Raises:
        SpecError: the settings there are wrong.
    """
    from mtf.project.project import settings_at  # late: it takes the ledger along, hooks do not
    from mtf.spec.load import load_specs

    settings = settings_at(repo, commit)
    files, problems = spec_files(repo, repo.files(commit, settings.experiments))
    loaded = load_specs(files, settings, timestamp(now), groups_at(repo, commit))
    problems += (p for p in loaded.problems if p.is_error and not p.rule)
    problems += _names_in_doubt(loaded.desired, {path: files[path] for path in loaded.unread})
    named = (replace(d, cluster=d.cluster or settings.cluster.name) for d in loaded.desired)
    keyed = tuple((d, keys_of(repo, commit, d)) for d in named)
    if not problems:  # else the name may be that of a spec with mistakes
        problems += unknown_origins_of(keyed, records)
    return Specs(_without(keyed, problems), tuple(sorted(set(problems))), loaded.refused)


def _names_in_doubt(desired: Sequence[Desired], unread: Mapping[str, bytes]) -> Iterator[Problem]:
    """Yield a problem for each spec whose name a file that cannot be read seems to have as well."""
    if not defining({one.name for one in desired}, unread):
        return
    for one in desired:
        for path in sorted(defining({one.name}, unread)):
            message = f"the name {one.name!r} may be taken: {path} cannot be read. Mend that one"
            yield Problem(*position_of(one.places, ""), message)


def _without(keyed: Sequence[Keyed], problems: Collection[Problem]) -> tuple[Keyed, ...]:
    """Return the specs without those that the problems are about."""
    paths = {p.path for p in problems}
    places = {(p.path, p.line, p.column) for p in problems}  # of init_from, also in a base
    return tuple(
        (one, keys)
        for one, keys in keyed
        if one.path not in paths and places.isdisjoint(one.named_at.values())
    )


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
    from mtf.spec.compose.config_groups import FOLDER, Groups

    def files() -> dict[str, bytes]:
        return spec_files(repo, repo.files(commit, FOLDER))[0]

    return Groups(files)


def keys_of(repo: GitRepo, commit: CommitId, desired: Desired) -> tuple[RunKey, ...]:
    """Return the keys of a spec's experiments at a commit, in their order."""
    paths = {path for e in desired.experiments for path in e.rerun_on}
    trees = repo.object_ids(commit, sorted(paths))
    return tuple(run_key(e, trees) for e in desired.experiments)
