"""The review of a pull request (`mtf plan --base`) as text and as JSON.

The Markdown form, `mtf.report.comments`, uses the phrases defined here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from mtf.core.review.changed_runs import summarise
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.experiments import axes_of
from mtf.core.vocabulary.records import best_run
from mtf.core.vocabulary.shown_text import visible
from mtf.report.cost_words import cost_text, resources_text
from mtf.report.parameter_axes import axis_texts
from mtf.report.problems import problem_lines
from mtf.report.runs import best_text
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mtf.core.review.changed_runs import Difference, Review, SpecReview, Summary
    from mtf.core.vocabulary.records import RunRecord

FORMAT = 1  # of the JSON
_INLINE = 8  # differences in one line
_LISTED = 40  # lines of one list
_CHANGES = (
    ("Changed values:", True),
    ("Changed execution or logging, not submitted again:", False),
)
KINDS = ("new", "changed", "done", "unchanged", "removed")


def headline(review: Review) -> str:
    """Return a summary of a review in one line, like ``4 new runs, 1 removed``."""
    new, changed = review.count("new"), review.count("changed")
    if new and changed:
        parts = [f"{new + changed:,} runs to submit ({new:,} new, {changed:,} changed)"]
    else:
        parts = [count(new, "new run")] if new else []
        parts += [count(changed, "changed run")] if changed else []
    parts += [f"{done:,} done already"] if (done := review.count("done")) else []
    parts += [f"{removed:,} removed"] if (removed := review.count("removed")) else []
    return ", ".join(parts) or ("no changes" if review.is_empty else "no new runs")


def footnote(review: Review) -> str:
    """Return the footnote of a comment: the two commits, and what the numbers mean."""
    others = f"{count(review.untouched, 'other spec file')} unchanged. " if review.untouched else ""
    return (
        f"{others}Plan for {review.head[:8]}, compared with {review.base[:8]}. Nothing has been"
        " submitted: mtf sync does that after the merge. Hours are upper bounds for one attempt of"
        " each run."
    )


def kinds_of(specs: Iterable[SpecReview]) -> list[str]:
    """Return the kinds of runs that occur in these specs."""
    specs = list(specs)
    return [kind for kind in KINDS if any(getattr(spec, kind) for spec in specs)]


def outcomes(records: Iterable[RunRecord]) -> str:
    """Return the number of runs in each state, like ``3 completed, 1 failed``."""
    counts = Counter(str(r.state) for r in records)
    return ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))


def throttle(spec: SpecReview) -> str:
    """Return the limit on runs of a grid that are submitted at a time, "" without one."""
    return f"(at most {spec.max_parallel} at a time)" if spec.max_parallel else ""


def differences_text(differences: Sequence[Difference]) -> str:
    """Return up to eight changes in one line, and the number of further ones."""
    return ", ".join(map(difference_text, differences[:_INLINE])) + (
        f", and {len(differences) - _INLINE} more" if len(differences) > _INLINE else ""
    )


def difference_text(difference: Difference) -> str:
    """Return a change like ``optimizer.lr 0.001 -> 0.01``."""
    old, new = ("unset" if v is None else visible(v, 60) for v in (difference.old, difference.new))
    return f"{visible(difference.key)} {old} -> {new}"


# -- text ------------------------------------------------------------------------------------------


def review_text(review: Review) -> str:
    """Return a review for a terminal: a block for each spec, mistakes, the summary last."""
    lines: list[str] = []
    for spec in review.specs:
        if not spec.is_same:
            lines += [*_block(spec), ""]
    found = summarise(review.specs)
    for title, reruns in _CHANGES:
        if shown := [s for s in found if s.change.reruns is reruns]:
            lines += [title, *map(_summary_text, shown[:_LISTED])]
            lines += [*_more(len(shown) - _LISTED), ""]
    for title, changes in (("mtf.yaml:", review.settings), ("Policies:", review.policies)):
        if changes:
            lines += [title, *(f"  ~ {difference_text(d)}" for d in changes), ""]
    if review.templates:
        lines += [*_script_text(review), ""]
    lines += [f"note: the base's policies would refuse: {problem}" for problem in review.loosened]
    lines += problem_lines(review.problems)
    lines += [f"error: all changes together: {m} [{rule}]" for rule, m in review.over_budget]
    return "\n".join([*lines, _summary_line(review)])


def no_script_change(review: Review) -> str:
    """Return the reason why no change of a script is shown although templates change."""
    if any(p.path in review.templates and not p.rule for p in review.problems):
        return "their scripts cannot be rendered, see the mistakes"
    return "no job script of a spec changes"


def _script_text(review: Review) -> Iterator[str]:
    change = review.scripts
    names = ", ".join(map(visible, review.templates))
    if change is None:
        yield f"Templates ({names}): {no_script_change(review)}"
        return
    specs = count(change.specs, "spec")
    yield f"Templates ({names}) change the job scripts of {specs}. The script of {change.run}:"
    yield from (f"    {visible(line, 500)}" for line in change.lines)


def _summary_line(review: Review) -> str:
    cost = f", at most {cost_text(review.cost)}" if any(s.to_submit for s in review.specs) else ""
    return f"{review.base[:8]}..{review.head[:8]}: {headline(review)}{cost}."


def _block(spec: SpecReview) -> Iterator[str]:
    yield f"{spec.name}  {visible(spec.path)}"
    runs = [run.now for run in spec.to_submit if run.now]
    for kind, symbol in (("new", "+"), ("changed", "~")):
        if number := len(getattr(spec, kind)):
            yield f"  {symbol} {count(number, f'{kind} run')}"
    if runs:
        yield f"      each {resources_text(runs[0].resources, spec.demand_of)}"
        for axis in axis_texts(run.parameters for run in runs):
            yield f"      {axis.line()}"
        yield f"      at most {cost_text(spec.cost)} {throttle(spec)}".rstrip()
    if spec.unchanged:
        yield f"  = {len(spec.unchanged)} unchanged"
    if spec.done:
        yield f"  = {len(spec.done)} done already, not submitted again"
    if spec.recorded:
        best = best_run(spec.recorded)
        top = f", best {best_text(best)} ({best.label})" if best else ""
        yield f"      so far: {outcomes(spec.recorded)}{top}"
    if spec.removed:
        yield f"  - {len(spec.removed)} removed"
    yield from _fates(spec.giving_way, "will be cancelled (on_change: cancel)")
    yield from _fates(spec.going_on, "continues until mtf sync --prune")


def _fates(records: Sequence[RunRecord], fate: str) -> Iterator[str]:
    for record in records[:10]:
        yield f"  ! {record.run} is {record.state} and {fate}"
    yield from _more(len(records) - 10)


def _more(number: int) -> list[str]:
    return [f"  ... and {number} more (--format json)"] if number > 0 else []


def _summary_text(change: Summary) -> str:
    specs = ", ".join(change.specs[:3]) + (", ..." if len(change.specs) > 3 else "")
    return f"  ~ {difference_text(change.change)} ({count(change.runs, 'run')} of {specs})"


# -- JSON ------------------------------------------------------------------------------------------


def review_json(review: Review) -> str:
    """Return a review as JSON; docs/review.md fixes its keys."""
    return json_text.dumps(review_value(review), indent=2, ensure_ascii=False)


def review_value(review: Review) -> dict[str, Any]:
    """Return a review as JSON values."""
    specs = [_spec_json(spec) for spec in review.specs]
    return {
        "format": FORMAT,
        "head": review.head,
        "base": review.base,
        "actions": [
            {"action": "submit", "experiment": n, "run": None, "reason": f"{kind} in {s['path']}"}
            for s in specs
            for kind in ("new", "changed")
            for n in s[kind]
        ],
        "totals": {kind: review.count(kind) for kind in KINDS} | asdict(review.cost),
        "specs": specs,
        "differences": [
            {**vars(s.change), "reruns": s.change.reruns, "runs": s.runs, "specs": s.specs}
            for s in summarise(review.specs)
        ],
        "settings": [vars(d) for d in review.settings],
        "policies": [vars(d) for d in review.policies],
        "problems": [p._asdict() for p in review.problems],
        "over_budget": [{"rule": r, "message": m} for r, m in review.over_budget],
        "loosened": [p._asdict() for p in review.loosened],
        "templates": review.templates,
        "scripts": asdict(review.scripts) if review.scripts else None,
        "untouched": review.untouched,
    }


def _spec_json(spec: SpecReview) -> dict[str, Any]:
    runs = [run.now for run in spec.to_submit if run.now]
    best = best_run(spec.recorded)
    return {
        "name": spec.name,
        "path": spec.path,
        "path_before": spec.path_before,
        **{kind: [run.name for run in getattr(spec, kind)] for kind in KINDS},
        "parameters": axes_of(e.parameters for e in runs),
        "max_parallel": spec.max_parallel,
        "resources": runs[0].resources if runs else None,
        **asdict(spec.cost),
        "states": Counter(str(r.state) for r in spec.recorded),
        "best": {"run": best.run, **vars(best.best)} if best and best.best else None,
        "going_on": [r.run for r in spec.going_on],
        "giving_way": [r.run for r in spec.giving_way],
    }
