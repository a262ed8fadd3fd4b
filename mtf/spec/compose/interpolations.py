"""Interpolations like ``${model.type}``: read by OmegaConf's grammar, and only references allowed.

A spec may come from a pull request, and what its interpolations give is shown in comments and
recorded in the ledger. So nothing in them is evaluated: a reference names a key of the same
configuration, and everything else that the grammar knows is refused: resolvers such as
``${oc.env:HOME}``, and interpolations within interpolations, which could spell one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from omegaconf.errors import GrammarParseError
from omegaconf.grammar.gen.OmegaConfGrammarParser import OmegaConfGrammarParser as Grammar
from omegaconf.grammar_parser import parse as parse_tree
from omegaconf.grammar_visitor import GrammarVisitor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mtf.spec.yaml.positions import Loc

OPENING = "${"
MAX_LENGTH = 1_000  # of a text with interpolations: the parser takes up to 20 ms for so many
MAX_TOTAL = 20_000  # of all such texts of one file
# parsing takes quadratic time in the depth, and is left out for what is refused anyway
_NESTED_TWICE = re.compile(r"\$\{[^}]*\$\{[^}]*\$\{")


class InterpolationError(ValueError):
    """The text is not an interpolation, or not one that is allowed."""


@dataclass(frozen=True)
class Reference:
    """A key that an interpolation names.

    ``up``: the number of dots before it. 0: the path begins at the root. 1: at the mapping that
    contains the interpolation, 2: at the one around that, and so on.
    """

    up: int
    path: tuple[str, ...]

    def __str__(self) -> str:
        """Return the reference as it is written between the braces."""
        return "." * self.up + ".".join(self.path)


@dataclass(frozen=True, eq=False)
class Interpolated:
    """A text with interpolations, parsed."""

    references: tuple[Reference, ...]
    is_alone: bool  # one reference with no text around it: its value keeps its type
    _tree: Any

    def filled(self, values: Sequence[Any]) -> Any:
        """Return the text with the value of each reference in its place."""
        left = iter(values)
        visitor = GrammarVisitor(lambda _key, _memo: next(left), _refuse_resolver, None)
        return visitor.visit(self._tree)


def _refuse_resolver(**_call: object) -> None:
    raise AssertionError("resolvers are refused when a text is parsed")


@lru_cache(maxsize=2048)
def parse(text: str) -> Interpolated:
    """Return a text with interpolations as its references.

    Raises:
        InterpolationError: it has a syntax error, or something else than references.
    """
    if len(text) > MAX_LENGTH:
        raise InterpolationError(
            f"a text with interpolations may have {MAX_LENGTH:,} characters, this one has"
            f" {len(text):,}. Write the values"
        )
    if _NESTED_TWICE.search(text):
        raise InterpolationError(_nested(text))
    try:
        tree = parse_tree(text)
    except (GrammarParseError, RecursionError) as e:
        words = str(e).splitlines()[0][:100]
        reason = words if isinstance(e, GrammarParseError) else "nested too deeply"
        raise InterpolationError(
            f"not a valid interpolation: {reason}. Write references like ${{model.type}}"
        ) from None
    parts = list(tree.getChild(0).getChildren())  # interpolations and the text between them
    found = [part.getChild(0) for part in parts if isinstance(part, Grammar.InterpolationContext)]
    return Interpolated(tuple(map(_reference, found)), len(parts) == len(found) == 1, tree)


def _reference(context: Any) -> Reference:
    if isinstance(context, Grammar.InterpolationResolverContext):
        raise InterpolationError(
            f"${{{context.getChild(1).getText()[:40]}:...}} is not allowed: its value is not in the"
            " commit and may be a secret. Write the value, name a key (${model.type}), or read it"
            " in the job from slurm.variables"
        )
    keys = [part for part in context.getChildren() if isinstance(part, Grammar.ConfigKeyContext)]
    if any(isinstance(key.getChild(0), Grammar.InterpolationContext) for key in keys):
        raise InterpolationError(_nested(context.getText()))
    text = context.getText().removeprefix(OPENING).lstrip()
    return Reference(len(text) - len(text.lstrip(".")), tuple(key.getText() for key in keys))


def _nested(text: str) -> str:
    return (
        f"{text[:40]}: an interpolation within an interpolation is not allowed. Write the name of"
        " the key"
    )


def interpolations(value: Any, loc: Loc = ()) -> Iterator[tuple[Loc, str]]:
    """Yield the path and text of every value with an interpolation."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from interpolations(item, (*loc, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from interpolations(item, (*loc, i))
    elif isinstance(value, str) and OPENING in value:
        yield loc, value


def refused(value: Any) -> Iterator[tuple[Loc, str]]:
    """Yield the path of every interpolation that is not allowed, with the reason.

    Each text is parsed once, and those beyond ``MAX_TOTAL`` are refused unread.
    """
    reasons: dict[str, str | None] = {}
    total = 0
    for loc, text in interpolations(value):
        if text not in reasons:
            total += len(text)
            if total > MAX_TOTAL:
                yield loc, f"more than {MAX_TOTAL:,} characters of interpolations. Write the values"
                return
            reasons[text] = problem(text)
        if reason := reasons[text]:
            yield loc, reason


def problem(text: str) -> str | None:
    """Return the reason why a text's interpolations are not allowed, None if they are."""
    try:
        parse(text)
    except InterpolationError as e:
        return str(e)
    return None
