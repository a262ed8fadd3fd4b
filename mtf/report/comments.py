"""The comment on a pull request: what merging it means, as Markdown within a forge's limits.

The same review gives the same text, so that a comment changes only when the plan does.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.review.changed_runs import summarise
from mtf.core.vocabulary.experiments import axes_of
from mtf.core.vocabulary.ids import label_of
from mtf.core.vocabulary.records import best_run
from mtf.report.cost_words import cost_text, resources_text
from mtf.report.markup import code, collapsed, fenced, html_code
from mtf.report.reviews import (
    differences_text,
    headline,
    kinds_of,
    last_word,
    outcomes,
    shown_values,
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
_LISTED = 25  # lines of one list that are shown
_ROWS = 100  # specs in the table
Block = tuple[int, str]  # how soon it is left out where there is no room: 0 last; and its text


def comment(review: Review) -> str:
    """Return the comment, at most ``BUDGET`` characters; what was left out for that is said."""
    head = [
        MARKER,
        f"### mtf plan: {headline(review)}",
        "",
        *_cost_line(review),
        *_verdicts(review),
    ]
    head += [*_table(review), *_changes(review), *_settings(review), *_going_on(review)]
    tail = [f"<sub>{last_word(review)}</sub>"]
    blocks = [block for spec in review.specs for block in _details(spec)]
    room = BUDGET - len("\n".join([*head, *tail])) - 200
    return "\n".join([*head, *_fitting(blocks, room), *tail]) + "\n"


def _fitting(blocks: Sequence[Block], room: int) -> list[str]:
    """Return the blocks in their order, without the least important where there is no room."""
    kept = set()
    for place in sorted(range(len(blocks)), key=lambda i: blocks[i][0]):
        room -= len(blocks[place][1]) + 1
        if room >= 0:
            kept.add(place)
        else:
            room += len(blocks[place][1]) + 1
    left = len(blocks) - len(kept)
    cut = f"*{count(left, 'detail')} left out: too long for a comment. `mtf plan --base` has all.*"
    return [blocks[i][1] for i in sorted(kept)] + ([cut, ""] if left else [])


def _cost_line(review: Review) -> list[str]:
    if not any(spec.to_submit for spec in review.specs):
        return []
    return [f"One attempt of each takes at most **{cost_text(review.cost)}**.", ""]


# -- what is wrong ---------------------------------------------------------------------------------


def _verdicts(review: Review) -> list[str]:
    mistakes = [p for p in review.problems if p.is_error and not p.rule]
    broken = [p for p in review.problems if p.is_error and p.rule]
    warnings = [p for p in review.problems if not p.is_error]
    lines = []
    if mistakes:
        lines += [f"**❌ {count(len(mistakes), 'mistake')}**. What has one is not submitted"]
        lines += [*_listed(map(_problem, mistakes)), ""]
    if broken or review.over_budget:
        number = len(broken) + len(review.over_budget)
        lines += [f"**❌ Policies: {number} broken**. What breaks one is not submitted"]
        lines += _listed([*map(_problem, broken), *(_over(*one) for one in review.over_budget)])
        lines += [""]
    elif review.has_policies:
        lines += ["✅ Policies: all kept", ""]
    if review.policies:
        lines += ["**⚠️ This changes the policies**", *_listed(map(_change, review.policies)), ""]
    if review.loosened:
        lines += ["The policies of the base would refuse:"]
        lines += [*_listed(map(_problem, review.loosened)), ""]
    if warnings:
        lines += [f"**⚠️ {count(len(warnings), 'warning')}**"]
        lines += [*_listed(map(_problem, warnings)), ""]
    return lines


def _problem(problem: Problem) -> str:
    rule = f" · rule {code(problem.rule)}" if problem.rule else ""
    where = code(f"{problem.path}:{problem.line}:{problem.column}")
    return f"- {where} {code(problem.message, 400)}{rule}"


def _over(rule: str, message: str) -> str:
    return f"- all changes together: {code(message, 400)} · rule {code(rule)}"


def _listed(lines: Iterable[str]) -> list[str]:
    lines = list(lines)
    more = len(lines) - _LISTED
    return lines if more <= 0 else [*lines[:_LISTED], f"- *... and {more} more*"]


# -- what changes ----------------------------------------------------------------------------------


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
        each = code(resources_text(runs[0])) if runs else "–"
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
    anew = [s for s in found if s.change.reruns]
    how = [s for s in found if not s.change.reruns]
    lines = []
    if anew:
        lines += ["**What changes in resolved configurations**", *_listed(_summed(anew)), ""]
    if how:
        lines += ["**Executed or watched differently, nothing runs again**"]
        lines += [*_listed(_summed(how)), ""]
    return lines


def _summed(found: Sequence[Summary]) -> Iterator[str]:
    """Yield a line a change, and one for a key that changes in many ways."""
    ways = Counter(s.change.key for s in found)
    told_already = set()
    for one in found:
        key = one.change.key
        if ways[key] <= 4:
            yield f"{_change(one.change)} · {_of(one.runs, one.specs)}"
        elif key not in told_already:
            told_already.add(key)
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
    return ["**Settings (`mtf.yaml`)**", *_listed(map(_change, review.settings)), ""]


def _going_on(review: Review) -> list[str]:
    ended = [record for spec in review.specs for record in spec.giving_way]
    active = [record for spec in review.specs for record in spec.going_on]
    are, go_on = "is" if len(ended) == 1 else "are", "goes on" if len(active) == 1 else "go on"
    lines = []
    if ended:
        lines += [
            f"**⚠️ {count(len(ended), 'run')} {are} cancelled**: changed ones take their place"
            " (`on_change: cancel`)",
            *_listed(f"- {code(r.run)} is {r.state}" for r in ended),
            "",
        ]
    if active:
        lines += [
            f"**⚠️ {count(len(active), 'run')} of what is changed or removed {go_on}**"
            " until `mtf sync --prune` or `mtf cancel`",
            *_listed(f"- {code(r.run)} is {r.state}" for r in active),
            "",
        ]
    return lines


# -- details ---------------------------------------------------------------------------------------


def _details(spec: SpecReview) -> Iterator[Block]:
    runs = spec.to_submit
    name = html_code(spec.name)
    if axes := axes_of(run.now.parameters for run in runs if run.now):
        lines = [f"- {code(axis)}: {shown_values(v, code)} ({len(v)})" for axis, v in axes.items()]
        title = f"**Parameters of {code(spec.name)}** {throttle(spec)}".rstrip() + "\n"
        yield 0, "\n".join([title, *_listed(lines), ""])
    if records := spec.recorded:
        best = best_run(records)
        title = f"Results of {name} so far: {outcomes(records)}"
        title += f", best {html_code(best_text(best))}" if best else ""
        rows = [[r.label, str(r.state), best_text(r)] for r in
                sorted(records, key=rank)[:20]]  # fmt: skip
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
