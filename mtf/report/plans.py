"""A plan as text for terminals and as Markdown for pull requests."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mtf.core.actions import Adopt, Cancel, Record, Resume, Submit, experiment_name
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mtf.core.actions import Plan

COMMENT_BUDGET = 60_000  # characters; GitHub takes 65,536
_MARKER = "<!-- mtf-plan:v1 -->"  # by which a bot finds its comment again
_SYMBOLS = {Submit: "+", Resume: "~", Adopt: "=", Record: "*", Cancel: "-"}


@dataclass(frozen=True)
class SpecChange:
    """What a plan means for one spec."""

    name: str
    path: str
    new: tuple[str, ...]  # names of the experiments to submit
    existing: Mapping[str, int] = field(default_factory=dict)  # state -> runs already there
    removed: int = 0  # runs that the base asked for and this revision does not
    axes: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    resources: str = ""
    throttle: int | None = None
    gpu_hours: float | None = None  # None: no time limit, no bound
    cpu_hours: float | None = None
    config: str = ""  # of the first new run


def plan_text(plan: Plan, specs: Sequence[SpecChange]) -> str:
    """Return a plan for a terminal: a block a spec, the verdict last."""
    lines = []
    for spec in specs:
        if not spec.new:
            continue
        lines += [
            f"{spec.name}  {spec.path}",
            f"  + {count(len(spec.new), 'run')}   {spec.resources}",
        ]
        lines += [f"      {axis}: {_values(values)}" for axis, values in spec.axes.items()]
        lines += [f"      at most {_cost(spec)}", ""]
    other = [a for a in plan.actions if not isinstance(a, Submit)]
    lines += [f"{_SYMBOLS[type(a)]} {a.run}: {a.reason}" for a in other[:50]]
    if len(other) > 50:
        lines.append(f"  ... and {len(other) - 50} more (mtf plan --format json)")
    lines += [f"note: {note}" for note in plan.notes]
    return "\n".join([*lines, verdict(plan)])


def verdict(plan: Plan) -> str:
    """Return the one line that says what a sync would do."""
    waiting = f", {plan.waiting} waiting for others" if plan.waiting else ""
    if plan.is_empty:
        return f"Plan: nothing to do, {count(plan.unchanged, 'run')} as committed{waiting}."
    counts = Counter(type(a) for a in plan.actions)
    words = {
        Submit: "submit",
        Resume: "continue",
        Adopt: "adopt",
        Record: "record",
        Cancel: "cancel",
    }
    todo = ", ".join(f"{counts[kind]} to {word}" for kind, word in words.items() if counts[kind])
    return f"Plan: {todo}, {plan.unchanged} unchanged{waiting}. mtf sync does it."


def plan_json(plan: Plan, commit: str) -> str:
    """Return a plan as JSON: ``actions``, ``unchanged``, ``waiting``, ``notes``, ``commit``."""
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
        "actions": actions,
        "unchanged": plan.unchanged,
        "waiting": plan.waiting,
        "notes": plan.notes,
    }
    return json.dumps(value, indent=2)


def plan_markdown(specs: Sequence[SpecChange], *, head: str, base: str) -> str:
    """Return the comment for a pull request, at most ``COMMENT_BUDGET`` characters.

    What does not fit is left out from the end, and said.
    """
    new = sum(len(s.new) for s in specs)
    removed = sum(s.removed for s in specs)
    lines = [
        _MARKER,
        f"### mtf plan: {count(new, 'run')} to submit, {removed} no longer asked for",
        "",
    ]
    shown = [s for s in specs if s.new or s.removed or s.existing]
    if shown:
        lines += [
            "| experiment | new | already there | removed | resources per run | at most |",
            "|---|--:|---|--:|---|---|",
            *(_markdown_row(s) for s in shown),
            "",
        ]
    details: list[str] = []
    for spec in shown:
        details += _details(spec)
    tail = [
        f"Plan of `{head[:8]}` against `{base[:8]}`. Nothing was submitted; `mtf sync` does it."
    ]
    room = COMMENT_BUDGET - len("\n".join([*lines, *tail])) - 200
    return "\n".join([*lines, *_fitting(details, room), *tail]) + "\n"


def _fitting(blocks: list[str], room: int) -> list[str]:
    kept: list[str] = []
    for number, block in enumerate(blocks):
        room -= len(block) + 1
        if room < 0:
            left = len(blocks) - number
            return [*kept, f"*{left} details left out: too long for a comment. Run mtf plan.*", ""]
        kept.append(block)
    return kept


def _markdown_row(spec: SpecChange) -> str:
    there = ", ".join(f"{n} {state}" for state, n in spec.existing.items()) or "–"
    new = f"**{len(spec.new)}**" if spec.new else "0"
    cost = _cost(spec) if spec.new else "–"
    cells = [f"`{spec.name}`", new, there, str(spec.removed), spec.resources or "–", cost]
    return f"| {' | '.join(cells)} |"


def _details(spec: SpecChange) -> list[str]:
    """Return each collapsible block as one text, so that it is kept or cut whole."""
    blocks = []
    if spec.axes:
        axes = " · ".join(f"`{a}`: {_values(v)} ({len(v)})" for a, v in spec.axes.items())
        blocks.append(f"**Parameters of `{spec.name}`** {axes}\n")
    if spec.new:
        names = "\n".join(spec.new)
        blocks.append(
            _collapsed(f"{count(len(spec.new), 'new run')} of <code>{spec.name}</code>", names)
        )
        blocks.append(
            _collapsed(f"Resolved configuration of <code>{spec.new[0]}</code>", spec.config)
        )
    return blocks


def _collapsed(title: str, text: str) -> str:
    fence = "`" * 4
    return f"<details><summary>{title}</summary>\n\n{fence}\n{text}\n{fence}\n</details>\n"


def _values(values: Sequence[Any]) -> str:
    texts = [json.dumps(v, ensure_ascii=False) for v in values]
    return ", ".join(texts if len(texts) <= 8 else [*texts[:3], "...", *texts[-2:]])


def _cost(spec: SpecChange) -> str:
    if spec.gpu_hours is None or spec.cpu_hours is None:
        return "no bound: slurm.time is not set"
    gpus = f"{spec.gpu_hours:,.4g} GPU-h, " if spec.gpu_hours else ""
    return f"{gpus}{spec.cpu_hours:,.4g} CPU-h"


def comparison_text(specs: Sequence[SpecChange], head: str, base: str) -> str:
    """Return, for a terminal, what one revision asks for that another does not."""
    lines = []
    for spec in specs:
        if not (spec.new or spec.removed):
            continue
        lines.append(f"{spec.name}  {spec.path}")
        if spec.new:
            lines.append(f"  + {count(len(spec.new), 'run')}   {spec.resources}")
            lines += [f"      {axis}: {_values(values)}" for axis, values in spec.axes.items()]
            lines.append(f"      at most {_cost(spec)}")
        if spec.removed:
            lines.append(f"  - {count(spec.removed, 'run')} no longer asked for (their jobs go on)")
    new, removed = sum(len(s.new) for s in specs), sum(s.removed for s in specs)
    verdict_line = (
        f"{base[:8]}..{head[:8]}: {count(new, 'run')} to submit, {removed} no longer asked for."
    )
    return "\n".join([*lines, verdict_line])


def comparison_json(specs: Sequence[SpecChange], head: str, base: str) -> str:
    """Return the same as JSON: an object with ``actions`` and ``specs``."""
    actions = [
        {"action": "submit", "experiment": name, "run": None, "reason": f"new in {spec.path}"}
        for spec in specs
        for name in spec.new
    ]
    value = {"head": head, "base": base, "actions": actions, "specs": [vars(s) for s in specs]}
    return json.dumps(value, indent=2)
