"""The one YAML reader: bytes to JSON values, and where in the file each of them stands.

YAML 1.2 by the pure parser (the C parsers crash on deep nesting), one document, and nothing that
a reviewer could misread: no aliases, tags, merge keys, directives or duplicate keys.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import ruamel.yaml
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    StreamEndEvent,
)
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.reader import ReaderError

from mtf.errors import Problem, SpecError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_BYTES = 1 << 20
MAX_NODES = 50_000
MAX_DEPTH = 50

Loc = tuple[str | int, ...]  # keys and indices from the root, as in a pydantic error
Place = tuple[int, int]  # line, column, from 1


@dataclass
class Marks:
    """Where the values and the keys of one file stand."""

    path: str
    values: dict[Loc, Place] = field(default_factory=dict)
    keys: dict[Loc, Place] = field(default_factory=dict)

    def value(self, loc: Loc) -> Place:
        """Return where the value at ``loc`` begins, or the nearest one around it."""
        while loc and loc not in self.values:
            loc = loc[:-1]
        return self.values.get(loc, (1, 1))

    def key(self, loc: Loc) -> Place:
        """Return where the key that ends ``loc`` stands, or the value where there is no key."""
        return self.keys.get(loc) or self.value(loc)

    def problem(self, place: Place, message: str) -> Problem:
        """Return a problem of this file."""
        return Problem(self.path, *place, message)


@dataclass(frozen=True)
class Document:
    """One file as read. ``value`` is None where it could not be read to its end."""

    value: Any
    marks: Marks
    problems: tuple[Problem, ...]


def load_yaml(raw: bytes, path: str) -> tuple[Any, Marks]:
    """Return the value of a YAML file and its marks.

    Raises:
        SpecError: it is no YAML, or holds what a committed file must not hold.
    """
    document = read(raw, path)
    if document.problems:
        raise SpecError(list(document.problems))
    return document.value, document.marks


def read(raw: bytes, path: str) -> Document:
    """Read a YAML file as far as possible; never raises for what stands in it."""
    marks = Marks(path)
    if len(raw) > MAX_BYTES:
        problem = marks.problem((1, 1), f"larger than {MAX_BYTES:,} bytes")
        return Document(None, marks, (problem,))
    try:
        text = raw.decode("utf-8").removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    except UnicodeDecodeError as e:
        place = _place_of(raw[: e.start].decode("utf-8"))
        problem = marks.problem(place, "not UTF-8 text. Save the file as UTF-8")
        return Document(None, marks, (problem,))
    reader = _Reader(marks)
    value = reader.read(text)
    return Document(value, marks, tuple(reader.problems))


def _place_of(text_before: str) -> Place:
    line = text_before.count("\n") + 1
    return line, len(text_before) - (text_before.rfind("\n") + 1) + 1


class _StopReadingError(Exception):
    """The rest of the file cannot be read, the reason is noted."""


class _Reader:
    """Builds values from parser events, so that each alias and tag is seen where it stands."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self.problems: list[Problem] = []
        self._nodes = 0
        self._yaml = ruamel.yaml.YAML(typ="safe", pure=True)
        self._events: Iterator[Any] = iter(())

    def read(self, text: str) -> Any:
        """Return the document's value, None after a syntax error."""
        self._events = self._yaml.parse(text)
        try:
            return self._document()
        except _StopReadingError:
            return None
        except ReaderError as e:
            place = _place_of(text[: e.position])
            self._note(place, f"the character U+{e.character:04X} is not allowed in YAML")
        except MarkedYAMLError as e:
            self._note(*_syntax_error(e))
        except YAMLError as e:
            self._note((1, 1), f"not YAML: {e}")
        return None

    def _document(self) -> Any:
        value, documents = None, 0
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._stop(event, "a second document: a file holds one")
                if event.version or event.tags:
                    self._stop(event, "%YAML and %TAG lines are not allowed: the file is YAML 1.2")
                value = self._value(next(self._events), ())
            elif isinstance(event, StreamEndEvent):
                break
        return value

    def _note(self, at: Any, message: str) -> None:
        self.problems.append(self.marks.problem(at if isinstance(at, tuple) else _at(at), message))

    def _stop(self, event: Any, message: str) -> None:
        self._note(event, message)
        raise _StopReadingError

    def _value(self, event: Any, loc: Loc) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._stop(event, f"more than {MAX_NODES:,} values")
        if len(loc) > MAX_DEPTH:
            self._stop(event, f"nested deeper than {MAX_DEPTH} levels")
        self.marks.values.setdefault(loc, _at(event))
        if isinstance(event, AliasEvent):
            self._note(event, f"the alias *{event.anchor} is not allowed: write the value again")
            return None
        if event.tag is not None:
            self._note(event, f"the tag {event.tag} is not allowed")
        if isinstance(event, ScalarEvent):
            return self._scalar(event)
        return self._mapping(loc) if isinstance(event, MappingStartEvent) else self._sequence(loc)

    def _sequence(self, loc: Loc) -> list[Any]:
        out: list[Any] = []
        while not isinstance(event := next(self._events), SequenceEndEvent):
            out.append(self._value(event, (*loc, len(out))))
        return out

    def _mapping(self, loc: Loc) -> dict[str, Any]:
        out: dict[str, Any] = {}
        while not isinstance(event := next(self._events), MappingEndEvent):
            key = self._key(event, loc)
            if key is None:
                self._value(next(self._events), (*loc, "?"))
                continue
            here = (*loc, key)
            if key in out:
                line = self.marks.keys[here][0]
                self._note(event, f"the key {key!r} stands twice, first in line {line}")
            self.marks.keys.setdefault(here, _at(event))
            value = next(self._events)
            if value.start_mark.index == value.end_mark.index:  # nothing stands there
                self.marks.values.setdefault(here, _at(event))
            out.setdefault(key, self._value(value, here))
        return out

    def _key(self, event: Any, loc: Loc) -> str | None:
        if isinstance(event, ScalarEvent) and event.value == "<<" and event.implicit[0]:
            self._note(event, "the merge key << is not allowed: write the keys out")
            return None
        key = self._value(event, (*loc, "?"))
        if isinstance(key, str):
            return key
        if isinstance(event, ScalarEvent):
            self._note(event, f"the key {event.value} is not text: put it in quotes")
        elif not isinstance(event, AliasEvent):
            self._note(event, "a list or a mapping cannot be a key")
        return None

    def _scalar(self, event: Any) -> Any:
        tag = self._yaml.resolver.resolve(ScalarNode, event.value, event.implicit)
        value = event.value
        if str(tag).rpartition(":")[2] in {"null", "bool", "int", "float"}:  # a date stays text
            try:
                value = self._yaml.constructor.construct_object(ScalarNode(tag, event.value))
            except (YAMLError, ValueError):
                self._note(event, f"{json.dumps(event.value[:40])} is not a usable number")
        if isinstance(value, float) and not math.isfinite(value):
            self._note(
                event, f"{event.value} is not a usable number: infinity and nan have no JSON"
            )
            return 0.0
        return self._text(event, value) if isinstance(value, str) else value

    def _text(self, event: Any, text: str) -> str:
        """Return text with surrogate pairs joined: JSON, which is YAML, escapes emoji as pairs."""
        if text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text):
            return text
        try:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self._note(event, "half of a surrogate pair is not text")
            return ""


def _syntax_error(error: Any) -> tuple[Place, str]:
    mark, start = error.problem_mark or error.context_mark, error.context_mark
    message = f"not YAML: {error.problem or error.context}"
    if error.context and error.problem:
        begun = f" that begins in line {start.line + 1}" if start else ""
        message += f" ({error.context}{begun})"
    return (mark.line + 1, mark.column + 1) if mark else (1, 1), message


def _at(event: Any) -> Place:
    return event.start_mark.line + 1, event.start_mark.column + 1
