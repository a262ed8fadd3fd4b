"""Times, amounts of memory and GPUs in the spellings that sbatch takes, each read as one text.

Source: sbatch(1), and what sbatch 22.05 accepts and refuses.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator

from mtf.core.sbatch.section_options import EXPEDITE
from mtf.core.vocabulary.times import UNLIMITED, time_limit_s
from mtf.spec.schema.error_messages import shown

_TIME = re.compile(r"[0-9]+(:[0-9]+){0,2}|[0-9]+-[0-9]+(:[0-9]+){0,2}")
_NO_LIMIT = frozenset({"unlimited", "infinite", "-1"})
_IN_WORDS = re.compile(r"([0-9]+) *(m|min|minutes?|h|hours?|d|days?)")
_MEMORY = re.compile(r"([0-9]+)([KMGT]?)B?", re.IGNORECASE)
_BINARY_UNIT = re.compile(r"([0-9]+) *([KMGT])iB", re.IGNORECASE)
_PART = r"(?:[A-Za-z0-9_][A-Za-z0-9_.-]*:)?[0-9]{1,6}"
_GPUS = re.compile(rf"{_PART}(?:,{_PART})*")
# as in --gres and in TRES
_GRES = re.compile(r"(?:gres[/:])?(?:gpu:)?([A-Za-z][A-Za-z0-9_.-]*)(?:[:=]([0-9]{1,6}))?")
_MOST_GPUS = 1_000_000


def _integer_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _time(text: str) -> str:
    if text.lower() in _NO_LIMIT:
        return UNLIMITED
    if not _TIME.fullmatch(text):
        expected = "a time limit, in minutes or like '00:10:00' or '1-12:00:00'"
        raise ValueError(f"expected {expected}, got {shown(text)}{_time_to_write(text)}")
    return text if time_limit_s(text) else UNLIMITED  # sbatch takes 0 for no limit


def _time_to_write(text: str) -> str:
    found = _IN_WORDS.fullmatch(text.lower())
    if found is None:
        return ""
    number, unit = found[1], found[2][0]
    return (
        f". Write {number if unit == 'm' else f'{number}:00:00' if unit == 'h' else f'{number}-0'}"
    )


def _memory(text: str) -> str:
    found = _MEMORY.fullmatch(text)
    if found is None or (text[-1] in "bB" and not found[2]):
        unit = _BINARY_UNIT.fullmatch(text)
        fix = f". Write {unit[1]}{unit[2].upper()}" if unit else ""
        raise ValueError(f"expected an amount of memory like 2G or 800M, got {shown(text)}{fix}")
    return f"{found[1]}{found[2].upper()}"


def _gpus(value: object) -> object:
    if isinstance(value, str) and _GPUS.fullmatch(value):
        return int(value) if value.isdigit() else value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_GPUS:
        return value
    expected = "a number of GPUs, or their types like a100:2"
    raise ValueError(f"expected {expected}, got {shown(value)}{_gpus_to_write(value)}")


def _gpus_to_write(value: object) -> str:
    found = _GRES.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return ""
    kind, number = found[1], found[2] or "1"
    return f". Write {number}" if kind == "gpu" else f". Write {kind}:{number}"


def _requeue(value: object) -> object:
    if isinstance(value, bool) or value == EXPEDITE:
        return value
    raise ValueError(f"expected true, false or {EXPEDITE}, got {shown(value)}")


Time = Annotated[str, BeforeValidator(_integer_as_text), AfterValidator(_time)]
Memory = Annotated[str, BeforeValidator(_integer_as_text), AfterValidator(_memory)]
Gpus = Annotated[int | str, BeforeValidator(_gpus)]
Requeue = Annotated[bool | Literal["expedite"], BeforeValidator(_requeue)]
