"""Finds the specs that a change may affect by searching their text, so that no other is parsed.

A file counts as affected when in doubt. A file with a backslash always does where any word counts:
an escape sequence may hide it. The names of specs are looked for with their escapes resolved, so
that a file that cannot be read holds up no specs but those whose names it has.
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING

from mtf.core.vocabulary.ids import name_of
from mtf.spec.load import is_spec

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mtf.spec.load import Loaded

_PLAIN = re.compile(r"[A-Za-z0-9._/+-]+")
# the escapes by which a name's characters can be written, and a line that goes on in the next
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|\r?\n[ \t]*)")


def touched(
    before: Mapping[str, bytes], after: Mapping[str, bytes], keywords: Collection[bytes] = ()
) -> set[str]:
    """Return the specs that may resolve differently: changed, or built on a changed one.

    Specs that contain one of the ``keywords`` are included: files they refer to may have changed.
    """
    same = {p: text for p, text in after.items() if is_spec(p) and before.get(p) == text}
    changed = {p for p in (*before, *after) if is_spec(p) and p not in same}
    found = changed | {p for p, text in same.items() if any(word in text for word in keywords)}
    newest = set(found)
    while newest:
        names = {posixpath.basename(path) for path in newest}
        newest = {p for p in mentioning(names, same) if p not in found}
        found |= newest
    return found


def also_needed(before: Loaded, after: Loaded, texts: Mapping[str, bytes]) -> set[str]:
    """Return the further specs that must be loaded to check the loaded ones.

    They have the name of a loaded spec, a loaded spec names them in ``init_from``, or their own
    ``init_from`` may name a spec that is gone.
    """
    named = {name_of(name) for spec in after.desired for name in spec.named_at}
    naming = {path: text for path, text in texts.items() if b"init_from" in text}
    return defining(named | after.names, texts) | mentioning(before.names - after.names, naming)


def defining(names: Collection[str], texts: Mapping[str, bytes]) -> set[str]:
    """Return the specs that may have one of the names, in upper or lower case.

    Names that differ only in case clash too: some file systems cannot hold both.
    """
    key = r"""(?i)(?<![A-Za-z_])(?:experiment_)?name["']?\s*:\s*["']?"""
    return _containing(names, {path: _unescaped(text) for path, text in texts.items()}, key)


def _unescaped(text: bytes) -> bytes:
    return _ESCAPE.sub(_character, text) if b"\\" in text else text


def _character(escape: re.Match[bytes]) -> bytes:
    digits = escape[1] or escape[2] or escape[3]
    code = int(digits, 16) if digits else None
    if code is None:
        return b""
    return bytes([code]) if code < 0x80 else b"?"  # no name has others


def mentioning(names: Collection[str], texts: Mapping[str, bytes]) -> set[str]:
    """Return the files that may contain one of the names as a whole word."""
    if not names:
        return set()
    escaped = {path for path, text in texts.items() if b"\\" in text}
    return escaped | _containing(names, texts, r"(?<![A-Za-z0-9_.-])")


def _containing(names: Collection[str], texts: Mapping[str, bytes], prefix: str) -> set[str]:
    """Return the files that contain one of the names as a whole word, after the ``prefix``."""
    if not names or not texts:
        return set()
    if not all(map(_PLAIN.fullmatch, names)):
        return set(texts)
    either = "|".join(map(re.escape, sorted(names)))
    wanted = re.compile(rf"{prefix}(?:{either})(?![A-Za-z0-9_-]|\.[A-Za-z0-9])".encode())
    raw = [name.encode().lower() for name in names]

    def may_mention(text: bytes) -> bool:
        if len(raw) >= 20:
            return True
        lower = text.lower()  # a plain search rules most files out far faster than the pattern
        return any(name in lower for name in raw)

    return {path for path, text in texts.items() if may_mention(text) and wanted.search(text)}
