"""What differs between two runs, specs or revisions: configuration, code, environment, metrics."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.commands.review import compare_commits
from mtf.core.review.compare_runs import Contrast, Environment, Side, Subject, contrast
from mtf.core.vocabulary.ids import label_of, name_of
from mtf.errors import MtfError, RepositoryError, SpecError
from mtf.project.affected import defining
from mtf.project.run_lookup import find_run, names_of, newest_first, of_newest_submission
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
    """All that differs."""

    old: CommitId
    new: CommitId
    files: tuple[FileChange, ...] | None  # None: a commit is not in this clone
    contrast: Contrast | None = None  # of runs and specs
    review: Review | None = None  # of two revisions


def diff(project: Project, a: str, b: str) -> Diff:
    """Return what differs between what two names stand for.

    A name is a run's (id, experiment, grid, job id, submission), a spec's (``[REV:]`` path, name
    or ``grid/member``; HEAD without a revision), or a revision's. Where one is a run or a spec and
    the other a revision, the same spec at that revision is meant.

    Raises:
        MtfError: one of them is nothing, or not comparable with the other.
    """
    with project.repo.reading():
        ledger = project.ledger()
        names = _Names(project, ledger)
        one, other = names.find(a), names.find(b)
        if isinstance(one, str) and isinstance(other, str):
            files = _files(project, one, other)
            return Diff(one, other, files, review=compare_commits(project, one, other))
        if isinstance(one, str):
            one = names.same_spec(other, one)
        if isinstance(other, str):
            other = names.same_spec(one, other)
        assert isinstance(other, Side)
        files = _files(project, one.commit, other.commit)
        return Diff(one.commit, other.commit, files, contrast=contrast(one, other))


def _files(project: Project, old: CommitId, new: CommitId) -> tuple[FileChange, ...] | None:
    try:
        return project.repo.changes(old, new)
    except RepositoryError:
        return None


@dataclass(frozen=True)
class _Names:
    """Finds what a name stands for."""

    project: Project
    ledger: Ledger

    def find(self, wish: str) -> Side | CommitId:
        """Return runs or a spec, or the commit of a revision.

        Raises:
            MtfError: it is none of these.
        """
        records = newest_first(self.ledger.runs.values())
        exact = [r for r in records if wish in (*names_of(r), r.grid, r.submission)]
        if exact:
            return self._runs(of_newest_submission(exact))
        repo = self.project.repo
        rev, colon, name = wish.rpartition(":")
        if colon and (commit := repo.find_commit(rev)):
            return self._spec(commit, name, wish)
        if commit := repo.find_commit(wish):
            return commit
        try:
            return self._spec(repo.commit("HEAD"), wish, wish)
        except _NoSpecError:
            pass
        if any(n.startswith(wish) for r in records for n in names_of(r)):
            return self._runs([find_run(self.ledger, wish)])
        raise MtfError(
            f"{wish}: no such run, spec or revision. mtf status lists the runs;"
            " a spec is its path or name, REV:path or REV:name at a revision"
        )

    def same_spec(self, side: Side | CommitId, commit: CommitId) -> Side:
        """Return at a commit what the other side is: its experiment, or all of its grid."""
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
            Subject(r.label, submission.configs[r.member], r.parameters, r)
            for r in with_journals(records)
        )
        title = first.run if len(records) == 1 else first.submission
        return Side(title, first.commit, subjects, _environment(first))

    def _spec(self, commit: CommitId, wish: str, shown: str) -> Side:
        desired, experiments = self._experiments(commit, wish, shown)
        subjects = tuple(
            Subject(label_of(e.grid, e.name), e.config, e.parameters) for e in experiments
        )
        return Side(f"{desired.path} at {commit[:8]}", commit, subjects)

    def _experiments(
        self, commit: CommitId, wish: str, shown: str
    ) -> tuple[Desired, tuple[Experiment, ...]]:
        tree = SpecTree.at(self.project.repo, commit).checked()
        paths = {wish} & tree.specs.keys() or defining({wish, name_of(wish)}, tree.specs)
        loaded = tree.load(paths)
        for one in loaded.desired:
            if wish in (one.path, one.name):
                return one, one.experiments
            for e in one.experiments:
                if wish in (f"{one.name}/{e.name}", label_of(e.grid, e.name)):
                    return one, (e,)
        if wrong := [p for p in loaded.problems if p.is_error and not p.rule]:
            raise SpecError(wrong)
        raise _NoSpecError(f"{shown}: no such spec at {commit[:8]}")


class _NoSpecError(MtfError):
    """No spec has that path or name."""


def _environment(record: RunRecord) -> Environment:
    """Return what the newest attempt's proof says; of a folder that is not here, the hash alone."""
    facts = rundir.read_journal(Path(record.run_dir))
    proof: dict[str, Any] = next((f for f in reversed(facts) if f.get("event") == "proof"), {})
    packages = proof.get("packages")
    return Environment(
        packages if isinstance(packages, dict) else None,
        proof.get("packages_sha256") or record.packages,
        proof.get("python"),
    )
