"""`Submitter`: resolves configurations of a program and submits them, as `mtf sync` does specs."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mtf.commands import submit_from_python
from mtf.commands.sync import sync_lock
from mtf.commands.uncommitted import noticing_uncommitted
from mtf.core.vocabulary.experiments import DIRECT, Desired
from mtf.errors import MtfError, SpecError
from mtf.framework.run_handles import Submission
from mtf.project.spec_tree import VALUE, SpecTree

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mtf.project.project import Project

_log = logging.getLogger("mtf")


@dataclass(frozen=True)
class Submitter:
    """Submits what a program asks for to the executors of one repository."""

    project: Project

    def resolve(self, spec: Mapping[str, Any]) -> Desired:
        """Return the experiments of a spec that is given as a mapping.

        Raises:
            SpecError: the spec contains mistakes; the error has all of them.
        """
        repo = self.project.repo
        groups = SpecTree.at(repo, self.project.tracked()).groups
        code = SpecTree.at(repo, repo.commit("HEAD")).code  # the commit that the runs are pinned to
        loaded = SpecTree.of_value(spec, self.project.settings, groups, code).load([VALUE])
        if any(problem.is_error for problem in loaded.problems):
            raise SpecError(list(loaded.problems))
        return replace(loaded.desired[0], path=DIRECT)

    def submit(self, wanted: Sequence[Desired], *, local: bool | None) -> Submission:
        """Submit the runs that were not submitted before, and return handles on all of them.

        Raises:
            MtfError: not all of them were submitted.
        """
        executor = None if local is None else ("local" if local else "slurm")
        with noticing_uncommitted(self.project) as uncommitted:
            with sync_lock(self.project, wait_s=60):
                report, keys = submit_from_python.submit(
                    self.project, wanted, executor=executor, publish=True, say=_log.info
                )
            for note in uncommitted():
                _log.warning("note: %s", note)
        if report.refused:
            raise MtfError("\n".join(f"{run}: {reason}" for run, reason in report.refused.items()))
        runs = self.project.ledger().runs.values()
        newest = {r.key: r.run for r in sorted(runs, key=lambda r: r.claimed_at) if r.key in keys}
        return Submission(self.project, tuple(sorted(newest.values())))
