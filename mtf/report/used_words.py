"""The resources that runs have used, as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.core.usage.advice import cpus_used, memory_text
from mtf.core.usage.used import GPU_MEMORY_MB, GPU_PERCENT, MEMORY_MB, RUN_S, WAIT_S
from mtf.core.vocabulary.times import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mtf.core.vocabulary.records import RunRecord


def used_text(used: Mapping[str, float]) -> str:
    """Return a line like ``waited 2 min, ran 1 h 3 min, memory 4.1G at most, 3.2 CPUs busy``."""
    texts: tuple[tuple[str, Callable[[float], str]], ...] = (
        (WAIT_S, lambda n: f"waited {duration(n)}"),
        (RUN_S, lambda n: f"ran {duration(n)}"),
        (MEMORY_MB, lambda n: f"memory {memory_text(n)} at most"),
        (GPU_MEMORY_MB, lambda n: f"GPU memory {memory_text(n)} at most"),
        (GPU_PERCENT, lambda n: f"GPU {n:.0f}% busy"),
    )
    parts = [text(used[name]) for name, text in texts if name in used]
    cpus = cpus_used(used)
    return ", ".join([*parts, *([f"{cpus:.2g} CPUs busy"] if cpus is not None else [])])


def used_columns(records: Iterable[RunRecord]) -> dict[str, Callable[[RunRecord], str]]:
    """Return the columns of a table of results, those of which something is known."""
    columns: dict[str, Callable[[RunRecord], str]] = {}
    known = {name for record in records for name in record.resources or ()}
    for name, title, text in (
        (RUN_S, "RAN", duration),
        (MEMORY_MB, "MEMORY", memory_text),
        (GPU_MEMORY_MB, "GPU MEMORY", memory_text),
    ):
        if name in known:
            columns[title] = _cell(name, text)
    return columns


def _cell(name: str, text: Callable[[float], str]) -> Callable[[RunRecord], str]:
    def cell(record: RunRecord) -> str:
        used = record.resources or {}
        return text(used[name]) if name in used else ""

    return cell
