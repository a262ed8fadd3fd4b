"""Mistakes in specs and settings as text, as JSON, and as annotations for GitHub."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.shown_text import one_line
from mtf.errors import abridged

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtf.errors import Problem


def render_problems(problems: Sequence[Problem], style: str) -> str:
    """Return the problems in the style ``text``, ``json`` or ``github``.

    JSON lists all of them; the other styles only the first ones of a file with very many.

    Source: GitHub's workflow commands (``::error file=...``, ``::warning file=...``).
    """
    if style == "json":
        return json_text.dumps([p._asdict() for p in problems], indent=2, ensure_ascii=False)
    if style == "github":
        return "\n".join(map(_annotation, abridged(problems)))
    return "\n".join(map(str, abridged(problems)))


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """Return a line for each problem of a plan; errors begin with ``error:``."""
    return [f"error: {p}" if p.is_error else str(p) for p in abridged(problems)]


def _annotation(problem: Problem) -> str:
    text = problem.message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    text += f" [{problem.rule}]" if problem.rule else ""
    path = one_line(problem.path).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{problem.severity} file={path},line={problem.line},col={problem.column}::{text}"
