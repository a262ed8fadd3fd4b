"""Runs as text: the status table, the page of one run, the results of a grid."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mtf.core.planner.grids.holds import canary_text
from mtf.core.vocabulary.causes import ENDS, Cause
from mtf.core.vocabulary.json_text import number_text
from mtf.core.vocabulary.records import best_run
from mtf.core.vocabulary.states import RunState
from mtf.core.vocabulary.times import duration
from mtf.report.cost_words import used_columns, used_text
from mtf.report.tables import Columns, count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from mtf.core.planner.journal_reader import Progress, Start
    from mtf.core.planner.rows.run_rows import Row
    from mtf.core.vocabulary.ids import RunId
    from mtf.core.vocabulary.records import RunRecord


def status_table(
    records: Sequence[RunRecord],
    now: datetime,
    *,
    wide: bool = False,
    old: Mapping[RunId, str] | None = None,
) -> Columns:
    """Return one row for each run, in the order given.

    ``wide`` adds columns and shortens nothing. ``old`` has the times of the states of active runs
    that could not be seen as of now.
    """
    monitored = {r.best.name for r in records if r.best}
    metric = monitored.pop() if len(monitored) == 1 else None  # then named in the heading
    columns = _wide_columns(now) if wide else {"RUN": lambda r: r.label}
    columns |= {
        **({"CLUSTER": lambda r: r.cluster} if len({r.cluster for r in records}) > 1 else {}),
        "STATE": lambda r: str(r.state),
        "CAUSE": lambda r: (r.cause or "-") if r.cause != Cause.COMPLETED else "-",
        "KIND": lambda r: kind_text(r) or "-",
        "SYNC": lambda r: str(r.sync),
        "JOB": lambda r: r.job_id or "-",
        "EPOCH": _epochs,
        (metric or "best").upper(): lambda r: best_text(r, named=metric is None),
        "CHECKPOINT": _checkpoint_wide if wide else _checkpoint,
    }
    if not any(map(kind_text, records)):
        del columns["KIND"]
    if all(r.cause in (None, Cause.COMPLETED) for r in records):
        del columns["CAUSE"]
    if old:
        columns["AS OF"] = lambda r: _ago(old.get(r.run), now)
    if any(map(_reason, records)):
        columns["REASON"] = lambda r: _first_line(_reason(r), 500 if wide else 60)
    rows = [[cell(record) for cell in columns.values()] for record in records]
    return Columns(list(columns), rows)


def kind_text(record: RunRecord) -> str:
    """Return the kinds of a run that no committed spec asks for: a snapshot, a trial, ..."""
    kinds = {
        "snapshot": record.snapshot_of,
        "trial": record.trial,
        "reproduction": record.reproduces,
    }
    return ", ".join(kind for kind, is_so in kinds.items() if is_so)


def _wide_columns(now: datetime) -> dict[str, Callable[[RunRecord], str]]:
    return {
        "RUN": lambda r: r.run,
        "EXECUTOR": lambda r: r.executor,
        "COMMIT": lambda r: r.commit[:8],
        "ATTEMPTS": lambda r: str(len(r.attempts)),
        "SUBMITTED": lambda r: _ago(r.submitted_at, now),
        "FINISHED": lambda r: _ago(r.finished_at, now),
    }


def _reason(record: RunRecord) -> str:
    """Return the reason of a run's state, and for a canary what it means for the others."""
    return "; ".join(text for text in (canary_text(record), record.reason) if text)


def _first_line(text: str, most: int) -> str:
    line = text.splitlines()[0] if text else ""
    return line if len(line) <= most else f"{line[: most - 3]}..."


def _epochs(record: RunRecord) -> str:
    if record.epoch is None:
        return "-"
    return f"{record.epoch}/{record.max_epochs}" if record.max_epochs else str(record.epoch)


def best_text(record: RunRecord, *, named: bool = True) -> str:
    """Return the best value of the monitored metric, "-" if there is none yet."""
    if record.best is None:
        return "-"
    value = number_text(record.best.value, ".4g")
    return f"{record.best.name} {value}" if named else value


