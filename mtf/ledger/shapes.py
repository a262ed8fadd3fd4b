"""`Shape`: the fields of a kind of record, with their types, as its data class declares them."""

from __future__ import annotations

from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Generic, TypeVar

from mtf.ledger.fields import FieldError, check_depth, refuse

_T = TypeVar("_T")
_NULL = type(None)
_TYPES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("str", "CommitId", "RunId", "RunKey", "SubmissionId", "Token"), (str,)),
    **dict.fromkeys(("JobId", "RunState", "Sync"), (str,)),
    **dict.fromkeys(("Mapping", "Checkpoint", "Best", "Origin"), (dict,)),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "tuple": (list,),
    "None": (_NULL,),
}
_WORDS: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
    _NULL: "null",
}
_MOST_KNOWN = 1000  # shapes that are remembered; records that mtf writes have some dozens


class Shape(Generic[_T]):
    """The fields of a record, or of a part of one, with their types and defaults."""

    def __init__(self, made: type[_T], **also: tuple[type, ...]) -> None:
        """Take the types from the annotations of a data class; ``also``: further ones."""
        self.made = made
        assert is_dataclass(made)
        named = [f for f in fields(made) if f.name != "unknown"]
        self._types = {f.name: _types_of(str(f.type)) + also.get(f.name, ()) for f in named}
        self._required = [f.name for f in named if _default(f) is MISSING]
        self._defaults = {f.name: _default(f) for f in named}
        # shapes that are right -> the keys that are no fields; None: it has all fields, no others
        self._right: dict[tuple[Any, ...], tuple[str, ...] | None] = {}

    def known(self, value: Any, derived: frozenset[str] = frozenset()) -> dict[str, Any]:
        """Return the fields of an object, with defaults for missing ones; the types are right.

        Keys that are no fields are in the field ``unknown``; those in ``derived`` are left out.
        ``value`` is used up.

        Raises:
            FieldError: it is no object, a field is missing, or has the wrong type.
        """
        if type(value) is not dict:
            refuse("it", "a JSON object", value)
        shape = (*value, *map(type, value.values()))
        try:
            others = self._right[shape]
        except KeyError:
            others = self._checked(value, derived)
            if len(self._right) < _MOST_KNOWN:
                self._right[shape] = others
        for name in derived:
            value.pop(name, None)
        if others is None:
            value["unknown"] = {}
            return value
        unknown = {name: value.pop(name) for name in others}
        check_depth("unknown keys", unknown)
        return {**self._defaults, **value, "unknown": unknown}

    def _checked(self, value: dict[str, Any], derived: frozenset[str]) -> tuple[str, ...] | None:
        """Check the types of all fields; return the keys that are no fields."""
        for name in self._required:
            if name not in value:
                raise FieldError(f"{name}: missing")
        for name, types in self._types.items():
            if name in value and type(value[name]) not in types:
                wanted = " or ".join(dict.fromkeys(_WORDS[kind] for kind in types))
                refuse(name, wanted, value[name])
        others = tuple(name for name in value if name not in self._types and name not in derived)
        is_plain = not others and self._types.keys() <= value.keys()
        return None if is_plain else others


def _types_of(annotation: str) -> tuple[type, ...]:
    """Return the JSON types of an annotation such as ``Mapping[str, Any] | None``."""
    names = (part.strip().partition("[")[0] for part in annotation.split("|"))
    return tuple(kind for name in names for kind in _TYPES[name])


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
