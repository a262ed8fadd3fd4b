"""Random search: draws that a seed fixes for every machine and every later version."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary import json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mtf.spec.schema.specs import Sample

DIGITS = 6  # of a drawn number: the last digits of libm's results differ between machines
MAX_MISSES = 1000  # repeated draws in a row, after which no others are assumed to exist


def draw(sample: Mapping[str, Sample], n: int) -> list[tuple[Any, ...]]:
    """Return ``n`` different joint draws of all keys, fewer if no more can be found.

    Each key draws from its own stream, seeded by its seed and its name; repeated draws are skipped.
    So a greater ``n`` keeps the existing draws.
    """
    streams = [_stream(*item) for item in sample.items()]
    out: list[tuple[Any, ...]] = []
    seen: set[str] = set()
    misses = 0
    while len(out) < n and misses < MAX_MISSES:
        values = tuple(stream() for stream in streams)
        text = json_text.dumps(values)
        misses = misses + 1 if text in seen else 0
        if not misses:
            seen.add(text)
            out.append(values)
    return out


def _stream(key: str, sample: Sample) -> Callable[[], Any]:
    # Python promises the same results in later versions for random() alone
    rng = random.Random(f"{sample.seed}:{key}")  # noqa: S311
    low, high = sample.low or 0.0, sample.high or 0.0
    match sample.distribution:
        case "uniform":
            return lambda: _between(low, low + (high - low) * rng.random(), high)
        case "loguniform":
            ratio = math.log(high / low)
            return lambda: _between(low, low * math.exp(ratio * rng.random()), high)
        case "normal":
            mean, std = sample.mean or 0.0, sample.std or 0.0
            return lambda: _rounded(mean + std * _normal(rng))
        case "int":
            return lambda: int(low) + int((high - low + 1) * rng.random())
        case "choice":
            values = sample.values or []
            return lambda: values[int(len(values) * rng.random())]


def _normal(rng: random.Random) -> float:
    # Box-Muller: always two uniform numbers a draw
    radius = math.sqrt(-2 * math.log(1 - rng.random()))
    return radius * math.cos(2 * math.pi * rng.random())


def _between(low: float, number: float, high: float) -> float:
    return min(max(_rounded(number), low), high)


def _rounded(number: float) -> float:
    return float(f"{number:.{DIGITS}g}")
