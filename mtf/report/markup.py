"""Escapes text from specs (names, values, messages) for Markdown and HTML.

The text is shown as code, where forges do not look for markup, links, mentions or issue numbers.
"""

from __future__ import annotations

import html
import re
import unicodedata

_PLAIN = re.compile(r"[^`|\\]+")
_KEPT = frozenset(" -=,/")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
MOST = 160  # characters of one value


def visible(text: str, most: int = MOST) -> str:
    """Return text on one line, cut to size, with its invisible characters escaped."""
    shown = "".join(
        f"\\u{ord(c):04x}" if unicodedata.category(c) in _INVISIBLE else c for c in text
    )
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def code(text: str, most: int = MOST) -> str:
    """Return text as inline Markdown code that nothing in it can end, even in a table cell."""
    shown = visible(text, most).strip() or " "
    if _PLAIN.fullmatch(shown):
        return f"`{shown}`"
    safe = "".join(c if c.isalnum() or c in _KEPT else f"&#{ord(c)};" for c in shown)
    return f"<code>{safe}</code>"


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
