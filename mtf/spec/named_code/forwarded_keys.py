"""Reads how an ``__init__`` hands its ``**kwargs`` on to the next class."""

from __future__ import annotations

import ast
from typing import NamedTuple

from mtf.spec.named_code.call_signature import Signature

_READERS = frozenset({"locals", "vars", "eval", "exec"})  # that may use any argument


class Forwarding(NamedTuple):
    """What the next ``__init__`` gets besides all of ``**kwargs``."""

    positional: int
    keywords: frozenset[str]


def forwarding(init: ast.FunctionDef) -> Forwarding | None:
    """Return the way in which an ``__init__`` hands its ``**kwargs`` on to ``super().__init__``.

    None if it may do anything else with them.
    """
    if init.args.kwarg is None:
        return None
    name = init.args.kwarg.arg
    used = [n.id for each in init.body for n in ast.walk(each) if isinstance(n, ast.Name)]
    if used.count(name) != 1 or not _READERS.isdisjoint(used):
        return None
    calls = (_call_of_super(statement) for statement in init.body)
    return next((found for call in calls if call and (found := _forwarded(call, name))), None)


def _call_of_super(statement: ast.stmt) -> ast.Call | None:
    """Return the call if a statement is ``super().__init__(...)``."""
    match statement:
        case ast.Expr(
            ast.Call(
                func=ast.Attribute(
                    value=ast.Call(func=ast.Name(id="super"), args=[]), attr="__init__"
                )
            ) as call
        ):
            return call
        case _:
            return None


def _forwarded(call: ast.Call, name: str) -> Forwarding | None:
    given = [each.arg for each in call.keywords if each.arg is not None]
    rest = [each.value for each in call.keywords if each.arg is None]
    is_whole = len(rest) == 1 and isinstance(rest[0], ast.Name) and rest[0].id == name
    if not is_whole or any(isinstance(each, ast.Starred) for each in call.args):
        return None
    return Forwarding(len(call.args), frozenset(given))


def given_in(call: ast.Call) -> Forwarding | None:
    """Return the arguments in a call of ``functools.partial``, None if they are not all known."""
    keywords = [each.arg for each in call.keywords if each.arg is not None]
    is_known = len(keywords) == len(call.keywords)
    if not is_known or any(isinstance(each, ast.Starred) for each in call.args):
        return None
    return Forwarding(len(call.args) - 1, frozenset(keywords))


def with_forwarded(own: Signature, following: Signature, how: Forwarding) -> Signature:
    """Return the signature of a class whose ``**kwargs`` go to one that is called otherwise."""
    left = list(following.parameters.items())[how.positional :]
    handed_on = {key: p for key, p in left if key not in how.keywords}
    return Signature(own.name, {**handed_on, **own.parameters}, following.takes_any)


def with_given(known: Signature, given: Forwarding) -> Signature:
    """Return the signature of ``functools.partial`` with some arguments of a function."""
    left = list(known.parameters.items())[given.positional :]
    parameters = {
        key: p._replace(is_required=p.is_required and key not in given.keywords) for key, p in left
    }
    return known._replace(parameters=parameters)
