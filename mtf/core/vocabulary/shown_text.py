"""Makes text from jobs, specs, commits and SLURM harmless to people who read it.

Escape codes, control characters, bidirectional marks and invisible characters are shown as escapes.
"""

from __future__ import annotations

import re
from functools import cache

# Categories Cc, Cf, Cs, Zl and Zp of Unicode, and characters that are invisible by default; except
# tab, newline, and the selector that makes a symbol an emoji (U+FE0F).
_RANGES = (
    (0x00, 0x08),
    (0x0B, 0x1F),
    (0x7F, 0x9F),
    (0xAD, 0xAD),
    (0x34F, 0x34F),
    (0x600, 0x605),
    (0x61C, 0x61C),
    (0x6DD, 0x6DD),
    (0x70F, 0x70F),
    (0x890, 0x891),
    (0x8E2, 0x8E2),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x200B, 0x200F),
    (0x2028, 0x202E),
    (0x2060, 0x206F),
    (0x3164, 0x3164),
    (0xD800, 0xDFFF),
    (0xFE00, 0xFE0E),
    (0xFEFF, 0xFEFF),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFFB),
    (0x110BD, 0x110BD),
    (0x110CD, 0x110CD),
    (0x13430, 0x1343F),
    (0x1BCA0, 0x1BCA3),
    (0x1D173, 0x1D17A),
    (0xE0000, 0xE0FFF),
)
_PLAIN = re.compile(r"[^`|\\]+")
_KEPT = frozenset(" -=,/")
_NO_MARKUP = re.compile(r"[A-Za-z0-9 ._,=/+%-]*")
MOST = 160  # characters of one value


def harmless(text: str) -> str:
    r"""Return text with each character that could act on a reader as ``\uXXXX``.

    JSON stays the same JSON: there, these are the escapes of its strings.
    """
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return _unsafe().sub(_escape, text)


@cache
def _unsafe() -> re.Pattern[str]:
    """Return the pattern of all characters that are escaped; most commands print none of them."""
    return re.compile(f"[{''.join(f'{chr(a)}-{chr(b)}' for a, b in _RANGES)}]")


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)  # two escapes, as JSON writes it
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def one_line(text: str) -> str:
    """Return harmless text on one line: tabs and newlines are shown as escapes, too."""
    return text if text.isascii() and text.isprintable() else _one_line(harmless(text))


def _one_line(text: str) -> str:
    return text.replace("\n", "\\u000a").replace("\t", "\\u0009")


def visible(text: str, most: int = MOST) -> str:
    """Return text on one line, cut to size, with its invisible characters escaped."""
    shown = one_line(text)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def code(text: str, most: int = MOST) -> str:
    """Return text as inline Markdown code that nothing in it can end, even in a table cell."""
    shown = visible(text, most).strip() or " "
    if _PLAIN.fullmatch(shown):
        return f"`{shown}`"
    safe = "".join(c if c.isalnum() or c in _KEPT else f"&#{ord(c)};" for c in shown)
    return f"<code>{safe}</code>"


def markdown_cell(text: str) -> str:
    """Return text for a cell of a Markdown table: as code if a forge could see markup in it."""
    is_plain = _NO_MARKUP.fullmatch(text) and "www." not in text.lower()
    return text if is_plain else code(text, len(text) * 12)
