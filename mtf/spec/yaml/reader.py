"""The YAML reader of specs and settings: bytes to JSON values with their lines and columns.

It reads YAML 1.2, one document per file, and refuses what a reviewer could misread: aliases, tags,
merge keys, directives and duplicate keys.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from mtf.core.vocabulary import json_text
from mtf.errors import SpecError
from mtf.spec.yaml.event_parsers import first_ambiguity, libyaml_events, ruamel_events
from mtf.spec.yaml.plain_scalars import UNUSUAL, resolve, usual_value
from mtf.spec.yaml.positions import Positions

if TYPE_CHECKING:
    from mtf.errors import Problem
    from mtf.spec.yaml.event_parsers import EventSource
    from mtf.spec.yaml.positions import Node, Position

MAX_BYTES = 1 << 20
MAX_SLOW_BYTES = 50_000  # of a file that only ruamel.yaml can read
MAX_NODES = 50_000
MAX_DEPTH = 50
MAX_KEY = 1024  # characters, as YAML has it for keys without "?"
_DIRECTIVE = re.compile(r"(?:[ \t]*(?:#[^\n]*)?\n)*%")


class Document(NamedTuple):
    """One file as read. ``value`` is None if it could not be read to its end."""

    value: Any
    positions: Positions
    problems: tuple[Problem, ...]


def load_yaml(raw: bytes, path: str) -> tuple[Any, Positions]:
    """Return the value of a YAML file and its positions.

    Raises:
        SpecError: it is not valid YAML, or holds something that is not allowed.
    """
    document = read(raw, path)
    if document.problems:
        raise SpecError(list(document.problems))
    return document.value, document.positions


def read(raw: bytes, path: str) -> Document:
    """Read a YAML file as far as possible; problems are returned, never raised."""
    if len(raw) > MAX_BYTES:
        message = f"the file has more than {MAX_BYTES:,} bytes, which is too large. Split it"
        return _unreadable(path, (1, 1), message)
    try:
        text = raw.decode("utf-8").removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    except UnicodeDecodeError as e:
        position = _end_position(raw[: e.start].decode("utf-8"))
        return _unreadable(path, position, "not UTF-8 text. Save the file as UTF-8")
    text = _with_whole_lines(text)
    fast = _read_with_libyaml(text, path)
    if fast is not None and (not fast.problems or len(raw) > MAX_SLOW_BYTES):
        return fast
    if len(raw) <= MAX_SLOW_BYTES:
        return _read_with_ruamel(text, path)
    at = first_ambiguity(text) or 0
    message = (
        f"{text[at]!r} at this place can be read only in files of at most {MAX_SLOW_BYTES:,} bytes."
        " Write it in plain block style, or split the file"
    )
    return _unreadable(path, _end_position(text[:at]), message)


def _with_whole_lines(text: str) -> str:
    """Return a text whose last line, if it has nothing but spaces, ends.

    Both parsers read such a line otherwise as a part of a text above it.
    """
    blank = text.endswith(" ") and not text.rpartition("\n")[2].strip(" ")
    return text + "\n" if blank else text


def _unreadable(path: str, position: Position, message: str) -> Document:
    positions = Positions(path)
    return Document(None, positions, (positions.problem(position, message),))


def _read_with_libyaml(text: str, path: str) -> Document | None:
    """Return the file as libyaml reads it, None if ruamel.yaml has to read it."""
    text = text.replace("\r\n", "\n")
    source = libyaml_events(text) if first_ambiguity(text) is None else None
    if source is None:
        return None
    events, error = source
    builder = _DocumentBuilder(path, events, len(text))
    try:
        value = builder.value()
    except error as e:
        builder.add_problem(*_syntax_error(e))
        value = None
    return builder.document(value) if value or builder.problems else None


def _read_with_ruamel(text: str, path: str) -> Document:
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.reader import ReaderError

    if directive := _DIRECTIVE.match(text):
        position = _end_position(directive[0][:-1])
        return _unreadable(path, position, "%YAML and %TAG are not allowed. Remove the line")
    builder = _DocumentBuilder(path, ruamel_events(text), len(text))
    value = None
    try:
        value = builder.value()
    except ReaderError as e:
        position = _end_position(text[: e.position])
        message = f"the character U+{e.character:04X} is not allowed in YAML. Remove it"
        builder.add_problem(position, message)
    except MarkedYAMLError as e:
        builder.add_problem(*_syntax_error(e))
    except YAMLError as e:
        builder.add_problem((1, 1), f"invalid YAML: {e}")
    return builder.document(value)


def _end_position(text: str) -> Position:
    """Return the position just after ``text``."""
    line = text.count("\n") + 1
    return line, len(text) - (text.rfind("\n") + 1) + 1


class _StopReadingError(Exception):
    """The rest of the file cannot be read; the reason is among the problems."""


class _DocumentBuilder:
    """Builds a document's value from parser events, so that it sees each alias and tag.

    Most of the time that a large repository of specs takes is spent here: hence the local names,
    and keys and scalars handled in place unless they are unusual.
    """

    def __init__(self, path: str, source: EventSource, length: int) -> None:
        self._path = path
        self._root: Node | None = None
        self.problems: list[Problem] = []
        self._nodes = 0
        self._source = source.next
        self._types = source.types
        # no character makes more than three nodes: a mapping, its empty key and its empty value
        self._next = source.next if length * 3 <= MAX_NODES else self._next_counted

    def document(self, value: Any) -> Document:
        """Return the document with this value and the problems found so far."""
        return Document(value, Positions(self._path, self._root), tuple(self.problems))

    def value(self) -> Any:
        """Return the document's value, None if it has none or cannot be read to its end."""
        value, documents = None, 0
        types = self._types
        try:
            while type(event := self._next()) is not types.stream_end:
                if type(event) is types.document_start:
                    documents += 1
                    if documents > 1:
                        self._stop(event, "a second document begins here. Put it in its own file")
                    if event.version or event.tags:
                        self._stop(event, "%YAML and %TAG are not allowed. Remove the line")
                    event = self._next()
                    value, children = self._value(event, 0)
                    self._root = (None, event.start_mark, children)
        except _StopReadingError:
            return None
        return value

    def add_problem(self, position: Position, message: str) -> None:
        """Add a problem."""
        self.problems.append(Positions(self._path).problem(position, message))

    def _add(self, event: Any, message: str) -> None:
        mark = event.start_mark
        self.add_problem((mark.line + 1, mark.column + 1), message)

    def _stop(self, event: Any, message: str) -> None:
        self._add(event, message)
        raise _StopReadingError

    def _value(self, event: Any, depth: int) -> tuple[Any, Any]:
        """Return a value and the nodes of its children."""
        kind, types = type(event), self._types
        if kind is types.scalar:
            return self._scalar(event), None
        if kind is types.alias:
            self._add(event, f"the alias *{event.anchor} is not allowed. Write the value again")
            return None, None
        if event.tag is not None:
            self._add(event, f"the tag {event.tag} is not allowed. Remove it")
        if depth > MAX_DEPTH:
            self._stop(event, f"nested deeper than {MAX_DEPTH} levels")
        is_mapping = kind is types.mapping_start
        return self._mapping(depth + 1) if is_mapping else self._sequence(depth + 1)

    def _next_counted(self) -> Any:
        event = self._source()
        if type(event) in self._types.nodes:
            self._nodes += 1
            if self._nodes > MAX_NODES:
                self._stop(event, f"more than {MAX_NODES:,} values. Split the file")
        return event

    def _sequence(self, depth: int) -> tuple[list[Any], list[Node]]:
        out: list[Any] = []
        nodes: list[Node] = []
        end = self._types.sequence_end
        while type(event := self._next()) is not end:
            value, children = self._value(event, depth)
            out.append(value)
            nodes.append((None, event.start_mark, children))
        return out, nodes

    def _mapping(self, depth: int) -> tuple[dict[str, Any], dict[str, Node]]:
        out: dict[str, Any] = {}
        nodes: dict[str, Node] = {}
        end, scalar, following = self._types.mapping_end, self._types.scalar, self._next
        while type(event := following()) is not end:
            mark, key = event.start_mark, None
            if type(event) is scalar and event.implicit[0] and event.tag is None:
                key = usual_value(event.value)
            if type(key) is not str or len(key) > MAX_KEY or key == "<<":
                key = self._key(event, depth)
            if key in out:
                line = nodes[key][0].line + 1
                self._add(event, f"duplicate key {key!r}, first used in line {line}. Remove one")
            event, children, value = following(), None, UNUSUAL
            if type(event) is not scalar:
                value, children = self._value(event, depth)
            elif event.implicit[0] and event.tag is None:
                value = usual_value(event.value)
            if value is UNUSUAL:
                value = self._scalar(event)
            if key is None or key in out:
                continue
            out[key] = value
            is_empty = value is None and getattr(event, "value", None) == ""  # has no position
            nodes[key] = (mark, mark if is_empty else event.start_mark, children)
        return out, nodes

    def _key(self, event: Any, depth: int) -> str | None:
        """Return a key, None if it is invalid: the mapping is then read without it."""
        if type(event) is not self._types.scalar:
            self._value(event, depth)
            if type(event) is not self._types.alias:
                self._add(event, "a list or a mapping cannot be a key. Keys are text")
            return None
        key = self._scalar(event)
        if not isinstance(key, str):
            self._add(event, f"the key {event.value} is not text. Put it in quotes")
            return None
        if len(key) > MAX_KEY:
            found = f"the key {key[:40]}... has {len(key):,} characters"
            self._add(event, f"{found}, at most {MAX_KEY:,} are allowed. Shorten it")
            return None
        if key == "<<" and event.implicit[0]:
            self._add(event, "the merge key << is not allowed. Write the keys out")
            return None
        return key

    def _scalar(self, event: Any) -> Any:
        if event.tag is not None:
            self._add(event, f"the tag {event.tag} is not allowed. Remove it")
        text: str = event.value
        if not event.implicit[0]:
            return text if text.isascii() else self._text(event, text)
        try:
            value = resolve(text)
        except OverflowError:
            self._add(event, f"the integer {text[:20]}... is not in the range of 64 bits")
            return 0
        except ValueError:
            self._add(event, f"{json_text.dumps(text[:40])} is not a valid number")
            return text
        if type(value) is str:
            return value if value.isascii() else self._text(event, value)
        if type(value) is float and not math.isfinite(value):
            self._add(event, f"expected a finite number, got {text}")
            return 0.0
        return value

    def _text(self, event: Any, text: str) -> str:
        """Return text with surrogate pairs joined: JSON, which is YAML, escapes emoji as pairs."""
        if not any("\ud800" <= letter <= "\udfff" for letter in text):
            return text
        try:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self._add(event, "an escape like \\ud800 needs the second half of its surrogate pair")
            return ""


def _syntax_error(error: Any) -> tuple[Position, str]:
    mark, start = error.problem_mark or error.context_mark, error.context_mark
    message = f"invalid YAML: {error.problem or error.context}"
    if error.context and error.problem:
        begun = f" that begins in line {start.line + 1}" if start else ""
        message += f" ({error.context}{begun})"
    return (mark.line + 1, mark.column + 1) if mark else (1, 1), message
