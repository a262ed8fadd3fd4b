"""Folds a run's journal into its progress. Pure; unknown events and wrong fields are ignored.

What a progress holds can be recorded: the ledger's reader accepts it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from mtf.core.usage.used import reported
from mtf.core.vocabulary.ids import is_inside, is_sha256
from mtf.core.vocabulary.numbers import is_count, is_number
from mtf.core.vocabulary.records import Best, Checkpoint
from mtf.core.vocabulary.times import is_time

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtf.core.vocabulary.records import RunRecord


@dataclass(frozen=True)
class Start:
    """One start of a job: SLURM starts a job again under its id when it has requeued it."""

    at: str | None
    step: int | None = None  # that it has reached
    stopped: str | None = None  # the signal at which it stopped
    last_at: str | None = None  # of its last event


@dataclass(frozen=True)
class Progress:
    """The progress of a run, from its journal. None: not in the journal yet."""

    first_started_at: str | None = None
    started_at: str | None = None  # of the newest start
    job_id: str | None = None  # of the newest start
    token: str | None = None
    starts: int = 0
    attempt_starts: int = 0  # of the newest attempt
    idle_starts: int = 0  # of the newest attempt, since its last checkpoint with a higher step
    epoch: int | None = None
    max_epochs: int | None = None
    step: int | None = None
    total_steps: int | None = None
    steps_per_s: float | None = None  # of the newest start
    eta_s: float | None = None  # expected until its end
    checkpoint: Checkpoint | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: Best | None = None
    best_checkpoint: Checkpoint | None = None
    packages: str | None = None
    stopped: str | None = None  # the signal at which the newest start stopped
    stopped_before: str | None = None  # ... and that of the start before it
    failed: str | None = None  # the newest start's error
    refused: str | None = None
    noted: str | None = None  # why a complete training ended early
    unsaved: str | None = None  # why the newest checkpoint could not be saved
    finished_at: str | None = None
    last_at: str | None = None
    used: Mapping[str, float] = field(default_factory=dict)  # by the newest attempt


def fold(events: Iterable[Mapping[str, Any]], run_dir: str) -> Progress:
    """Return the progress that the events, in journal order, add up to.

    Args:
        events: as ``mtf.rundir.read_journal`` returns them.
        run_dir: the run folder, to which checkpoint paths are relative.
    """
    kept = tuple(events)
    progress = _folded(kept, run_dir)
    reports = [event for event in kept if event["event"] == "resources"]
    return replace(progress, used=reported(reports, progress.token)) if reports else progress


def _folded(events: Iterable[Mapping[str, Any]], run_dir: str) -> Progress:
    """Return the progress without the resources that were used."""
    seen: dict[str, Any] = {}
    monitor: tuple[str, str] | None = None
    starts = own = idle = 0
    for event in map(_without_wrong_fields, events):
        seen["last_at"] = event.get("at") or seen.get("last_at")
        match event["event"]:
            case "started":
                starts += 1
                is_again = event.get("token") == seen.get("token")
                own, idle = (own + 1, idle + 1) if is_again else (1, 1)
                seen["stopped_before"] = seen.get("stopped")
                monitor = _monitor(event) or monitor
                seen |= {"stopped": None, "failed": None, "refused": None, "unsaved": None}
                seen |= {"steps_per_s": None, "eta_s": None}
                seen.setdefault("first_started_at", event.get("at"))
                seen["started_at"] = event.get("at")
                seen |= _some(event, "job_id", "token", "max_epochs", "epoch", "step")
            case "proof":
                seen["packages"] = event.get("packages_sha256")
            case "progress":
                seen |= _some(event, "epoch", "step", "total_steps", "steps_per_s", "eta_s")
            case "metrics":
                seen |= _some(event, "epoch", "step")
                seen["metrics"] = {**seen.get("metrics", {}), **_numbers(event.get("metrics"))}
                seen["best"] = _best(seen.get("best"), event, monitor)
            case "checkpoint":
                saved = _checkpoint(event, run_dir)
                idle = idle if _is_no_progress(seen.get("checkpoint"), saved) else 0
                seen |= _saved(saved, seen.get("best"))
            case "unsaved":
                seen["unsaved"] = str(event.get("reason", "for no reason given"))
            case "stopped" | "failed" | "refused" | "noted" as kind:
                # of several ranks, the first to fail has the reason; the others fail since it did
                seen[kind] = seen.get(kind) or str(event.get("reason", kind))
            case "finished":
                seen |= _some(event, "epoch", "step")
                seen["metrics"] = {**seen.get("metrics", {}), **_numbers(event.get("metrics"))}
                seen["finished_at"] = event.get("at")
            case _:  # an event of a later version
                pass
    return Progress(starts=starts, attempt_starts=own, idle_starts=idle, **seen)


def starts_by_attempt(events: Iterable[Mapping[str, Any]]) -> dict[str, list[Start]]:
    """Return the starts of each attempt, by its token."""
    starts: dict[str, list[Start]] = {}
    token = None
    for event in map(_without_wrong_fields, events):
        if event["event"] == "started":
            token = str(event.get("token"))
        _note_start(starts, event, token)
    return starts


def _note_start(
    history: dict[str, list[Start]], event: Mapping[str, Any], token: str | None
) -> None:
    """Add a start to those of its attempt, or what an event says of the newest start."""
    at = event.get("at")
    if event["event"] == "started":
        starts = history.setdefault(str(token), [])
        starts.append(Start(at, event.get("step"), last_at=at))
    elif starts := history.get(str(token), []):
        is_stop = event["event"] == "stopped"
        starts[-1] = replace(
            starts[-1],
            last_at=at or starts[-1].last_at,
            step=event.get("step", starts[-1].step),
            stopped=str(event.get("reason")) if is_stop else starts[-1].stopped,
        )


_COUNTS = ("epoch", "step", "total_steps", "max_epochs", "bytes")
_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("at", "token", "job_id", "monitor", "mode", "reason", "path"), str),
    **dict.fromkeys(("sha256", "packages_sha256"), str),
    **dict.fromkeys(("steps_per_s", "eta_s"), float),
}


def _without_wrong_fields(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an event without the fields of a wrong type."""
    sound = {k: v for k, v in event.items() if isinstance(v, _TYPES.get(k, object))}
    for name in _COUNTS:
        if name in sound and not is_count(sound[name]):
            del sound[name]
    if not is_time(str(sound.get("at"))):
        sound.pop("at", None)
    return sound


