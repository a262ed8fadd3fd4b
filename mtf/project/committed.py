"""The specs of a commit that may be submitted, each with the keys of its runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mtf.core.vocabulary.experiments import former_run_key, run_key
from mtf.errors import Problem
from mtf.project.affected import defining
from mtf.project.init_from_check import unknown_origins_of
from mtf.spec.lint.key_positions import position_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.ids import CommitId, RunId, RunKey
    from mtf.core.vocabulary.records import RunRecord
    from mtf.git.repo import GitRepo
    from mtf.project.spec_tree import SpecTree

Keyed = tuple["Desired", tuple["RunKey", ...]]


@dataclass(frozen=True)
class Specs:
    """The specs of a commit that may be submitted, and the mistakes in the others.

    A spec with mistakes does not count as deleted: what it asks for is unknown until it is fixed.
    """

    desired: tuple[Keyed, ...] = ()
    problems: tuple[Problem, ...] = ()
    refused: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)  # by name: policies
    warnings: tuple[Problem, ...] = ()

    def warnings_on(self, paths: Collection[str]) -> list[Problem]:
        """Return the warnings about the specs at some paths and about the files they are made of.

        A base or config group belongs to no single spec.
        """
        others = {spec.path for spec, _ in self.desired} - {*paths}
        return [p for p in self.warnings if p.path not in others] if paths else []


def read_specs(
    repo: GitRepo, commit: CommitId, tree: SpecTree, records: Mapping[RunId, RunRecord]
) -> Specs:
    """Return all specs of a commit, each with its cluster.

    Args:
        repo: has the commit.
        commit: whose specs they are.
        tree: the specs at that commit.
        records: of all runs in the ledger, which ``init_from`` may name.

    Raises:
        SpecError: the settings contain mistakes.
    """
    settings, loaded = tree.checked().settings, tree.load_all()
    problems = [*tree.problems, *(p for p in loaded.problems if p.is_error and not p.rule)]
    problems += _ambiguous_names(loaded.desired, {p: tree.texts[p] for p in loaded.unread})
    specs = (replace(d, cluster=d.cluster or settings.cluster.name) for d in loaded.desired)
    recorded = {record.key for record in records.values()}
    keyed = tuple((d, keys_of(repo, commit, d, recorded)) for d in specs)
    if not problems:  # otherwise an unknown name may be that of a spec with mistakes
        problems += unknown_origins_of(keyed, records)
    warnings = tuple(p for p in loaded.problems if not p.is_error)
    return Specs(_without(keyed, problems), tuple(sorted(set(problems))), loaded.refused, warnings)


def _ambiguous_names(specs: Sequence[Desired], unread: Mapping[str, bytes]) -> Iterator[Problem]:
    """Yield a problem for each spec whose name an unreadable file may have as well."""
    if not defining({spec.name for spec in specs}, unread):
        return
    for spec in specs:
        for path in sorted(defining({spec.name}, unread)):
            message = f"the name {spec.name!r} may be taken: {path} cannot be read. Fix that file"
            yield Problem(*position_of(spec.places, ""), message)


def _without(keyed: Sequence[Keyed], problems: Collection[Problem]) -> tuple[Keyed, ...]:
    """Return the specs without those that have problems."""
    paths = {p.path for p in problems}
    places = {(p.path, p.line, p.column) for p in problems}  # of init_from, also in a base
    return tuple(
        (spec, keys)
        for spec, keys in keyed
        if spec.path not in paths and places.isdisjoint(spec.named_at.values())
    )


def keys_of(
    repo: GitRepo, commit: CommitId, desired: Desired, recorded: Collection[RunKey]
) -> tuple[RunKey, ...]:
    """Return the run keys of a spec's experiments at a commit, in their order.

    Args:
        repo: has the commit.
        commit: the spec's.
        desired: the spec.
        recorded: the keys of all runs in the ledger. An experiment whose key is not among them has
            its former key if that is: a new version of mtf submits no run a second time.
    """
    paths = {path for e in desired.experiments for path in e.rerun_on}
    trees = repo.object_ids(commit, sorted(paths))
    keys = []
    for experiment in desired.experiments:
        key = run_key(experiment, trees)
        if (
            recorded
            and key not in recorded
            and (former := former_run_key(experiment, trees)) in recorded
        ):
            key = former
        keys.append(key)
    return tuple(keys)
