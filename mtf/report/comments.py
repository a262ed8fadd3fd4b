"""The review of a pull request as a Markdown comment, within the size limits of forges.

Equal reviews give equal texts, so that a comment changes only when the plan does.
"""

from __future__ import annotations

from collections import Counter
from itertools import accumulate
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.review.changed_runs import summarise
from mtf.core.vocabulary.ids import label_of
from mtf.core.vocabulary.records import best_run
from mtf.core.vocabulary.shown_text import code, visible
from mtf.report.cost_words import cost_text, resources_text
from mtf.report.markup import collapsed, fenced, html_code
from mtf.report.parameter_axes import axis_texts
from mtf.report.reviews import (
    differences_text,
    footnote,
    headline,
    kinds_of,
    no_script_change,
    outcomes,
    throttle,
)
from mtf.report.runs import best_text, rank
from mtf.report.tables import Columns, count, render_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mtf.core.review.changed_runs import Difference, Review, SpecReview, Summary
    from mtf.errors import Problem

BUDGET = 60_000  # characters; GitHub takes 65,536
MARKER = "<!-- mtf-plan:v1 -->"  # by which a bot finds its comment again
_LISTED = 25  # lines of one list
_ROWS = 100  # specs in the table
_DIFF_LENGTH = 12_000  # characters of a script's diff
Block = tuple[int, str]  # rank, and text: the highest ranks are omitted first when space is short


def comment(review: Review) -> str:
    """Return the comment, at most ``BUDGET`` characters; it says how much was omitted."""
    head = [
        MARKER,
        f"### mtf plan: {headline(review)}",
        "",
        *_cost_line(review),
        *_findings(review),
    ]
    head += [
        *_table(review),
        *_changes(review),
        *_settings(review),
        *_scripts(review),
        *_active_runs(review),
    ]
    tail = [f"<sub>{footnote(review)}</sub>"]
    blocks = [block for spec in review.specs for block in _details(spec)]
    room = BUDGET - len("\n".join([*head, *tail])) - 200
    return "\n".join([*head, *_fitting(blocks, room), *tail]) + "\n"


def _fitting(blocks: Sequence[Block], room: int) -> list[str]:
    """Return the blocks that fit into ``room``, in their order; the lowest ranks come first."""
    fitting = set()
    for place in sorted(range(len(blocks)), key=lambda i: blocks[i][0]):
        room -= len(blocks[place][1]) + 1
        if room >= 0:
            fitting.add(place)
        else:
            room += len(blocks[place][1]) + 1
    left = len(blocks) - len(fitting)
    cut = f"*{count(left, 'detail')} omitted to fit a comment. `mtf plan --base` shows all.*"
    return [blocks[i][1] for i in sorted(fitting)] + ([cut, ""] if left else [])


def _cost_line(review: Review) -> list[str]:
    if not any(spec.to_submit for spec in review.specs):
        return []
    return [f"One attempt of each run takes at most **{cost_text(review.cost)}**.", ""]


# -- mistakes -------------------------------------------------------------------------------------


def _findings(review: Review) -> list[str]:
    mistakes = [p for p in review.problems if p.is_error and not p.rule]
    violations = [p for p in review.problems if p.is_error and p.rule]
    warnings = [p for p in review.problems if not p.is_error]
    lines = []
    if mistakes:
        lines += [
            f"**❌ {count(len(mistakes), 'mistake')}.** Specs with mistakes are not submitted:"
        ]
        lines += [*_listed(map(_problem, mistakes)), ""]
    if violations or review.over_budget:
        number = count(len(violations) + len(review.over_budget), "policy violation")
        lines += [f"**❌ {number}.** Specs that violate a policy are not submitted:"]
        over_budget = (_over_budget(rule, message) for rule, message in review.over_budget)
        lines += _listed([*map(_problem, violations), *over_budget])
        lines += [""]
    elif review.has_policies:
        lines += ["✅ No policy violations", ""]
    if review.policies:
        lines += [
            "**⚠️ This pull request changes the policies:**",
            *_listed(map(_change, review.policies)),
            "",
        ]
    if review.loosened:
        lines += ["The policies of the base branch would refuse:"]
        lines += [*_listed(map(_problem, review.loosened)), ""]
    if warnings:
        lines += [f"**⚠️ {count(len(warnings), 'warning')}:**"]
        lines += [*_listed(map(_problem, warnings)), ""]
    return lines


