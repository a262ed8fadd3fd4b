"""Runs as people read them: the status table, one run's page, a grid's results."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtf.core.records import best_run
from mtf.core.states import RunState
from mtf.report.tables import Columns, count

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mtf.core.records import RunRecord


def status_table(records: Sequence[RunRecord], now: datetime, *, wide: bool = False) -> Columns:
    """Return one row a run, in the order given."""
    headings = ["RUN", "STATE", "SYNC", "JOB", "EPOCH", "BEST", "CHECKPOINT", "REASON"]
    rows = [_row(r, now, wide=wide) for r in records]
    if wide:
        headings[1:1] = ["EXECUTOR", "COMMIT", "ATTEMPTS", "SUBMITTED", "FINISHED"]
    return Columns(headings, rows)


def _row(record: RunRecord, now: datetime, *, wide: bool) -> list[str]:
    cells = [
        record.run if wide else record.label,
        str(record.state),
        str(record.sync),
        record.job_id or "-",
        _epochs(record),
        best_text(record),
        _checkpoint(record, wide=wide),
        record.reason.splitlines()[0][: 200 if wide else 60] if record.reason else "",
    ]
    if wide:
        cells[1:1] = [
            record.executor,
            record.commit[:8],
            str(len(record.attempts)),
            _ago(record.submitted_at, now),
            _ago(record.finished_at, now),
        ]
    return cells


def _epochs(record: RunRecord) -> str:
    if record.epoch is None:
        return "-"
    return f"{record.epoch}/{record.max_epochs}" if record.max_epochs else str(record.epoch)


def best_text(record: RunRecord) -> str:
    """Return the best value of the monitored metric, "-" while there is none."""
    return f"{record.best.name} {record.best.value:.4g}" if record.best else "-"


def _checkpoint(record: RunRecord, *, wide: bool) -> str:
    if record.checkpoint is None:
        return "-"
    name = record.checkpoint.path if wide else record.checkpoint.path.rsplit("/", 1)[-1]
    return f"{name} {record.checkpoint.sha256[:8]}"


def _ago(at: str | None, now: datetime) -> str:
    if at is None:
        return "-"
    seconds = int((now - datetime.fromisoformat(at).astimezone(UTC)).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{max(seconds, 0)} s ago"


def summary(records: Iterable[RunRecord]) -> str:
    """Return one line: how many runs in which state, and the best of them."""
    records = list(records)
    counts = Counter(r.state for r in records)
    words = [f"{counts[state]} {state}" for state in RunState if counts[state]]
    best = best_run(records)
    top = f" · best {best_text(best)} ({best.label})" if best else ""
    return f"{count(len(records), 'run')}: {', '.join(words) or 'none'}{top}"


def run_page(record: RunRecord, config: str, history: Sequence[str]) -> str:
    """Return all that is known of one run."""
    checkpoint = record.checkpoint
    facts = {
        "run": record.run,
        "state": f"{record.state}{f' ({record.reason})' if record.reason else ''}",
        "sync": str(record.sync),
        "branch": record.branch,
        "commit": record.commit,
        "spec": record.spec,
        "executor": f"{record.executor} (cluster {record.cluster})",
        "folder": record.run_dir,
        "progress": f"epoch {_epochs(record)}, step {record.step if record.step else '-'}",
        "best": best_text(record),
        "checkpoint": f"{checkpoint.path} ({checkpoint.bytes} bytes, sha256 {checkpoint.sha256})"
        if checkpoint
        else "-",
        "key": record.key,
    }
    lines = [f"{name:<11}{value}" for name, value in facts.items()]
    lines += [f"{'metrics':<11}" + ", ".join(f"{k} {v:.4g}" for k, v in record.metrics.items())]
    lines += ["", "attempts"]
    for number, a in enumerate(record.attempts, 1):
        ended = f"{a.outcome} {a.reason}".strip() if a.outcome else "not over"
        span = f"{a.started_at or 'not started'} .. {a.ended_at or ''}"
        lines.append(f"  {number}  job {a.job_id or '-'}  {span}  {ended}")
    lines += ["", "history (git log mtf/ledger)", *(f"  {h}" for h in history)]
    lines += ["", "configuration", *(f"  {line}" for line in config.splitlines())]
    return "\n".join(lines)


def results_table(records: Sequence[RunRecord]) -> Columns:
    """Return one row a run, in the order given, with its parameters and metrics."""
    parameters = list(dict.fromkeys(p for r in records for p in r.parameters))
    metrics = list(dict.fromkeys(m for r in records for m in r.metrics))
    rows = [
        [
            r.label,
            str(r.state),
            best_text(r),
            *(str(r.parameters.get(p, "")) for p in parameters),
            *(f"{r.metrics[m]:.6g}" if m in r.metrics else "" for m in metrics),
        ]
        for r in records
    ]
    return Columns(["RUN", "STATE", "BEST", *parameters, *metrics], rows)


def rank(record: RunRecord) -> tuple[int, float]:
    """Return a sort key that puts the best run first and those without a value last."""
    if record.best is None:
        return 1, 0.0
    return 0, record.best.value if record.best.mode == "min" else -record.best.value