def _best(record: RunRecord) -> str:
    saved = record.best_checkpoint
    return f"{best_text(record)} ({saved.path})" if saved else best_text(record)


def _checkpoint(record: RunRecord) -> str:
    return f"step {record.checkpoint.step}" if record.checkpoint else "-"


def _checkpoint_wide(record: RunRecord) -> str:
    checkpoint = record.checkpoint
    return f"{checkpoint.path} sha256:{checkpoint.sha256[:8]}" if checkpoint else "-"


def _ago(at: str | None, now: datetime) -> str:
    if at is None:
        return "-"
    seconds = int((now - datetime.fromisoformat(at).astimezone(UTC)).total_seconds())
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{max(seconds, 0)} s ago"


def summary(records: Iterable[RunRecord]) -> str:
    """Return one line: the number of runs in each state, and the best run."""
    records = list(records)
    counts = Counter(r.state for r in records)
    states = [f"{counts[state]} {state}" for state in RunState if counts[state]]
    best = best_run(r for r in records if not r.trial)
    top = f" · best {best_text(best)} ({best.label})" if best else ""
    return f"{count(len(records), 'run')}: {', '.join(states) or 'none'}{top}"


def times_of_old(rows: Iterable[Row]) -> dict[RunId, str]:
    """Return the times of the states of active runs that could not be seen as of now."""
    return {r.record.run: r.as_of for r in rows if not r.live and not r.record.is_over}


def run_page(
    row: Row,
    config: str,
    history: Sequence[str],
    progress: Progress | None = None,
    *,
    why_old: str = "",
    starts: Mapping[str, Sequence[Start]] | None = None,
) -> str:
    """Return everything that is known of one run.

    Args:
        row: the run.
        config: its resolved configuration.
        history: the ledger's commits that changed it, newest first.
        progress: its journal's.
        why_old: why its state is not that of now.
        starts: of each attempt's jobs, by token.
    """
    record = row.record
    checkpoint = record.checkpoint
    facts = {
        "run": record.run,
        "state": f"{record.state}{f' ({why})' if (why := _reason(record)) else ''}",
        "cause": _cause(record),
        "as of": _as_of(row, why_old),
        "sync": str(record.sync),
        "branch": record.branch,
        "commit": record.commit,
        "snapshot": f"of the work tree on {record.snapshot_of}: uncommitted, nobody has reviewed it"
        if record.snapshot_of
        else "",
        "trial": "a few steps (mtf run --fast), no result" if record.trial else "",
        "reproduces": record.reproduces or "",
        "spec": record.spec,
        "executor": f"{record.executor} (cluster {record.cluster})",
        "folder": record.run_dir,
        "progress": f"epoch {_epochs(record)}, step {record.step if record.step else '-'}"
        f"{_pace(record, progress)}",
        "best": _best(record),
        "checkpoint": f"{checkpoint.path} ({checkpoint.bytes} bytes, sha256 {checkpoint.sha256})"
        if checkpoint
        else "-",
        "init from": f"{origin.run}, step {origin.step} ({origin.path}, sha256 {origin.sha256})"
        if (origin := record.origin)
        else "",
        "superseded": f"by {record.superseded_by}" if record.superseded_by else "",
        "key": record.key,
    }
    lines = [f"{name:<11}{value}" for name, value in facts.items() if value]
    metrics = ", ".join(f"{k} {number_text(v, '.4g')}" for k, v in record.metrics.items())
    lines.append(f"{'metrics':<11}{metrics or '-'}")
    lines += ["", "attempts"]
    for number, a in enumerate(record.attempts, 1):
        ended = f"{a.outcome} {a.reason}".strip() if a.outcome else "active"
        span = f"{a.started_at or 'not started'} .. {a.ended_at or ''}"
        changes = "".join(f"  {key}={value}" for key, value in a.changes.items())
        lines.append(f"  {number}  job {a.job_id or '-'}  {span}  {ended}{changes}")
        lines += [f"       {line}" for line in start_lines((starts or {}).get(a.token, ()))]
        lines += [f"     {used_text(a.resources)}"] if a.resources else []
    lines += ["", "history (git log mtf/ledger)", *(f"  {h}" for h in history)]
    lines += ["", "configuration", *(f"  {line}" for line in config.splitlines())]
    return "\n".join(lines)


