"""Reads what Weights & Biases keeps in a run folder: the transaction log of its own core.

Source: the log format of LevelDB, which it uses with a header of 7 bytes: records in blocks of
32 KiB, each with a checksum (4 bytes), a length (2) and a type (1: whole, 2-4: first to last part).
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # here, for the children that are forked to have

from tests.trainer.runs import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HEADER, _BLOCK = 7, 32 * 1024
_WHOLE, _LAST = 1, 4


def history(run: Path, count: int) -> list[dict[str, Any]]:
    """Return the rows of all folders together, in the order in which they would be synced.

    Wandb's own process writes them, a moment after the training that they are of has ended: so
    this waits for ``count`` of them.
    """
    wait_for(lambda: len(_all_rows(run)) >= count)
    return _all_rows(run)


def _all_rows(run: Path) -> list[dict[str, Any]]:
    paths = sorted((run / "wandb").glob("*run-*/*.wandb"))
    return [row for path in paths for row in rows(path)]


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the history rows of a ``.wandb`` file."""
    for raw in _records(path.read_bytes()):
        record = Record()
        record.ParseFromString(raw)
        if record.WhichOneof("record_type") == "history":
            yield {
                item.key or ".".join(item.nested_key): json.loads(item.value_json)
                for item in record.history.item
            } | {"_step": record.history.step.num}


def _records(raw: bytes) -> Iterator[bytes]:
    assert raw[:4] in (b"", b":W&B")
    at, whole = _HEADER, b""
    while at + 7 <= len(raw):
        left = _BLOCK - at % _BLOCK
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", raw[at : at + 7])
        part = raw[at + 7 : at + 7 + length]
        if kind == 0 or len(part) < length:  # what a killed process has not ended
            return
        whole += part
        at += 7 + length
        if kind in (_WHOLE, _LAST):
            yield whole
            whole = b""
