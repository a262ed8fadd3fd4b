"""Escapes text from specs (names, values, messages) for Markdown and HTML.

The text is shown as code, where forges do not look for markup, links, mentions or issue numbers.
"""

from __future__ import annotations

import html
import re

from mtf.core.vocabulary.shown_text import visible


def html_code(text: str) -> str:
    """Return text as code within HTML, such as a summary element."""
    return f"<code>{html.escape(visible(text))}</code>"


def fenced(text: str, language: str = "") -> str:
    """Return lines as a fenced code block that nothing in them can end."""
    lines = [visible(line, 500) for line in text.rstrip("\n").split("\n")]
    ticks = max((len(run) for line in lines for run in re.findall("`+", line)), default=0)
    fence = "`" * max(3, ticks + 1)
    return "\n".join([fence + language, *lines, fence])


def collapsed(summary: str, body: str) -> str:
    """Return a section that is collapsed until clicked; ``summary`` is HTML."""
    return f"<details><summary>{summary}</summary>\n\n{body}\n\n</details>\n"
