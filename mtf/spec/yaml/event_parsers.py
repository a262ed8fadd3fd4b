"""The two YAML parsers behind the one reader: a quick one in C, and ruamel.yaml's, which decides.

libyaml is some 20 times faster, but reads YAML 1.1. Its events are used where the text holds
nothing that the two versions take differently (``differs``), and where nothing is wrong in it:
ruamel.yaml reads all else anew, and says what it thinks of it. Both give the same kinds of events,
which leave open what a plain word stands for, and both give them one at a time, so that nothing is
read beyond what the reader's limits allow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# Tabs, escapes; what begins anchors, aliases, tags, directives and keys with ?
_PLAIN = r"\n\x20\x22-\x24\x27-\x29\x2b-\x3e\x40-\x5b\x5d-\x7e"
# ... and breaks of lines that only one of them knows
_LETTERS = r"\xa0-\u2027\u202a-\ufefe\uff00-\ufffd\U00010000-\U0010ffff"
# Each begins with a character or a set of them, which is what makes the search fast.
_DIFFER = tuple(map(re.compile, (
    rf"[^{_PLAIN}\x80-\U0010ffff]",
    # block scalars with more in their first line than how they end, or that begin with none
    r"[|>](?![+-]?\n *[^ \n])",
    r":[\[\]{},:#]",  # colons, number signs and dashes close to brackets, quotes and each other
    r"[\[\]{},\"'][:#]",
    r"[\[{,]\s*(?::|-(?![\w.]))",
    r"\n(?:---|\.\.\.)",  # markers of documents but for one at the beginning
)))  # fmt: skip
_MARKER = re.compile(r"\A(?:---(?!\n)|\.\.\.)")


@dataclass(frozen=True)
class Kinds:
    """The classes of a parser's events."""

    scalar: type[Any]
    alias: type[Any]
    mapping_start: type[Any]
    mapping_end: type[Any]
    sequence_end: type[Any]
    document_start: type[Any]
    stream_end: type[Any]


@dataclass(frozen=True)
class Source:
    """Events one by one. What ``next`` raises for bad text is the parser's own."""

    next: Callable[[], Any]
    kinds: Kinds


def differs(text: str) -> int | None:
    """Return where something stands that the two parsers may read differently, None for nowhere."""
    # the set of all letters takes long to compile, and few files need it
    beyond = () if text.isascii() else (re.compile(rf"[^\0-\x7f{_LETTERS}]"),)
    found = (pattern.search(text) for pattern in (_MARKER, *_DIFFER, *beyond))
    return next((match.start() for match in found if match), None)


def quick(text: str) -> tuple[Source, type[Exception]] | None:
    """Return libyaml's events and its error, None where this Python does not have it."""
    try:
        from yaml import MarkedYAMLError, events
        from yaml._yaml import CParser
    except ImportError:
        return None
    return Source(CParser(text).get_event, _kinds(events)), MarkedYAMLError


def careful(text: str) -> Source:
    """Return ruamel.yaml's events, which are those of YAML 1.2."""
    import ruamel.yaml
    from ruamel.yaml import events

    parsed = ruamel.yaml.YAML(typ="safe", pure=True).parse(text)
    return Source(parsed.__next__, _kinds(events))


def _kinds(events: Any) -> Kinds:
    return Kinds(
        scalar=events.ScalarEvent,
        alias=events.AliasEvent,
        mapping_start=events.MappingStartEvent,
        mapping_end=events.MappingEndEvent,
        sequence_end=events.SequenceEndEvent,
        document_start=events.DocumentStartEvent,
        stream_end=events.StreamEndEvent,
    )