def _problem(problem: Problem) -> str:
    rule = f" · rule {code(problem.rule)}" if problem.rule else ""
    where = code(f"{problem.path}:{problem.line}:{problem.column}")
    return f"- {where} {code(problem.message, 400)}{rule}"


def _over_budget(rule: str, message: str) -> str:
    return f"- all changes together: {code(message, 400)} · rule {code(rule)}"


def _listed(lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    more = len(lines) - _LISTED
    return lines if more <= 0 else [*lines[:_LISTED], f"- *... and {more} more*"]


# -- changes ---------------------------------------------------------------------------------------


def _table(review: Review) -> list[str]:
    shown = [spec for spec in review.specs if not spec.is_same]
    if not shown:
        return []
    kinds = kinds_of(shown)
    heads = ["spec", *kinds, "each run", "at most"]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'--:|' * len(kinds)}---|---|"]
    for spec in shown[:_ROWS]:
        numbers = [_number(kind, len(getattr(spec, kind))) for kind in kinds]
        runs = [r.now.resources for r in spec.to_submit if r.now]
        each = code(resources_text(runs[0], spec.demand_of)) if runs else "–"
        most = cost_text(spec.cost) if runs else "–"
        lines.append(f"| {' | '.join([_name(spec), *numbers, each, most])} |")
    if len(shown) > _ROWS:
        lines.append(f"| *... and {len(shown) - _ROWS} more* |{' |' * (len(kinds) + 2)}")
    return [*lines, ""]


def _number(kind: str, number: int) -> str:
    if not number:
        return "–"
    return f"**{number:,}**" if kind in {"new", "changed"} else f"{number:,}"


def _name(spec: SpecReview) -> str:
    if spec.path_before in {None, spec.path}:
        return code(spec.name)
    return f"{code(spec.name)} (moved to {code(spec.path)})"


def _changes(review: Review) -> list[str]:
    found = summarise(review.specs)
    of_results = [s for s in found if s.change.reruns]
    of_execution = [s for s in found if not s.change.reruns]
    lines = []
    if of_results:
        lines += ["**Changes in resolved configurations:**", *_listed(_summed(of_results)), ""]
    if of_execution:
        lines += ["**Changes in execution or logging, which submit nothing again:**"]
        lines += [*_listed(_summed(of_execution)), ""]
    return lines


def _summed(found: Sequence[Summary]) -> Iterator[str]:
    """Yield one line for each change, or for a key that changes in more than four ways."""
    ways = Counter(s.change.key for s in found)
    summed_keys = set()
    for summary in found:
        key = summary.change.key
        if ways[key] <= 4:
            yield f"{_change(summary.change)} · {_of(summary.runs, summary.specs)}"
        elif key not in summed_keys:
            summed_keys.add(key)
            same = [s for s in found if s.change.key == key]
            specs = tuple(dict.fromkeys(name for s in same for name in s.specs))
            runs = sum(s.runs for s in same)
            yield f"- {code(key)}: {ways[key]} different changes · {_of(runs, specs)}"


def _change(difference: Difference) -> str:
    old, new = (code(v) if v is not None else "*unset*" for v in (difference.old, difference.new))
    return f"- {code(difference.key)}: {old} → {new}"


def _of(runs: int, specs: Sequence[str]) -> str:
    names = ", ".join(map(code, specs[:3]))
    more = f" and {len(specs) - 3} more specs" if len(specs) > 3 else ""
    return f"{count(runs, 'run')} of {names}{more}"


