"""Which specs a change may touch, told from their bytes: the others need not be parsed.

Text is searched, not understood, so that a file is rather taken for touched than overlooked: one
that holds an escape (a backslash) always is, since a name may stand there in disguise.
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


def touched(
    before: Mapping[str, bytes], after: Mapping[str, bytes], marks: Collection[bytes] = ()
) -> set[str]:
    """Return the specs that may ask for something else: changed, or built on what has changed.

    Those that hold one of the ``marks`` are among them: what they name elsewhere may have changed.
    """
    same = {p: text for p, text in after.items() if is_spec(p) and before.get(p) == text}
    differing = {p for p in (*before, *after) if is_spec(p) and p not in same}
    found = differing | {p for p, text in same.items() if any(mark in text for mark in marks)}
    wave = set(found)
    while wave:
        names = {posixpath.basename(path) for path in wave}
        wave = {p for p in mentioning(names, same) if p not in found}
        found |= wave
    return found


def also_needed(before: Loaded, after: Loaded, texts: Mapping[str, bytes]) -> set[str]:
    """Return the specs whose names matter to those that were loaded.

    Their name is the same, ``init_from`` of a loaded one asks for them, or their own may ask for
    a spec that is gone.
    """
    asked = {name_of(name) for one in after.desired for name in one.named_at}
    asking = {path: text for path, text in texts.items() if b"init_from" in text}
    return defining(asked | after.names, texts) | mentioning(before.names - after.names, asking)


def defining(names: Collection[str], texts: Mapping[str, bytes]) -> set[str]:
    """Return the specs that may have one of the names."""
    named = r"""(?<![A-Za-z_])(?:experiment_)?name["']?\s*:\s*["']?"""
    return mentioning(names, texts, before=named)


def mentioning(
    names: Collection[str], texts: Mapping[str, bytes], *, before: str = r"(?<![A-Za-z0-9_.-])"
) -> set[str]:
    """Return the files where one of the names may stand, as a whole, after what is ``before``."""
    if not names or not texts:
        return set()
    if not all(map(_PLAIN.fullmatch, names)):
        return set(texts)
    either = "|".join(map(re.escape, sorted(names)))
    wanted = re.compile(rf"{before}(?:{either})(?![A-Za-z0-9_-]|\.[A-Za-z0-9])".encode())
    raw = [name.encode() for name in names] if len(names) < 20 else [b""]  # far quicker to find
    return {
        path
        for path, text in texts.items()
        if b"\\" in text or (any(name in text for name in raw) and wanted.search(text))
    }
