"""The one YAML reader: bytes to JSON values, and where in the file each of them stands.

YAML 1.2, one document, and nothing that a reviewer could misread: no aliases, tags, merge keys,
directives or duplicate keys.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtf.errors import SpecError
from mtf.spec.yaml.event_parsers import careful, differs, quick
from mtf.spec.yaml.plain_scalars import resolve
from mtf.spec.yaml.positions import Positions

if TYPE_CHECKING:
    from mtf.errors import Problem
    from mtf.spec.yaml.event_parsers import Source
    from mtf.spec.yaml.positions import Node, Position

MAX_BYTES = 1 << 20
MAX_CAREFUL_BYTES = 50_000  # of a file that only the slow parser may read
MAX_NODES = 50_000
MAX_DEPTH = 50


@dataclass(frozen=True)
class Document:
    """One file as read. ``value`` is None where it could not be read to its end."""

    value: Any
    positions: Positions
    problems: tuple[Problem, ...]


def load_yaml(raw: bytes, path: str) -> tuple[Any, Positions]:
    """Return the value of a YAML file and its positions.

    Raises:
        SpecError: it is no YAML, or holds what a committed file must not hold.
    """
    document = read(raw, path)
    if document.problems:
        raise SpecError(list(document.problems))
    return document.value, document.positions


def read(raw: bytes, path: str) -> Document:
    """Read a YAML file as far as possible; never raises for what stands in it."""
    positions = Positions(path)
    if len(raw) > MAX_BYTES:
        problem = positions.problem((1, 1), f"larger than {MAX_BYTES:,} bytes")
        return Document(None, positions, (problem,))
    try:
        text = raw.decode("utf-8").removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    except UnicodeDecodeError as e:
        position = _position_of(raw[: e.start].decode("utf-8"))
        problem = positions.problem(position, "not UTF-8 text. Save the file as UTF-8")
        return Document(None, positions, (problem,))
    found = _read_quickly(text, path)
    if found is not None and (not found.problems or len(raw) > MAX_CAREFUL_BYTES):
        return found
    if len(raw) <= MAX_CAREFUL_BYTES:
        return _read_carefully(text, path)
    at = differs(text) or 0
    message = f"{text[at]!r} here needs a slow reader, which takes {MAX_CAREFUL_BYTES:,} bytes"
    problem = positions.problem(
        _position_of(text[:at]), f"{message}. Write it plainly, or split the file"
    )
    return Document(None, positions, (problem,))


def _read_quickly(text: str, path: str) -> Document | None:
    """Return the file as the quick parser reads it, None where the other one has to."""
    text = text.replace("\r\n", "\n")
    source = quick(text) if differs(text) is None else None
    if source is None:
        return None
    events, error = source
    reader = _Reader(path, events)
    try:
        value = reader.document()
    except error as e:
        reader.note(*_syntax_error(e))
        value = None
    return reader.read(value) if value or reader.problems else None


def _read_carefully(text: str, path: str) -> Document:
    from ruamel.yaml.error import MarkedYAMLError, YAMLError
    from ruamel.yaml.reader import ReaderError

    reader = _Reader(path, careful(text))
    value = None
    try:
        value = reader.document()
    except ReaderError as e:
        position = _position_of(text[: e.position])
        reader.note(position, f"the character U+{e.character:04X} is not allowed in YAML")
    except MarkedYAMLError as e:
        reader.note(*_syntax_error(e))
    except YAMLError as e:
        reader.note((1, 1), f"not YAML: {e}")
    return reader.read(value)


def _position_of(text_before: str) -> Position:
    line = text_before.count("\n") + 1
    return line, len(text_before) - (text_before.rfind("\n") + 1) + 1


class _StopReadingError(Exception):
    """The rest of the file cannot be read, the reason is noted."""


class _Reader:
    """Builds values from parser events, so that each alias and tag is seen where it stands.

    What it does for each value is most of what a large repository of specs costs.
    """

    def __init__(self, path: str, source: Source) -> None:
        self._path = path
        self._root: Node | None = None
        self.problems: list[Problem] = []
        self._nodes = 0
        self._next = source.next
        self._kinds = source.kinds

    def read(self, value: Any) -> Document:
        """Return the document of a value that was read."""
        return Document(value, Positions(self._path, self._root), tuple(self.problems))

    def document(self) -> Any:
        """Return the document's value, None where there is none or it cannot be read to its end."""
        value, documents = None, 0
        kinds = self._kinds
        try:
            while type(event := self._next()) is not kinds.stream_end:
                if type(event) is kinds.document_start:
                    documents += 1
                    if documents > 1:
                        self._stop(event, "a second document: a file holds one")
                    if event.version or event.tags:
                        self._stop(
                            event, "%YAML and %TAG lines are not allowed: the file is YAML 1.2"
                        )
                    event = self._next()
                    value, inside = self._value(event, 0)
                    self._root = (None, event.start_mark, inside)
        except _StopReadingError:
            return None
        return value

    def note(self, position: Position, message: str) -> None:
        """Add a problem."""
        self.problems.append(Positions(self._path).problem(position, message))

    def _note(self, event: Any, message: str) -> None:
        mark = event.start_mark
        self.note((mark.line + 1, mark.column + 1), message)

    def _stop(self, event: Any, message: str) -> None:
        self._note(event, message)
        raise _StopReadingError

    def _value(self, event: Any, depth: int) -> tuple[Any, Any]:
        """Return a value, and the positions of what is inside it."""
        kind, kinds = type(event), self._kinds
        if kind is kinds.scalar:
            return self._scalar(event), None
        if kind is kinds.alias:
            self._note(event, f"the alias *{event.anchor} is not allowed: write the value again")
            return None, None
        if event.tag is not None:
            self._note(event, f"the tag {event.tag} is not allowed")
        if depth > MAX_DEPTH:
            self._stop(event, f"nested deeper than {MAX_DEPTH} levels")
        self._count(event)
        is_mapping = kind is kinds.mapping_start
        return self._mapping(depth + 1) if is_mapping else self._sequence(depth + 1)

    def _count(self, event: Any) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._stop(event, f"more than {MAX_NODES:,} values")

    def _sequence(self, depth: int) -> tuple[list[Any], list[Node]]:
        out: list[Any] = []
        positions: list[Node] = []
        end = self._kinds.sequence_end
        while type(event := self._next()) is not end:
            value, inside = self._value(event, depth)
            out.append(value)
            positions.append((None, event.start_mark, inside))
        return out, positions

    def _mapping(self, depth: int) -> tuple[dict[str, Any], dict[str, Node]]:
        out: dict[str, Any] = {}
        positions: dict[str, Node] = {}
        end, scalar = self._kinds.mapping_end, self._kinds.scalar
        while type(event := self._next()) is not end:
            key, at = self._key(event, depth), event.start_mark
            if key in out:
                line = positions[key][0].line + 1
                self._note(event, f"the key {key!r} stands twice, first in line {line}")
            event, inside = self._next(), None
            if type(event) is scalar:
                value = self._scalar(event)
            else:
                value, inside = self._value(event, depth)
            if key is None or key in out:
                continue
            out[key] = value
            nothing = value is None and getattr(event, "value", None) == ""  # it stands nowhere
            positions[key] = (at, at if nothing else event.start_mark, inside)
        return out, positions

    def _key(self, event: Any, depth: int) -> str | None:
        """Return a key, None where it is none: the mapping is then read on without it."""
        if type(event) is not self._kinds.scalar:
            self._value(event, depth)
            if type(event) is not self._kinds.alias:
                self._note(event, "a list or a mapping cannot be a key")
            return None
        key = self._scalar(event)
        if not isinstance(key, str):
            self._note(event, f"the key {event.value} is not text: put it in quotes")
            return None
        if key == "<<" and event.implicit[0]:
            self._note(event, "the merge key << is not allowed: write the keys out")
            return None
        return key

    def _scalar(self, event: Any) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            self._stop(event, f"more than {MAX_NODES:,} values")
        if event.tag is not None:
            self._note(event, f"the tag {event.tag} is not allowed")
        text: str = event.value
        if not event.implicit[0]:
            return text if text.isascii() else self._text(event, text)
        try:
            value = resolve(text)
        except ValueError:
            self._note(event, f"{json.dumps(text[:40])} is not a usable number")
            return text
        if type(value) is str:
            return value if value.isascii() else self._text(event, value)
        if type(value) is float and not math.isfinite(value):
            self._note(event, f"{text} is not a usable number: infinity and nan have no JSON")
            return 0.0
        return value

    def _text(self, event: Any, text: str) -> str:
        """Return text with surrogate pairs joined: JSON, which is YAML, escapes emoji as pairs."""
        if not any("\ud800" <= letter <= "\udfff" for letter in text):
            return text
        try:
            return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError:
            self._note(event, "half of a surrogate pair is not text")
            return ""


def _syntax_error(error: Any) -> tuple[Position, str]:
    mark, start = error.problem_mark or error.context_mark, error.context_mark
    message = f"not YAML: {error.problem or error.context}"
    if error.context and error.problem:
        begun = f" that begins in line {start.line + 1}" if start else ""
        message += f" ({error.context}{begun})"
    return (mark.line + 1, mark.column + 1) if mark else (1, 1), message
