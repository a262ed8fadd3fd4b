"""`Signature`: the keys that a class or function takes, whatever they were read from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLAIN = frozenset({"int", "float", "str", "bool"})
_OPTIONAL = r"(?:typing\.)?Optional\[(.+)\]"
_LITERAL = r"(?:typing\.)?Literal\[([^\[\]]+)\]"
_CHOICE = r"'[\w.-]+'"  # a text that is one of the allowed values


class Parameter(NamedTuple):
    """One parameter that can be given by its name.

    Attributes:
        annotation: as it is written, empty if there is none.
        has_bool_default: None if the default is an expression whose value is unknown.
    """

    is_required: bool
    annotation: str = ""
    has_bool_default: bool | None = None

    @property
    def is_switch(self) -> bool | None:
        """Return True for a boolean, None if that cannot be known.

        As in the trainer: a parameter without annotation and default counts as one.
        """
        if self.annotation:
            return "bool" in self.annotation
        return True if self.is_required else self.has_bool_default

    @property
    def types(self) -> frozenset[str]:
        """Return the types and values of the annotation, see ``plain_types``."""
        return plain_types(self.annotation)


class Signature(NamedTuple):
    """The keys that a class or function can be called with.

    Attributes:
        name: of the class or function, for messages.
        takes_any: whether it takes further keys by ``**kwargs``.
    """

    name: str
    parameters: Mapping[str, Parameter]
    takes_any: bool = False

    @property
    def required(self) -> frozenset[str]:
        """Return the names that it must be called with."""
        return frozenset(name for name, p in self.parameters.items() if p.is_required)

    def refuses(self, key: str) -> bool:
        """Return True if it cannot be called with a key."""
        return not self.takes_any and key not in self.parameters


def plain_types(annotation: str) -> frozenset[str]:
    """Return the plain types that an annotation allows, and texts in quotes: ``'min'``.

    None unless all parts of it are int, float, str, bool or such texts.
    """
    text = annotation.strip()
    quote, inside = text[:1], text[1:-1]
    if quote in ("'", '"') and text[-1:] == quote and quote not in inside:
        text = inside  # an annotation may be written as a text
    if whole := re.fullmatch(_OPTIONAL, text):
        text = whole[1]
    text = re.sub(_LITERAL, lambda found: "|".join(found[1].split(",")), text)
    parts = {part.strip().replace('"', "'") for part in text.split("|")} - {"None"}
    is_plain = all(part in _PLAIN or re.fullmatch(_CHOICE, part) for part in parts)
    return frozenset(parts) if is_plain else frozenset()


def fits(value: Any, types: frozenset[str]) -> bool:
    """Return False if a JSON value is certainly of another type than these plain ones."""
    plain = types & _PLAIN
    match value:
        case bool():
            return bool(plain - {"str"})
        case int():
            return bool(plain & {"int", "float", "bool"})
        case float():
            return "float" in plain or (value.is_integer() and bool(plain - {"str"}))
        case str():
            return "str" in plain or f"'{value}'" in types
        case None:
            return True
        case _:
            return False


# -- as text, for the table of known signatures ----------------------------------------------------


def decoded(name: str, text: str) -> Signature:
    """Return a signature from text: ``params! lr amsgrad:bool **``; ``!`` marks required ones."""
    words = text.split()
    parameters = {}
    for word in words:
        if word != "**":
            key, _, types = word.partition(":")
            parameters[key.rstrip("!")] = Parameter(key.endswith("!"), types, has_bool_default=None)
    return Signature(name, parameters, "**" in words)
