"""Compares two runs, specs or revisions: configuration, code, environment and metrics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.commands.review import compare_commits
from mtf.core.review.compare_runs import Comparison, Environment, Side, Subject, compare
from mtf.core.selection.run_conditions import names_of
from mtf.core.vocabulary.ids import label_of, name_of
from mtf.errors import MtfError, RepositoryError, SpecError
from mtf.project.affected import defining
from mtf.project.run_lookup import (
    existing_runs,
    find_run,
    newest_first,
    of_newest_submission,
)
from mtf.project.spec_tree import SpecTree
from mtf.reconcile.run_access import with_journals

if TYPE_CHECKING:
    from mtf.core.review.changed_runs import Review
    from mtf.core.vocabulary.experiments import Desired, Experiment
    from mtf.core.vocabulary.ids import CommitId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.git.wire import FileChange
    from mtf.ledger.store import Ledger
    from mtf.project.project import Project


@dataclass(frozen=True)
class Diff:
    """The differences between two runs, specs or revisions."""

    old: CommitId
    new: CommitId
    files: tuple[FileChange, ...] | None  # None: one of the commits is not in this clone
    contrast: Comparison | None = None  # of runs and specs
    review: Review | None = None  # of two revisions


def diff(project: Project, a: str, b: str) -> Diff:
    """Compare two runs, specs or revisions.

    A run is named by its id, experiment, grid, job id or submission; a spec by its path, name or
    ``grid/member``, at HEAD unless ``REV:`` precedes it. If one name is that of a run or spec and
    the other a revision, the run or spec is compared with the same spec at that revision.

    Raises:
        MtfError: nothing has one of the names, or the two cannot be compared.
    """
    with project.repo.reading():
        ledger = project.ledger()
        names = _Names(project, ledger)
        left, right = names.find(a), names.find(b)
        if isinstance(left, str) and isinstance(right, str):
            files = _files(project, left, right)
            return Diff(left, right, files, review=compare_commits(project, left, right))
        if isinstance(left, str):
            left = names.same_spec(right, left)
        if isinstance(right, str):
            right = names.same_spec(left, right)
        assert isinstance(right, Side)
        files = _files(project, left.commit, right.commit)
        return Diff(left.commit, right.commit, files, contrast=compare(left, right))


def _files(project: Project, old: CommitId, new: CommitId) -> tuple[FileChange, ...] | None:
    try:
        return project.repo.changes(old, new)
    except RepositoryError:
        return None


@dataclass(frozen=True)
class _Names:
    """Finds the runs, the spec or the revision that a name stands for."""

    project: Project
    ledger: Ledger

    def find(self, name: str) -> Side | CommitId:
        """Return the runs or the spec of that name, or the commit of that revision.

        Raises:
            MtfError: the name stands for none of these.
        """
        records = newest_first(self.ledger.runs.values())
        exact = [r for r in records if name in (*names_of(r), r.grid, r.submission)]
        if exact:
            return self._runs(of_newest_submission(exact))
        repo = self.project.repo
        rev, colon, spec = name.rpartition(":")
        if colon and (commit := repo.find_named(rev)):
            return self._spec(commit, spec, name)
        if commit := repo.find_named(name):
            return commit
        try:
            return self._spec(repo.commit("HEAD"), name, name)
        except _NoSpecError:
            pass
        if any(n.startswith(name) for r in records for n in names_of(r)):
            return self._runs([find_run(self.ledger, name)])
        raise MtfError(
            f"{name}: no such run, spec or revision. {existing_runs(records, near=name)}."
            " A spec is named by its path or name, or REV:path or REV:name"
        )

    def same_spec(self, side: Side | CommitId, commit: CommitId) -> Side:
        """Return the experiment or the grid of ``side`` as it is at a commit."""
        assert isinstance(side, Side)
        first = side.subjects[0]
        record = first.record
        name = name_of(first.label)
        if record is not None:
            name = record.grid or record.experiment
        found = self._spec(commit, name, f"{commit[:8]}:{name}")
        if len(side.subjects) > 1:
            return found
        same = tuple(s for s in found.subjects if s.parameters == first.parameters)
        return Side(found.title, commit, same or found.subjects)

    def _runs(self, records: list[RunRecord]) -> Side:
        first = records[0]
        submission = self.project.store().submission(self.ledger, first.submission)
        subjects = tuple(
            Subject(r.label, submission.configs.get(r.member, {}), r.parameters, r)
            for r in with_journals(records)
        )
        title = first.run if len(records) == 1 else first.submission
        return Side(title, first.commit, subjects, _environment(first))

    def _spec(self, commit: CommitId, name: str, shown: str) -> Side:
        desired, experiments = self._experiments(commit, name, shown)
        subjects = tuple(
            Subject(label_of(e.grid, e.name), e.config, e.parameters) for e in experiments
        )
        return Side(f"{desired.path} at {commit[:8]}", commit, subjects)

    def _experiments(
        self, commit: CommitId, name: str, shown: str
    ) -> tuple[Desired, tuple[Experiment, ...]]:
        tree = SpecTree.at(self.project.repo, commit).checked()
        paths = {name} & tree.specs.keys() or defining({name, name_of(name)}, tree.specs)
        loaded = tree.load(paths)
        for desired in loaded.desired:
            if name in (desired.path, desired.name):
                return desired, desired.experiments
            for e in desired.experiments:
                if name in (f"{desired.name}/{e.name}", label_of(e.grid, e.name)):
                    return desired, (e,)
        if wrong := [p for p in loaded.problems if p.is_error and not p.rule]:
            raise SpecError(wrong)
        raise _NoSpecError(f"{shown}: no such spec at {commit[:8]}")


class _NoSpecError(MtfError):
    """There is no spec of that path or name."""


def _environment(record: RunRecord) -> Environment:
    """Return the environment of a run's newest attempt; only a hash if its folder is elsewhere."""
    events = rundir.read_journal(Path(record.run_dir))
    proof: dict[str, Any] = next((e for e in reversed(events) if e.get("event") == "proof"), {})
    packages = proof.get("packages")
    return Environment(
        packages if isinstance(packages, dict) else None,
        proof.get("packages_sha256") or record.packages,
        proof.get("python"),
    )
