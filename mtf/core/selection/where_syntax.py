"""The grammar of `--where`: text to a tree of comparisons. Nothing in the text is evaluated.

::

    either     = both {"or" both}
    both       = term {"and" term}
    term       = "not" term | "(" either ")" | comparison
    comparison = KEY ("=" | "!=" | "<" | "<=" | ">" | ">=") VALUE {"," VALUE}

A value ends at a space, or at a parenthesis that was not opened in it; in quotes it may hold both.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, NoReturn

from mtf.core.vocabulary.shown_text import visible
from mtf.errors import UsageError

Operator = Literal["=", "!=", "<", "<=", ">", ">="]

_OPERATORS: dict[str, Operator] = {
    "!=": "!=",
    "<=": "<=",
    ">=": ">=",
    "==": "=",
    "=": "=",
    "<": "<",
    ">": ">",
}
_OPERATOR = re.compile("|".join(_OPERATORS))
_KEY = re.compile(r"[^\s()=!<>,'\"&|]+")
_WORD = re.compile(r"(?:and|or|not)(?![^\s()])", re.IGNORECASE)
_QUOTES = "\"'"
_DEEPEST = 50  # levels of parentheses and of "not"
_LONGEST = 10_000  # characters


class WhereError(UsageError):
    """A condition is not valid; the message names the column, counted from 1."""

    def __init__(self, text: str, at: int, problem: str) -> None:
        super().__init__(f"--where {visible(text)}: column {at + 1}: {problem}")


@dataclass(frozen=True)
class Value:
    """One value of a comparison, and its place in the text, counted from 0."""

    text: str
    at: int
    is_quoted: bool = False


@dataclass(frozen=True)
class Comparison:
    """A key that is compared with values; one of several values is enough."""

    key: str
    operator: Operator
    values: tuple[Value, ...]
    at: int  # of the key in the text


@dataclass(frozen=True)
class Not:
    """Holds where the term does not."""

    term: Term


@dataclass(frozen=True)
class Both:
    """Holds where all terms do."""

    terms: tuple[Term, ...]


@dataclass(frozen=True)
class Either:
    """Holds where one of the terms does."""

    terms: tuple[Term, ...]


Term = Comparison | Not | Both | Either


def parse_where(text: str) -> Term:
    """Return the tree of a condition.

    Raises:
        WhereError: the text is not a condition.
    """
    if len(text) > _LONGEST:
        raise WhereError(text, 0, f"longer than {_LONGEST} characters")
    return _Parser(text).whole()


class _Parser:
    """Reads a text from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def whole(self) -> Term:
        term = self._either()
        if self._rest():
            if self._rest()[0] == ")":
                self._fail("this parenthesis was not opened")
            self._fail(f'expected "and" or "or" before {self._shown()}{_hint(self._rest())}')
        return term

    def _either(self) -> Term:
        terms = [self._both()]
        while self._take("or"):
            terms.append(self._both())
        return terms[0] if len(terms) == 1 else Either(tuple(terms))

    def _both(self) -> Term:
        terms = [self._term()]
        while self._take("and"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else Both(tuple(terms))

    def _term(self) -> Term:
        self._depth += 1
        if self._depth > _DEEPEST:
            self._fail(f"nested more than {_DEEPEST} levels deep")
        if self._take("not"):
            term: Term = Not(self._term())
        elif self._rest()[:1] == "(":
            opened = self._at
            self._at += 1
            term = self._either()
            if self._rest()[:1] != ")":
                raise WhereError(self._text, opened, "this parenthesis is not closed")
            self._at += 1
        else:
            term = self._comparison()
        self._depth -= 1
        return term

    def _comparison(self) -> Comparison:
        rest = self._rest()
        key = _KEY.match(rest)
        if key is None or _WORD.match(rest):
            found = f", got {self._shown()}{_hint(rest)}" if rest else ""
            self._fail(f"expected a condition like state=failed{found}")
        start = self._at
        self._at += key.end()
        operator = _OPERATOR.match(self._rest())
        if operator is None:
            got = f", got {self._shown()}" if self._rest() else ""
            self._fail(f"expected =, !=, <, <=, > or >= after {key[0]!r}{got}")
        self._at += operator.end()
        return Comparison(key[0], _OPERATORS[operator[0]], self._values(), start)

    def _values(self) -> tuple[Value, ...]:
        values = []
        while True:
            value, more = self._value()
            values.append(value)
            if not more:
                return tuple(values)

    def _value(self) -> tuple[Value, bool]:
        """Return the next value, and True if a comma follows it."""
        rest = self._rest()
        start = self._at
        if rest[:1] and rest[0] in _QUOTES:
            end = rest.find(rest[0], 1)
            if end < 0:
                self._fail("this quote is not closed")
            self._at += end + 1
            value, more = Value(rest[1:end], start, is_quoted=True), self._text[self._at :][:1]
            self._at += more == ","
            return value, more == ","
        word = _bare(rest)
        if not word.strip(","):
            self._fail("a value is missing here")
        self._at += len(word)
        return Value(word.removesuffix(","), start), word.endswith(",")

    def _rest(self) -> str:
        """Return the text that is left, from its next character that is no space."""
        rest = self._text[self._at :]
        found = rest.lstrip()
        self._at += len(rest) - len(found)
        return found

    def _take(self, word: str) -> bool:
        """Step over a word of the grammar if it comes next."""
        found = _WORD.match(self._rest())
        if found is None or found[0].lower() != word:
            return False
        self._at += found.end()
        return True

    def _shown(self) -> str:
        return repr(self._rest().split(maxsplit=1)[0][:40])

    def _fail(self, problem: str) -> NoReturn:
        raise WhereError(self._text, self._at, problem)


def _bare(rest: str) -> str:
    """Return the value without quotes at the beginning of a text."""
    opened = 0
    for n, character in enumerate(rest):
        opened += (character == "(") - (character == ")")
        if character.isspace() or opened < 0:
            return rest[:n]
    return rest


def _hint(rest: str) -> str:
    known = {"&": "and", "|": "or", "!": "not"}
    return f": write {known[rest[0]]!r}" if rest[:1] in known else ""
