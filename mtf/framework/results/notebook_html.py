"""Tables and curves as HTML for notebooks. Text takes the notebook's own colour, light or dark."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Curve = Sequence[tuple[float, float]]

MOST_ROWS = 50
_POINTS = 240  # of a curve, at most
_WIDTH, _HEIGHT, _EDGE = 300, 110, 4
_COLOURS = ("#2f7ed8", "#d9730d", "#3a9a5b", "#a35bc4")  # readable on white and on black
_CELL = "padding:2px 10px;border-bottom:1px solid rgba(128,128,128,.35)"


def table_html(columns: Mapping[str, Sequence[Any]], caption: str = "") -> str:
    """Return a table as HTML: numbers to the right, missing values empty.

    Args:
        columns: their names and values, all of one length.
        caption: what it is a table of.
    """
    count = len(next(iter(columns.values()), ()))
    head = "".join(f'<th style="{_CELL};text-align:left">{escape(name)}</th>' for name in columns)
    rows = [
        "".join(_cell(values[index]) for values in columns.values())
        for index in range(min(count, MOST_ROWS))
    ]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    more = f"<div>... and {count - MOST_ROWS} more rows</div>" if count > MOST_ROWS else ""
    title = f"<div><b>{escape(caption)}</b></div>" if caption else ""
    table = f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{body}'
    return f'<div style="color:inherit">{title}{table}</tbody></table>{more}</div>'


def curves_html(charts: Mapping[str, Mapping[str, Curve]]) -> str:
    """Return small line charts side by side, as inline SVG.

    Args:
        charts: by title, the curves of each chart by name: pairs of x and y. Points whose y is no
            finite number leave a gap.
    """
    drawn = "".join(_chart(title, curves) for title, curves in charts.items())
    return f'<div style="display:flex;flex-wrap:wrap;gap:14px;color:inherit">{drawn}</div>'


def number_text(value: Any) -> str:
    """Return a value as a table shows it: numbers with 4 significant digits."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if math.isfinite(value) else str(value)
    return str(value)


def _cell(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    side = "right" if is_number else "left"
    return f'<td style="{_CELL};text-align:{side}">{escape(number_text(value))}</td>'


def _chart(title: str, curves: Mapping[str, Curve]) -> str:
    finite = [p for curve in curves.values() for p in curve if math.isfinite(p[1])]
    if not finite:
        return ""
    xs, ys = [x for x, _ in finite], [y for _, y in finite]
    box = min(xs), max(xs), min(ys), max(ys)
    pairs = zip(curves.items(), _COLOURS * len(curves), strict=False)
    paths = [(name, colour, _path(_thinned(curve), box)) for (name, curve), colour in pairs]
    lines = "".join(
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        for _, colour, path in paths
    )
    names = " ".join(
        f'<span style="color:{colour}">{escape(name)}</span>' for name, colour, _ in paths
    )
    frame = (
        f'<rect x="0.5" y="0.5" width="{_WIDTH - 1}" height="{_HEIGHT - 1}" fill="none"'
        ' stroke="currentColor" stroke-opacity="0.3"/>'
    )
    limits = f"{number_text(box[2])} to {number_text(box[3])}, to step {number_text(box[1])}"
    return (
        f'<figure style="margin:0"><figcaption><b>{escape(title)}</b> {names}</figcaption>'
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img"'
        f' aria-label="{escape(title)}: {escape(limits)}">{frame}{lines}</svg>'
        f'<div style="opacity:.7;font-size:85%">{escape(limits)}</div></figure>'
    )


def _path(curve: Curve, box: tuple[float, float, float, float]) -> str:
    """Return the path of a curve in the chart's frame; it lifts the pen at gaps."""
    left, right, low, high = box
    width, height = _WIDTH - 2 * _EDGE, _HEIGHT - 2 * _EDGE
    parts, pen = [], "M"
    for x, y in curve:
        if not math.isfinite(y):
            pen = "M"
            continue
        across = (x - left) / (right - left) if right > left else 0.5
        up = (y - low) / (high - low) if high > low else 0.5
        parts.append(f"{pen}{_EDGE + across * width:.1f} {_EDGE + (1 - up) * height:.1f}")
        pen = "L"
    if len(parts) == 1:  # one point, which a line of no length shows as a dot
        parts.append("h2")
    return "".join(parts)


def _thinned(curve: Curve) -> Curve:
    """Return a curve with few points: the lowest and the highest of each stretch."""
    if len(curve) <= _POINTS:
        return curve
    size = math.ceil(len(curve) / (_POINTS // 2))
    kept: list[tuple[float, float]] = []
    for at in range(0, len(curve), size):
        stretch = curve[at : at + size]
        ends = min(stretch, key=_height), max(stretch, key=_height)
        kept += sorted(set(ends))
    return kept


def _height(point: tuple[float, float]) -> float:
    return point[1] if math.isfinite(point[1]) else -math.inf