def _some(event: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: event[name] for name in names if event.get(name) is not None}


def _monitor(event: Mapping[str, Any]) -> tuple[str, str] | None:
    name = event.get("monitor")
    return (str(name), "max" if event.get("mode") == "max" else "min") if name else None


def _numbers(metrics: object) -> dict[str, float]:
    if not isinstance(metrics, dict):
        return {}
    return {str(k): v for k, v in metrics.items() if is_number(v)}


def _best(
    best: Best | None, event: Mapping[str, Any], monitor: tuple[str, str] | None
) -> Best | None:
    if monitor is None:
        return best
    name, mode = monitor
    value = _numbers(event.get("metrics")).get(name)
    if value is None or value != value:  # NaN is never the best  # noqa: PLR0124
        return best
    if best is not None and (value <= best.value if mode == "max" else value >= best.value):
        return best
    return Best(name, value, int(event.get("epoch") or 0), int(event.get("step") or 0), mode)


def _is_no_progress(old: Checkpoint | None, new: Checkpoint | None) -> bool:
    """Return True if the new checkpoint has no higher step than the old one."""
    return new is None or new.step <= (old.step if old else 0)


def _saved(checkpoint: Checkpoint | None, best: Best | None) -> dict[str, Any]:
    if checkpoint is None:
        return {}
    seen: dict[str, Any] = {"checkpoint": checkpoint, "unsaved": None}
    if best is not None and (best.epoch, best.step) == (checkpoint.epoch, checkpoint.step):
        seen["best_checkpoint"] = checkpoint
    return seen


def _checkpoint(event: Mapping[str, Any], run_dir: str) -> Checkpoint | None:
    """Return the checkpoint of an event, None if it is not in the run folder."""
    path, sha256 = f"{run_dir}/{event.get('path', '')}", str(event.get("sha256", ""))
    if not is_inside(path, run_dir):
        return None
    return Checkpoint(
        path=path,
        step=int(event.get("step") or 0),
        sha256=sha256 if is_sha256(sha256) else "",
        bytes=int(event.get("bytes") or 0),
        epoch=int(event.get("epoch") or 0),
    )


NOTHING = Progress()


def with_progress(record: RunRecord, progress: Progress) -> RunRecord:
    """Return the record with its journal's progress: epoch, step, checkpoint, metrics."""
    if progress is NOTHING or progress == NOTHING:
        return record
    return replace(
        record,
        started_at=record.started_at or progress.first_started_at,
        epoch=_or(progress.epoch, record.epoch),
        max_epochs=_or(progress.max_epochs, record.max_epochs),
        step=_or(progress.step, record.step),
        checkpoint=progress.checkpoint or record.checkpoint,
        metrics=progress.metrics or record.metrics,
        best=progress.best or record.best,
        best_checkpoint=progress.best_checkpoint or record.best_checkpoint,
        packages=progress.packages or record.packages,
    )


def _or(new: int | None, old: int | None) -> int | None:
    return old if new is None else new