def _cause(record: RunRecord) -> str:
    """Return the cause of the newest attempt's end, and advice if mtf will not continue it."""
    if record.cause in (None, Cause.COMPLETED):
        return ""
    advice = next((end.advice for c, end in ENDS.items() if c == record.cause), "")
    advice = advice if record.is_over else ""
    return f"{record.cause}{f' ({advice})' if advice else ''}"


def start_lines(starts: Sequence[Start]) -> list[str]:
    """Return a line for each start of an attempt that SLURM requeued, none if it had one start."""
    if len(starts) < 2:
        return []
    ends = {s: f"preempted ({s})" for s in ("SIGTERM", "SIGCONT")}
    ends |= {"SIGUSR1": "requeued before its time limit (SIGUSR1)"}
    lines = []
    for number, start in enumerate(starts, 1):
        last = number == len(starts)
        how = ends.get(start.stopped or "", "") or (
            f"stopped ({start.stopped})" if start.stopped else ""
        )
        how = how or (
            "" if last else "requeued without a signal: its node failed, or it was killed"
        )
        span = f"{start.at or '?'} .. {'' if last and not start.stopped else start.last_at or ''}"
        lines.append(f"start {number}  {span}  step {start.step or 0}  {how}".rstrip())
    return lines


def _as_of(row: Row, why_old: str) -> str:
    """Return the time of an active run's state, and whom it is from."""
    if row.record.is_over:
        return ""
    if row.live:
        return f"{row.as_of} (asked {row.record.executor})"
    return f"{row.as_of} ({why_old or 'as recorded'})"


def _pace(record: RunRecord, progress: Progress | None) -> str:
    if progress is None or record.state is not RunState.RUNNING:
        return ""
    if progress.steps_per_s is None or progress.eta_s is None:
        return ""
    left = duration(progress.eta_s)
    return f" of {progress.total_steps}, {progress.steps_per_s:.3g} steps/s, about {left} left"


def progress_lines(events: Iterable[Mapping[str, Any]], max_epochs: int | None) -> list[str]:
    """Return lines about the progress of a training, for its journal's events.

    Of events that tell the progress within an epoch, the newest is enough.
    """
    lines: list[str] = []
    within = ""
    for event in events:
        epoch, step = event.get("epoch"), event.get("step")
        of = f"/{max_epochs}" if max_epochs else ""
        match event.get("event"):
            case "started":
                again = f", from step {step}" if step else ""
                lines.append(f"started  on {event.get('host')}{again}")
            case "progress":
                total = f" of {event['total_steps']}" if event.get("total_steps") else ""
                within = f"train    step {step}{total}"
            case "metrics":
                values = event.get("metrics") or {}
                shown = (f"{k} {number_text(v, '.4g')}" for k, v in values.items())
                lines.append(f"epoch    {epoch}{of}, step {step}: {', '.join(shown)}")
                within = ""
            case _:
                pass
    return [*lines, within] if within else lines


def results_table(records: Sequence[RunRecord]) -> Columns:
    """Return one row for each run, in the order given, with its parameters and metrics."""
    parameters = list(dict.fromkeys(p for r in records for p in r.parameters))
    metrics = list(dict.fromkeys(m for r in records for m in r.metrics))
    used = used_columns(records)
    rows = [
        [
            r.label,
            str(r.state),
            best_text(r),
            *(str(r.parameters.get(p, "")) for p in parameters),
            *(number_text(r.metrics[m], ".6g") if m in r.metrics else "" for m in metrics),
            *(cell(r) for cell in used.values()),
        ]
        for r in records
    ]
    return Columns(["RUN", "STATE", "BEST", *parameters, *metrics, *used], rows)


def rank(record: RunRecord) -> tuple[int, float]:
    """Return a sort key that puts the best run first and runs without a value last."""
    if record.best is None:
        return 1, 0.0
    return 0, record.best.value if record.best.mode == "min" else -record.best.value