def _settings(review: Review) -> list[str]:
    if not review.settings:
        return []
    return ["**Settings (`mtf.yaml`):**", *_listed(map(_change, review.settings)), ""]


def _scripts(review: Review) -> list[str]:
    if not review.templates:
        return []
    names = ", ".join(map(code, review.templates[:_LISTED]))
    change = review.scripts
    if change is None:
        return [f"**⚠️ Changed templates** ({names}): {no_script_change(review)}.", ""]
    return [
        f"**⚠️ Changed templates** ({names}) change the job scripts of"
        f" {count(change.specs, 'spec')}. The script of {code(change.run)}:",
        "",
        fenced("\n".join(_cut(change.lines)), "diff"),
        "",
    ]


def _cut(lines: Sequence[str]) -> list[str]:
    """Return the first lines of a diff, as many as leave room for the rest of the comment."""
    shown = [visible(line) for line in lines]
    ends = accumulate(len(line) + 1 for line in shown)
    kept = [line for line, end in zip(shown, ends, strict=True) if end <= _DIFF_LENGTH]
    more = len(shown) - len(kept)
    return [*kept, f"... and {count(more, 'more line')}"] if more else kept


def _active_runs(review: Review) -> list[str]:
    cancelled = [record for spec in review.specs for record in spec.giving_way]
    kept = [record for spec in review.specs for record in spec.going_on]
    lines = []
    if cancelled:
        lines += [
            f"**⚠️ {count(len(cancelled), 'run')} will be cancelled** and replaced by changed runs"
            " (`on_change: cancel`):",
            *_listed(f"- {code(r.run)} is {r.state}" for r in cancelled),
            "",
        ]
    if kept:
        continue_ = "continues" if len(kept) == 1 else "continue"
        lines += [
            f"**⚠️ {count(len(kept), 'run')} of changed or removed specs {continue_}** until"
            " `mtf sync --prune` or `mtf cancel`:",
            *_listed(f"- {code(r.run)} is {r.state}" for r in kept),
            "",
        ]
    return lines


# -- details ---------------------------------------------------------------------------------------


def _details(spec: SpecReview) -> Iterator[Block]:
    runs = spec.to_submit
    name = html_code(spec.name)
    if axes := axis_texts((run.now.parameters for run in runs if run.now), code):
        lines = [f"- {axis.line(code)} ({axis.number})" for axis in axes]
        title = f"**Parameters of {code(spec.name)}** {throttle(spec)}".rstrip() + "\n"
        yield 0, "\n".join([title, *_listed(lines), ""])
    if records := spec.recorded:
        best = best_run(records)
        title = f"Results of {name} so far: {outcomes(records)}"
        title += f", best {html_code(best_text(best))}" if best else ""
        rows = [[r.label, str(r.state), best_text(r)] for r in sorted(records, key=rank)[:20]]
        yield 1, collapsed(title, fenced(render_plain(Columns(["RUN", "STATE", "BEST"], rows))))
    if spec.changed:
        lines = [f"{run.name}: {differences_text(run.differences)}" for run in spec.changed]
        yield (
            2,
            collapsed(f"{count(len(lines), 'changed run')} of {name}", fenced("\n".join(lines))),
        )
    if len(spec.new) > 1:
        names = "\n".join(run.name for run in spec.new)
        yield 3, collapsed(f"{count(len(spec.new), 'new run')} of {name}", fenced(names))
    if spec.removed and spec.removed[0].name != spec.name:
        names = "\n".join(run.name for run in spec.removed)
        yield 4, collapsed(f"{count(len(spec.removed), 'removed run')} of {name}", fenced(names))
    if runs and runs[0].now:
        title = f"Resolved configuration of {html_code(label_of(runs[0].now.grid, runs[0].name))}"
        yield 5, collapsed(title, fenced(rundir.render_yaml(runs[0].now.config)))
