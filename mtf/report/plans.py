"""The plan of a sync (`mtf plan`) as text, as Markdown and as JSON."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mtf.core.review.costs import total_cost
from mtf.core.sbatch.section_options import section_demand
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.actions import (
    Action,
    Adopt,
    Cancel,
    Rebuild,
    Record,
    Repin,
    Restore,
    Resume,
    Submit,
    Throttle,
    experiment_name,
    owner_name,
)
from mtf.report.cost_words import cost_text, resources_text
from mtf.report.markup import fenced
from mtf.report.parameter_axes import axis_texts
from mtf.report.problems import problem_lines
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mtf.core.planner.placement import Placement
    from mtf.core.sbatch.demand import Demand
    from mtf.core.vocabulary.actions import Plan
    from mtf.core.vocabulary.experiments import Experiment
    from mtf.core.vocabulary.ids import RunId
    from mtf.core.vocabulary.jobs import Resources
    from mtf.errors import Problem

_SYMBOLS: dict[type[Action], str] = {
    Submit: "+",
    Resume: "~",
    Adopt: "=",
    Record: "*",
    Cancel: "-",
    Restore: "!",
    Repin: "!",
    Rebuild: "!",
    Throttle: "%",
}
_VERBS: dict[type[Action], str] = {
    Submit: "submit",
    Resume: "continue",
    Adopt: "adopt",
    Record: "record",
    Cancel: "cancel",
    Restore: "restore",
    Repin: "restore",
    Rebuild: "restore",
    Throttle: "limit",
}

_FEW = 3  # actions that are alike and get a line each
_MOST_LINES = 50

_UPDATE = "update"  # give a waiting run a job with other resources


@dataclass(frozen=True)
class SpecChange:
    """The runs of one spec that a plan submits, at least one."""

    name: str
    path: str
    runs: tuple[Experiment, ...]
    demand_of: Callable[[Resources], Demand] = field(default=section_demand, compare=False)


def plan_text(
    plan: Plan,
    specs: Sequence[SpecChange],
    problems: Sequence[Problem],
    placement: Placement | None = None,
) -> str:
    """Return a plan for a terminal: a block for each spec, other actions, the summary last."""
    lines = []
    for spec in specs:
        cost = total_cost((e.resources for e in spec.runs), spec.demand_of)
        first, number = spec.runs[0], count(len(spec.runs), "run")
        lines += [
            f"{spec.name}  {spec.path}",
            f"  + {number}   {resources_text(first.resources, spec.demand_of)}",
            *(f"      {axis.line()}" for axis in axis_texts(e.parameters for e in spec.runs)),
            f"      at most {cost_text(cost)}",
            "",
        ]
    other = list(_other_lines(plan))
    lines += other[:_MOST_LINES]
    if len(other) > _MOST_LINES:
        lines.append(f"  ... and {len(other) - _MOST_LINES} more (mtf plan --format json)")
    if placement is not None and any(isinstance(a, Submit | Resume) for a in plan.actions):
        lines.append(f"new jobs: {placement.text}")
    lines += [f"note: {note}" for note in plan.notes]
    lines += problem_lines(problems)
    return "\n".join([*lines, verdict(plan)])


def _other_lines(plan: Plan) -> Iterator[str]:
    """Yield a line for each action except submissions; many alike of a spec get one line."""
    groups: dict[tuple[str, str, str], list[Action]] = defaultdict(list)
    for action in plan.actions:
        if not isinstance(action, Submit):
            groups[_SYMBOLS[type(action)], owner_name(action), action.reason].append(action)
    for (symbol, owner, reason), actions in groups.items():
        if len(actions) > _FEW:
            yield f"{symbol} {owner}: {count(len(actions), 'run')}: {reason}"
        else:
            yield from (f"{symbol} {_subject(a)}: {reason}" for a in actions)


def _verb(action: Action) -> str:
    """Return the word for an action of a plan."""
    if isinstance(action, Resume) and action.withdraws:
        return _UPDATE
    return _VERBS[type(action)]


def _subject(action: Action) -> str:
    """Return the name of the run that an action concerns, or for a throttle of the grid."""
    return owner_name(action) if isinstance(action, Throttle) else action.run


def verdict(plan: Plan) -> str:
    """Return the summary line of a plan: the numbers of runs to submit, to continue, ..."""
    waiting = f", {plan.waiting} waiting for others" if plan.waiting else ""
    waiting += f", {plan.waiting_for_slurm} waiting for SLURM" if plan.waiting_for_slurm else ""
    waiting += f", {plan.held} held back" if plan.held else ""
    if plan.is_empty:
        return f"Plan: nothing to do, {plan.unchanged} unchanged{waiting}."
    counts = Counter(_verb(a) for a in plan.actions)
    verbs = dict.fromkeys(["submit", "continue", _UPDATE, *_VERBS.values()])
    todo = ", ".join(f"{counts[verb]} to {verb}" for verb in verbs if counts[verb])
    return f"Plan: {todo}, {plan.unchanged} unchanged{waiting}. Run mtf sync to apply it."


def scripts_text(scripts: Mapping[RunId, str]) -> str:
    """Return job scripts by run as text; runs of one array have the same script."""
    runs: dict[str, list[str]] = {}
    for run, script in scripts.items():
        runs.setdefault(script, []).append(run)
    parts = []
    for script, same in runs.items():
        more = f" and {count(len(same) - 1, 'more run')}" if len(same) > 1 else ""
        parts.append(f"# script of {same[0]}{more}\n{script.rstrip()}\n")
    return "\n".join(parts)


def plan_json(
    plan: Plan,
    commit: str,
    problems: Sequence[Problem],
    placement: Placement | None = None,
    scripts: Mapping[RunId, str] | None = None,
) -> str:
    """Return a plan as JSON; docs/review.md fixes its keys."""
    actions = [
        {
            "action": type(a).__name__.lower(),
            "experiment": experiment_name(a),
            "run": a.run,
            "reason": a.reason,
        }
        for a in plan.actions
    ]
    value = {
        "commit": commit,
        "executor": placement and placement.executor,
        "cluster": placement and placement.cluster,
        "actions": actions,
        "unchanged": plan.unchanged,
        "waiting": plan.waiting,
        "waiting_for_slurm": plan.waiting_for_slurm,
        "held": plan.held,
        "notes": plan.notes,
        "problems": [problem._asdict() for problem in problems],
        **({} if scripts is None else {"scripts": dict(scripts)}),
    }
    return json_text.dumps(value, indent=2, ensure_ascii=False)


def plan_markdown(
    plan: Plan,
    specs: Sequence[SpecChange],
    problems: Sequence[Problem],
    placement: Placement | None = None,
    scripts: Mapping[RunId, str] | None = None,
) -> str:
    """Return a plan as Markdown."""
    further = f"\n{fenced(scripts_text(scripts))}\n" if scripts else ""
    return f"### mtf plan\n\n{fenced(plan_text(plan, specs, problems, placement))}\n{further}"
