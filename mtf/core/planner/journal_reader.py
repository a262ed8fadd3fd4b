"""A run's journal folded into what it has reached: pure, and deaf to facts it does not know."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.records import Best, Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from mtf.core.vocabulary.records import RunRecord


@dataclass(frozen=True)
class Progress:
    """What a journal says of its run. None: not said yet."""

    first_started_at: str | None = None
    started_at: str | None = None  # of the newest start
    job_id: str | None = None  # of the newest start
    token: str | None = None
    starts: int = 0
    idle_starts: int = 0  # of the newest attempt, since a checkpoint has last gone further
    epoch: int | None = None
    max_epochs: int | None = None
    step: int | None = None
    total_steps: int | None = None
    steps_per_s: float | None = None  # of the newest start
    eta_s: float | None = None  # expected to its end
    checkpoint: Checkpoint | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: Best | None = None
    best_checkpoint: Checkpoint | None = None
    packages: str | None = None
    stopped: str | None = None  # the signal that the newest start has answered
    stopped_before: str | None = None  # ... and the start before it
    failed: str | None = None  # the newest start's error
    refused: str | None = None
    noted: str | None = None  # what to know of a complete training: why it has ended early
    unsaved: str | None = None  # why the newest checkpoint that was due is not there
    finished_at: str | None = None
    last_at: str | None = None


def fold(facts: Iterable[Mapping[str, Any]], run_dir: str) -> Progress:
    """Return what the facts, in journal order, add up to.

    Args:
        facts: as ``mtf.rundir.read_journal`` returns them.
        run_dir: the run folder, to which checkpoint paths are relative.
    """
    seen: dict[str, Any] = {}
    monitor: tuple[str, str] | None = None
    starts = idle = 0
    for fact in map(_sound, facts):
        seen["last_at"] = fact.get("at") or seen.get("last_at")
        match fact["event"]:
            case "started":
                starts += 1
                idle = idle + 1 if fact.get("token") == seen.get("token") else 1
                seen["stopped_before"] = seen.get("stopped")
                monitor = _monitor(fact) or monitor
                seen |= {"stopped": None, "failed": None, "refused": None, "unsaved": None}
                seen |= {"steps_per_s": None, "eta_s": None}
                seen.setdefault("first_started_at", fact.get("at"))
                seen["started_at"] = fact.get("at")
                seen |= _some(fact, "job_id", "token", "max_epochs", "epoch", "step")
            case "proof":
                seen["packages"] = fact.get("packages_sha256")
            case "progress":
                seen |= _some(fact, "epoch", "step", "total_steps", "steps_per_s", "eta_s")
            case "metrics":
                seen |= _some(fact, "epoch", "step")
                seen["metrics"] = {**seen.get("metrics", {}), **_numbers(fact.get("metrics"))}
                seen["best"] = _best(seen.get("best"), fact, monitor)
            case "checkpoint":
                saved = _checkpoint(fact, run_dir)
                idle = idle if _is_as_far(seen.get("checkpoint"), saved) else 0
                seen |= _saved(saved, seen.get("best"))
            case "unsaved":
                seen["unsaved"] = str(fact.get("reason", "for no reason given"))
            case "stopped" | "failed" | "refused" | "noted" as event:
                # of several ranks the first to fail knows why; the others only miss it
                seen[event] = seen.get(event) or str(fact.get("reason", event))
            case "finished":
                seen |= _some(fact, "epoch", "step")
                seen["metrics"] = {**seen.get("metrics", {}), **_numbers(fact.get("metrics"))}
                seen["finished_at"] = fact.get("at")
            case _:  # a fact of a later version
                pass
    return Progress(starts=starts, idle_starts=idle, **seen)


_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("epoch", "step", "total_steps", "max_epochs", "bytes"), int),
    **dict.fromkeys(("at", "token", "job_id", "monitor", "mode", "reason", "path"), str),
    **dict.fromkeys(("sha256", "packages_sha256"), str),
    **dict.fromkeys(("steps_per_s", "eta_s"), float),
}


def _sound(fact: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a fact without the fields that are not what they should be."""
    sound = {k: v for k, v in fact.items() if isinstance(v, _TYPES.get(k, object))}
    if not _is_time(str(sound.get("at"))):
        sound.pop("at", None)
    return sound


def _is_time(text: str) -> bool:
    """Return whether a text is a time that can be told from others: one with its zone."""
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _some(fact: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: fact[name] for name in names if fact.get(name) is not None}


def _monitor(fact: Mapping[str, Any]) -> tuple[str, str] | None:
    name = fact.get("monitor")
    return (str(name), str(fact.get("mode", "min"))) if name else None


def _numbers(metrics: object) -> dict[str, float]:
    if not isinstance(metrics, dict):
        return {}
    return {str(k): v for k, v in metrics.items() if isinstance(v, int | float)}


def _best(
    best: Best | None, fact: Mapping[str, Any], monitor: tuple[str, str] | None
) -> Best | None:
    if monitor is None:
        return best
    name, mode = monitor
    value = _numbers(fact.get("metrics")).get(name)
    if value is None or value != value:  # NaN is never the best  # noqa: PLR0124
        return best
    if best is not None and (value <= best.value if mode == "max" else value >= best.value):
        return best
    return Best(name, value, int(fact.get("epoch") or 0), int(fact.get("step") or 0), mode)


def _is_as_far(old: Checkpoint | None, new: Checkpoint) -> bool:
    """Return whether a checkpoint is no further than the one before it."""
    return new.step <= (old.step if old else 0)


def _saved(checkpoint: Checkpoint, best: Best | None) -> dict[str, Any]:
    seen: dict[str, Any] = {"checkpoint": checkpoint, "unsaved": None}
    if best is not None and (best.epoch, best.step) == (checkpoint.epoch, checkpoint.step):
        seen["best_checkpoint"] = checkpoint
    return seen


def _checkpoint(fact: Mapping[str, Any], run_dir: str) -> Checkpoint:
    return Checkpoint(
        path=f"{run_dir}/{fact.get('path')}",
        step=int(fact.get("step") or 0),
        sha256=str(fact.get("sha256", "")),
        bytes=int(fact.get("bytes") or 0),
        epoch=int(fact.get("epoch") or 0),
    )


NOTHING = Progress()


def with_progress(record: RunRecord, progress: Progress) -> RunRecord:
    """Return the record with what its journal says: epoch, step, checkpoint, metrics."""
    if progress == NOTHING:
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
