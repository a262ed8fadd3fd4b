"""The comparison of two runs, specs or revisions (`mtf diff`), as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.json_text import number_text
from mtf.core.vocabulary.shown_text import visible
from mtf.report.reviews import difference_text, review_text, review_value
from mtf.report.runs import best_text
from mtf.report.tables import Columns, count, render_plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mtf.core.review.changed_runs import Review
    from mtf.core.review.compare_runs import Comparison, Side, Subject
    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.wire import FileChange

_LISTED = 60  # lines of one list


def contrast_text(contrast: Comparison, files: Sequence[FileChange] | None) -> str:
    """Return the differences of two runs or specs as text.

    Its sections are configuration, code, environment and metrics.
    """
    a, b = contrast.a, contrast.b
    lines = [f"A  {_titled(a)}", f"B  {_titled(b)}", "", *_configuration(contrast), ""]
    lines += [*_code(a.commit, b.commit, files), ""]
    if any(s.record for s in (*a.subjects, *b.subjects)):
        lines += [*_environment(contrast), "", *_metrics(contrast)]
    return "\n".join(lines).rstrip()


def revisions_text(review: Review, files: Sequence[FileChange] | None) -> str:
    """Return the differences of two revisions as text: the code, and the runs they ask for."""
    return "\n".join([*_code(review.base, review.head, files), "", review_text(review)])


def revisions_json(review: Review, files: Sequence[FileChange] | None) -> str:
    """Return the differences of two revisions as JSON: a review with ``code``."""
    value = {**review_value(review), "code": _files_json(files)}
    return json_text.dumps(value, indent=2, ensure_ascii=False)


def _titled(side: Side) -> str:
    if len(side.subjects) > 1:
        return f"{side.title}  {len(side.subjects)} runs"
    record = side.subjects[0].record
    return f"{side.title}  {record.state}" if record else f"{side.title}  {side.subjects[0].label}"


def _configuration(contrast: Comparison) -> Iterator[str]:
    pairs = len(contrast.pairs)
    yield "configuration" + (f" ({pairs} pairs of equal parameters)" if pairs > 1 else "")
    if not contrast.configuration:
        yield "  the same"
    for tally in contrast.configuration[:_LISTED]:
        number = f" ({tally.pairs} of {pairs} pairs)" if pairs > 1 else ""
        neutral = "" if tally.change.reruns else "   (does not affect the result)"
        yield f"  ~ {difference_text(tally.change)}{number}{neutral}"
    yield from _more(len(contrast.configuration))
    for letter, symbol, only in (("A", "-", contrast.only_a), ("B", "+", contrast.only_b)):
        yield from (f"  {symbol} only in {letter}: {s.label}" for s in only[:_LISTED])
        yield from _more(len(only))


def _more(number: int) -> list[str]:
    return [f"  ... and {number - _LISTED} more (--json)"] if number > _LISTED else []


def _code(old: CommitId, new: CommitId, files: Sequence[FileChange] | None) -> list[str]:
    """Return the files that differ between two commits, like ``git diff --stat``."""
    span = f"code {old[:8]}..{new[:8]}"
    if files is None:
        return [f"{span}: unknown, a commit is missing from this clone (is it shallow?)"]
    if not files:
        return [f"{span}: the same"]
    added, deleted = (sum(getattr(f, side) or 0 for f in files) for side in ("added", "deleted"))
    lines = [f"{span}: {count(len(files), 'file')}, +{added} -{deleted}"]
    width = min(max(len(visible(f.path)) for f in files), 60)
    lines += [f"  {f.status} {visible(f.path):<{width}}  {_size(f)}" for f in files[:_LISTED]]
    return [*lines, *_more(len(files))]


def _size(file: FileChange) -> str:
    if file.submodule is not None:
        return "submodule {} -> {}".format(*(oid[:8] for oid in file.submodule))
    return "binary" if file.added is None else f"+{file.added} -{file.deleted}"


def _environment(contrast: Comparison) -> Iterator[str]:
    changed = contrast.packages
    if contrast.same_environment:
        yield "environment: the same packages"
    elif changed:
        yield f"environment: {count(len(changed), 'package')} changed"
        yield from (f"  ~ {difference_text(d)}" for d in changed[:_LISTED])
        yield from _more(len(changed))
    elif contrast.same_environment is None:
        yield "environment: not recorded for both (jobs record it when they start)"
    else:
        yield "environment: packages differ; listing them needs both run folders, one is not here"


def _metrics(contrast: Comparison) -> Iterator[str]:
    pairs = [(a, b) for a, b in contrast.pairs if a.record or b.record]
    if len(pairs) == 1:
        rows = [
            [name, _number(a), _number(b), _number(None if a is None or b is None else b - a)]
            for name, a, b in _values(*pairs[0])
        ]
        heads = ["METRIC", "A", "B", "B - A"]
    else:
        rows = [[a.label, *(_best(s) for s in (a, b))] for a, b in pairs[:_LISTED]]
        heads = ["RUN", "BEST OF A", "BEST OF B"]
    if rows:
        yield "metrics"
        yield from (f"  {line}" for line in render_plain(Columns(heads, rows)).split("\n"))
        yield from _more(len(pairs))


def _best(subject: Subject) -> str:
    return best_text(subject.record) if subject.record else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else number_text(value, ".6g")


def _values(a: Subject, b: Subject) -> Iterator[tuple[str, float | None, float | None]]:
    """Yield each metric of a pair with its two values, the monitored one's best last."""
    of_a, of_b = ((s.record.metrics if s.record else {}) for s in (a, b))
    for name in dict.fromkeys((*of_a, *of_b)):
        yield name, of_a.get(name), of_b.get(name)
    best_a, best_b = (s.record.best if s.record else None for s in (a, b))
    if monitored := best_a or best_b:
        value_a, value_b = (best.value if best else None for best in (best_a, best_b))
        yield f"best {monitored.name}", value_a, value_b


# -- JSON ------------------------------------------------------------------------------------------


def contrast_json(contrast: Comparison, files: Sequence[FileChange] | None) -> str:
    """Return the differences of two runs or specs as JSON; docs/review.md fixes its keys."""
    value = {
        "format": 1,
        "a": _side_json(contrast.a),
        "b": _side_json(contrast.b),
        "configuration": [
            {**vars(tally.change), "reruns": tally.change.reruns, "pairs": tally.pairs}
            for tally in contrast.configuration
        ],
        "only_a": [s.label for s in contrast.only_a],
        "only_b": [s.label for s in contrast.only_b],
        "code": _files_json(files),
        "environment": {
            "same": contrast.same_environment,
            "packages": [vars(d) for d in contrast.packages],
        },
        "metrics": [
            {"run": a.label, "metric": name, "a": value_a, "b": value_b}
            for a, b in contrast.pairs
            for name, value_a, value_b in _values(a, b)
        ],
    }
    return json_text.dumps(value, indent=2, ensure_ascii=False)


def _side_json(side: Side) -> dict[str, Any]:
    runs = [{"label": s.label, "run": s.record.run if s.record else None} for s in side.subjects]
    return {"title": side.title, "commit": side.commit, "runs": runs}


def _files_json(files: Sequence[FileChange] | None) -> list[dict[str, Any]] | None:
    return None if files is None else [vars(file) for file in files]
