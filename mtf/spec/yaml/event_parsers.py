"""The two YAML parsers behind the reader: libyaml for speed, ruamel.yaml for everything else.

Parsing 1,000 typical specs takes 0.12 s of user time with libyaml and 1.9 s with ruamel.yaml
(both measured in turn, on one machine), so a second parser is worth it.

libyaml reads YAML 1.1, mtf reads YAML 1.2. libyaml is therefore used only for text without
anything that the two versions read differently (see ``first_ambiguity``), and only while it finds
no error: ruamel.yaml reads every other file from its beginning, and its errors are the ones that
users see. Both parsers produce the same kinds of events, one at a time, so that the reader's
limits hold for both, and both leave it to the reader to decide between text and number.
``tests/spec/yaml/test_parsers_agree.py`` compares them on generated documents.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Characters beyond ASCII that both read alike. Left out: line breaks that only one of them knows.
_PLAIN_UNICODE = r"\xa0-\u2027\u202a-\ufefe\uff00-\ufffd\U00010000-\U0010ffff"
# Each pattern begins with a character or a set of characters: that keeps the search fast.
# test_parsers_agree.py has the smallest documents that the two read differently but for a pattern.
# Of the versions that are pinned, 70,000 random documents showed none for the patterns marked "in
# doubt"; they stay, since other versions are allowed and little of what people write contains them.
# block scalars with an indentation indicator, or with an empty first line
_AMBIGUOUS_BLOCK = re.compile(r"[|>](?![+-]?\n *[^ \n])")
_AMBIGUOUS = (
    # tabs and escapes, and what begins anchors, aliases, tags, directives and keys with "?"; listed
    # as they are few: compiling the set of all other characters takes 5 ms
    re.compile(r"[\x00-\t\x0b-\x1f!%&*?\\\x7f]"),
    _AMBIGUOUS_BLOCK,
    # colons, number signs and dashes next to brackets, quotes and each other
    re.compile(r":[\[\]{},:#]"),  # in doubt
    re.compile(r"[\[\]{},\"'][:#]"),
    re.compile(r"[\[{,]\s*(?::|-(?![\w.]))"),  # in doubt
    # document markers, except for one at the beginning
    re.compile(r"\n(?:---|\.\.\.)"),
    # a dash as a key
    re.compile(r"-:\s"),
)
_COMMENTS = re.compile(r"#[^\r\n]*")
_BEFORE_COMMENTS = {"", " ", "\t", "\n", "\r"}
# What ruamel.yaml raises, instead of an error of its own, for text that it does not expect.
_CRASHES = (AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
_AMBIGUOUS_START = re.compile(r"\A(?:---(?!\n)|\.\.\.)")  # in doubt


class EventTypes(NamedTuple):
    """The classes of a parser's events."""

    scalar: type[Any]
    alias: type[Any]
    mapping_start: type[Any]
    mapping_end: type[Any]
    sequence_end: type[Any]
    document_start: type[Any]
    stream_end: type[Any]
    nodes: frozenset[type[Any]]  # those that begin a value or a key


class EventSource(NamedTuple):
    """Parser events, one at a time. ``next`` raises the parser's own errors."""

    next: Callable[[], Any]
    types: EventTypes


def first_ambiguity(text: str) -> int | None:
    """Return the position of the first thing that the two parsers may read differently, or None."""
    patterns: tuple[re.Pattern[str], ...] = (_AMBIGUOUS_START, *_AMBIGUOUS)
    if not text.isascii():  # compiling the set of all letters takes long, and few files need it
        patterns = (*patterns, re.compile(rf"[^\0-\x7f{_PLAIN_UNICODE}]"))
    has_block = "|" in text or ">" in text  # the search for them takes twice as long as the others
    for pattern in patterns:
        if pattern is _AMBIGUOUS_BLOCK and not has_block:
            continue
        if match := pattern.search(text):
            return match.start()
    return None


def libyaml_events(text: str) -> tuple[EventSource, type[Exception]] | None:
    """Return libyaml's events and its error type, None if this Python has no libyaml."""
    try:
        from yaml import MarkedYAMLError, events
        from yaml._yaml import CParser
    except ImportError:
        return None
    return EventSource(CParser(text).get_event, _event_types(events)), MarkedYAMLError


def ruamel_events(text: str) -> EventSource:
    """Return ruamel.yaml's events, which follow YAML 1.2."""
    import ruamel.yaml
    from ruamel.yaml import events
    from ruamel.yaml.error import MarkedYAMLError

    parsed = ruamel.yaml.YAML(typ="safe", pure=True).parse(text)
    checked = _Checked(parsed, text, MarkedYAMLError)
    return EventSource(checked.next, _event_types(events))


class _Checked:
    """ruamel.yaml's events, with an error for invalid YAML that it would accept or read wrongly."""

    def __init__(
        self, events: Iterator[Any], text: str, error: Callable[[None, None, str, Any], Exception]
    ) -> None:
        self._events = events
        self._text = text
        self._error = error
        self._mark: Any = None  # of the newest event
        self._end = 0

    def next(self) -> Any:
        """Return the next event.

        Raises:
            MarkedYAMLError: the text before it is not valid.
        """
        try:
            event = next(self._events)
        except _CRASHES as e:  # such as AssertionError for %YAML 1.3
            reason = f"the parser cannot read on from here ({str(e)[:60] or type(e).__name__})"
            raise self._error(None, None, reason, self._mark) from None
        self._mark, start = event.start_mark, event.start_mark.index
        problem = _comment_problem(self._text, self._end, start)
        if problem is None and hasattr(event, "implicit") and hasattr(event, "value"):
            problem = _scalar_problem(event, self._text[start - 1 : start])
        if problem:
            raise self._error(None, None, problem, self._mark)
        self._end = max(self._end, event.end_mark.index)
        return event


def _comment_problem(text: str, end: int, start: int) -> str | None:
    """Return the problem of the comments between two events, None if there is none."""
    for comment in _COMMENTS.finditer(text, end, start):
        if text[comment.start() - 1 : comment.start()] not in _BEFORE_COMMENTS:
            return "a comment before this place has no space before its #"
    return None


def _scalar_problem(event: Any, before: str) -> str | None:
    """Return the problem of a scalar; ``before`` is the character in front of it."""
    if before == "?" and event.value:
        return "a value that begins with ?. Put it in quotes, or a space after the ?"
    if event.value == "-" and event.implicit[0]:  # elsewhere a dash is an indicator
        return "a lone dash. Put it in quotes"
    return None


def _event_types(events: Any) -> EventTypes:
    return EventTypes(
        scalar=events.ScalarEvent,
        alias=events.AliasEvent,
        mapping_start=events.MappingStartEvent,
        mapping_end=events.MappingEndEvent,
        sequence_end=events.SequenceEndEvent,
        document_start=events.DocumentStartEvent,
        stream_end=events.StreamEndEvent,
        nodes=frozenset({events.ScalarEvent, events.MappingStartEvent, events.SequenceStartEvent}),
    )
