"""Submits experiments from Python through the same reconciler as committed ones."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.commands.sync import belief_of, check_commit_signed, executors_of
from mtf.core.planner.plan import plan
from mtf.core.vocabulary.actions import Plan, Submit
from mtf.core.vocabulary.ids import RunId, RunKey, run_id, submission_id, timestamp
from mtf.errors import MtfError
from mtf.executor.script import render
from mtf.project.committed import Specs, keys_of
from mtf.project.spec_tree import SpecTree
from mtf.project.template_files import templates_at
from mtf.reconcile.apply import Application, Report
from mtf.reconcile.cas_retry import with_retries
from mtf.reconcile.gather import Options, Target, gather
from mtf.reconcile.job_requests import Start, make_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from mtf.core.vocabulary.experiments import Desired
    from mtf.ledger.store import LedgerStore
    from mtf.project.project import Project


@dataclass(frozen=True)
class Request:
    """The experiments that a program asks for, and where they are to run."""

    wanted: Sequence[Desired]
    executor: str | None = None  # None: that of the settings
    templates: Mapping[str, str] | None = None  # instead of those of the commit, by name


@dataclass(frozen=True)
class Preview:
    """What would be submitted now."""

    plan: Plan
    keys: frozenset[RunKey]  # of all wanted runs
    scripts: Mapping[RunId, str]  # of the jobs, with tokens that no job has


def submit(
    project: Project, request: Request, *, publish: bool, say: Callable[[str], None]
) -> tuple[Report, frozenset[RunKey]]:
    """Submit the runs that are not recorded yet, pinned to HEAD.

    Return the report and the keys of all wanted runs. No committed spec asks for these runs, but
    pruning leaves them alone.

    Raises:
        MtfError: nothing was submitted, for example because a run in ``init_from`` is not over.
    """
    store = project.store(publish=publish)

    def once() -> tuple[Report, frozenset[RunKey]]:
        planned, application, keys = _planned(project, request, store, say)
        say(f"new jobs: {application.situation.placement().text}")
        return application.carry_out(planned), keys

    with project.repo.reading():
        return with_retries(once)


def preview(project: Project, request: Request) -> Preview:
    """Return the plan that ``submit`` would carry out now; nothing is written.

    Raises:
        MtfError: nothing would be submitted.
    """
    with project.repo.reading():
        planned, application, keys = _planned(
            project, request, project.store(publish=False), lambda _: None
        )
        return Preview(planned, keys, application.scripts(planned))


def write_script(
    project: Project,
    desired: Desired,
    templates: Mapping[str, str] | None,
    context: Mapping[str, Any],
) -> Path:
    """Write the script of an experiment's job for SLURM to a file of this clone; return its path.

    Args:
        project: whose settings and HEAD count.
        desired: the experiment.
        templates: instead of those of HEAD, by name.
        context: further values for the template; ``run`` and ``token`` are those of the job.

    Raises:
        MtfError: the template is broken.
    """
    commit, experiment = project.repo.commit("HEAD"), desired.experiments[0]
    new = submission_id(desired.name, timestamp(datetime.now(UTC)), commit)
    run = RunId(context.get("run") or run_id(new, experiment.member))
    start = Start(
        run=run,
        key=RunKey(""),
        commit=commit,
        grid=experiment.grid,
        config=experiment.config,
        max_parallel=desired.max_parallel,
        root=project.runs_root,
        folder=project.repo.prefix.rstrip("/"),
    )
    (batch,) = make_batches([start], 1, lambda: context.get("token") or "0" * 16)
    own = templates_at(project.repo, commit) if templates is None else templates
    further = {key: value for key, value in context.items() if key not in ("run", "token")}
    text = render(batch.request, "slurm", own, context=further)
    path = project.folder / "scripts" / f"{desired.name}.sbatch"
    rundir.make_shared(path.parent, project.repo.common_dir)
    rundir.write_atomically(path, text.encode())
    return path


def _planned(
    project: Project, request: Request, store: LedgerStore, say: Callable[[str], None]
) -> tuple[Plan, Application, frozenset[RunKey]]:
    wanted = request.wanted
    names = {d.name for d in wanted}
    tip = store.fetch(project.settings.branch)
    commit = project.repo.commit("HEAD")
    tracked = tip or project.repo.find_commit(f"refs/heads/{project.settings.branch}") or commit
    ledger = store.read()
    tree = SpecTree.at(project.repo, commit)
    check_commit_signed(project, commit, tree, ledger, tracked)
    recorded = {record.key for record in ledger.runs.values()}
    keyed = tuple((d, keys_of(project.repo, commit, d, recorded)) for d in wanted)
    here = project.with_settings(project.serving(tree.checked().settings))
    belief = belief_of(here, store, ledger, tracked, "HEAD", option="")
    target = Target(commit, here.settings, lambda: Specs(keyed), belief)
    found = gather(target, ledger, executors_of(here), Options(executor=request.executor))
    planned = plan(found.world, found.policy, datetime.now(UTC))
    new = tuple(a for a in planned.actions if isinstance(a, Submit) and a.desired.name in names)
    planned, name = found.placement().sift(planned.only(new)), found.placement().executor
    if waiting := [n for n in planned.notes if n.split(" ", 1)[0].rstrip(":") in names]:
        raise MtfError("\n".join(waiting))
    application = Application(
        project.repo,
        store,
        executors_of(here),
        found,
        name,
        say,
        is_asked=True,
        templates=request.templates,
    )
    return planned, application, frozenset(key for _, keys in keyed for key in keys)
