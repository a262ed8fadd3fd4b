"""Plans a sync: what `mtf sync` would do now, without doing it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtf.commands.sync import executors_of, plan_for, read_situation
from mtf.commands.uncommitted import noticing_uncommitted
from mtf.core.selection.older_code import older_code_notes
from mtf.core.usage.advice import advice
from mtf.core.vocabulary.actions import Plan, Resume, Submit
from mtf.core.vocabulary.ids import name_of
from mtf.errors import Problem, SpecError
from mtf.project.cluster_check import infeasible, known_facts, remarks
from mtf.project.sample_scripts import SampleScripts
from mtf.project.template_files import templates_at
from mtf.reconcile.pinned_code.collect import remarks_on, whole_code
from mtf.report.plans import SpecChange
from mtf.rundir import code_dir

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mtf.core.planner.placement import Placement
    from mtf.core.planner.plan import World
    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.ids import CommitId, RunId
    from mtf.project.project import Project
    from mtf.reconcile.gather import Options, Situation
    from mtf.spec.schema.settings import Settings


@dataclass(frozen=True)
class Planned:
    """The plan for a commit, and the part of each spec that it submits."""

    plan: Plan
    specs: tuple[SpecChange, ...]
    commit: CommitId
    # of specs that are left out, and warnings about what is submitted
    problems: tuple[Problem, ...]
    placement: Placement  # of new jobs
    scripts: Mapping[RunId, str] = field(default_factory=dict)  # of the jobs, if asked for

    @property
    def is_doubtful(self) -> bool:
        """Return True if runs are held back, or would be refused."""
        return self.plan.held > 0 or any(p.is_error for p in self.problems)


def left_out_here(project: Project) -> Iterator[str]:
    """Yield a note for each thing that is checked out here but that a plan leaves out."""
    repo, settings = project.repo, project.settings
    current = repo.current_branch()
    if current not in (None, settings.branch):
        yield (
            f"the plan is for {settings.branch}; mtf plan --base {settings.branch} shows what"
            f" merging {current} means"
        )


def plan_sync(project: Project, options: Options, *, scripts: bool = False) -> Planned:
    """Return the plan that ``mtf sync`` with these options would carry out now.

    With ``scripts``, it has the script of each job as well.

    Raises:
        SpecError: the settings contain mistakes; a sync would only observe recorded runs.
    """
    with noticing_uncommitted(project) as uncommitted:
        planned = _planned(project, options, scripts=scripts)
        notes = (*planned.plan.notes, *uncommitted())
        return replace(planned, plan=replace(planned.plan, notes=notes))


def _planned(project: Project, options: Options, *, scripts: bool) -> Planned:
    now = datetime.now(UTC)
    with project.repo.reading():
        found = read_situation(project, project.store(publish=False), options, now)
    if not found.is_usable:
        raise SpecError(list(found.problems))
    planned = plan_for(found, options, now)
    planned = replace(planned, notes=(*planned.notes, *_older_code(project, found, options)))
    new = tuple(_submitted(planned, found.world))
    notes = advice((part for _, part in new), found.world.records.values())
    planned = replace(planned, notes=(*planned.notes, *notes))
    whole = [spec for spec, _ in new]
    samples = SampleScripts.of(
        whole, templates_at(project.repo, found.world.commit), found.settings
    )
    past = samples.violations(whole, found.settings.policies)
    specs = tuple(
        SpecChange(part.name, part.path, part.experiments, samples.demand_of(part.name))
        for _, part in new
    )
    remarks = _incomplete_code(project, planned, found.world.commit)
    doubts = (*_doubts(new, found.settings), *found.warnings_on({spec.path for spec in whole}))
    problems = sorted({*found.problems, *doubts, *past, *remarks})
    texts = _scripts(project, found, planned) if scripts else {}
    return Planned(planned, specs, found.world.commit, tuple(problems), found.placement(), texts)


def _scripts(project: Project, found: Situation, planned: Plan) -> dict[RunId, str]:
    from mtf.reconcile.apply import Application  # late: a plan without scripts needs none of it

    executors = executors_of(project.with_settings(found.settings))
    executor = found.placement().executor
    store = project.store(publish=False)
    application = Application(project.repo, store, executors, found, executor, lambda _: None)
    with project.repo.reading():
        return application.scripts(planned)


def _older_code(project: Project, found: Situation, options: Options) -> list[str]:
    """Return notes on failed runs for which the planned commit has newer code."""
    world = found.world
    records = [r for r in world.records.values() if found.policy.wants(name_of(r.run))]
    return older_code_notes(
        records,
        {key for _, keys in world.desired for key in keys},
        (world.commit, options.rev or project.settings.branch),
        lambda commit: project.repo.changed_paths(commit, world.commit),
    )


def _incomplete_code(project: Project, planned: Plan, tracked: CommitId) -> list[Problem]:
    """Return warnings about the code of the planned jobs, as far as it is not checked out yet.

    Raises:
        RefusedTreeError: the code must not be checked out.
        IncompleteCodeError: a submodule or a content of Git LFS is missing.
    """
    starts = [a for a in planned.actions if isinstance(a, Submit | Resume)]
    commits = {tracked if isinstance(a, Submit) else a.record.commit for a in starts}
    found = []
    for commit in sorted(commits):
        if not code_dir(project.runs_root, commit).is_dir():
            part = whole_code(project.repo, commit, project.remote)
            found += [Problem(".", 1, 1, text, "warning") for text in remarks_on(part)]
    return found


def _submitted(planned: Plan, world: World) -> Iterator[tuple[Desired, Desired]]:
    """Yield each spec with runs to submit: the whole spec, and the part with these runs only."""
    new = {action.key for action in planned.actions if isinstance(action, Submit)}
    for desired, keys in world.desired:
        runs = [e for e, key in zip(desired.experiments, keys, strict=True) if key in new]
        if runs:
            yield desired, replace(desired, experiments=tuple(runs))


def _doubts(new: Sequence[tuple[Desired, Desired]], settings: Settings) -> Iterator[Problem]:
    """Yield probable mistakes in specs, and reasons why SLURM would refuse their new runs."""
    if new:
        facts = known_facts(settings, live=True)
        yield from remarks((whole for whole, _ in new), settings, facts)
        yield from infeasible((part for _, part in new), settings)
