"""The parameters of a spec's runs, with their values, as plans and reviews list them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.experiments import ABSENT, joint_axes
from mtf.core.vocabulary.shown_text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


class AxisText(NamedTuple):
    """One axis as text: its keys, and its values."""

    keys: tuple[str, ...]
    values: str
    number: int

    def line(self, form: Callable[[str], str] = str) -> str:
        """Return ``keys: values``. Keys that vary together have values in brackets."""
        return f"{', '.join(map(form, self.keys))}: {self.values}"


def axis_texts(
    parameters: Iterable[Mapping[str, Any]], form: Callable[[str], str] = str
) -> list[AxisText]:
    """Return each axis of some runs. Keys of two axes have each pair of their values in some run.

    Keys that are linked, or set under a condition, are one axis: they are not multiplied.
    """
    return [
        AxisText(tuple(map(visible, keys)), _shown(values, form), len(values))
        for keys, values in joint_axes(list(parameters))
    ]


def _shown(values: Sequence[tuple[Any, ...]], form: Callable[[str], str]) -> str:
    """Return values as JSON, each wrapped by ``form``; of more than ten, only the ends."""
    texts = [form(", ".join(map(_text, each))) for each in values]
    if values and len(values[0]) > 1:
        texts = [f"({text})" for text in texts]
    return ", ".join(texts if len(texts) <= 10 else [*texts[:6], "…", *texts[-2:]])


def _text(value: Any) -> str:
    return "-" if value is ABSENT else visible(json_text.dumps(value, ensure_ascii=False), 60)
