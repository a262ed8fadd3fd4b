"""Reads the signature of a class or function from its source, as ``inspect.signature`` gives it.

What cannot be known for certain has none: after a decorator that may change it, with a metaclass,
or inherited from code outside of the files that the table of known signatures lacks.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

from mtf.spec.named_code.call_signature import Parameter, Signature
from mtf.spec.named_code.find_code import (
    UNKNOWN,
    Defined,
    Definition,
    Outside,
    Partial,
    Unknown,
    single,
)
from mtf.spec.named_code.forwarded_keys import forwarding, given_in, with_forwarded, with_given
from mtf.spec.named_code.known_signatures import has_no_init, of_class
from mtf.spec.named_code.source_module import Bindings, literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mtf.spec.named_code.find_code import Found, SourceCode

_HARMLESS = frozenset(  # decorators after which the signature is the same
    {
        "functools.cache",
        "functools.lru_cache",
        "functools.total_ordering",
        "typing.final",
        "typing.runtime_checkable",
        "typing_extensions.final",
        "torch.no_grad",
    }
)
_DATACLASS = "dataclasses.dataclass"
_METACLASSES = frozenset({"abc.ABCMeta", "builtins.type"})
Line: TypeAlias = "list[Defined | Outside | Unknown]"  # a class and its bases, in Python's order
Init: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef


class SignatureReader:
    """Reads signatures from the modules of a commit."""

    def __init__(self, code: SourceCode) -> None:
        self._code = code

    def of(self, found: Found) -> Signature | None:
        """Return the signature of what a name stands for, None if it is not known."""
        match found:
            case Outside(dotted):
                return of_class(dotted)
            case Defined(ast.ClassDef() as node, _):
                return self._of_class(node, found)
            case Defined(ast.FunctionDef() | ast.AsyncFunctionDef() as node, _):
                return self._of_function(node, found)
            case Partial(made, call):
                known, given = self.of(made), given_in(call)
                return with_given(known, given) if known and given else None
            case _:
                return None

    def base_names(self, found: Found) -> list[str]:
        """Return the dotted names of the classes outside of the files that a class derives from."""
        line = self._line(found) if isinstance(found, Defined) else [found]
        return [each.dotted for each in line if isinstance(each, Outside)]

    def has_method(self, found: Found, name: str) -> bool | None:
        """Return True if a class defines or inherits a method, None if that is not known."""
        if not isinstance(found, Defined) or not isinstance(found.node, ast.ClassDef):
            return None
        line = self._line(found)
        if any(isinstance(c, Defined) and name in _body(c).by_name for c in line):
            return True
        is_known = all(
            isinstance(c, Defined) or (isinstance(c, Outside) and _is_known_class(c.dotted))
            for c in line
        )
        return False if is_known and not found.node.decorator_list else None

    # -- functions ---------------------------------------------------------------------------------

    def _of_function(self, node: Init, found: Defined) -> Signature | None:
        if not self._are_harmless(node.decorator_list, found):
            return None
        return _signature(node.name, node.args)

    def _are_harmless(self, decorators: Sequence[ast.expr], found: Defined) -> bool:
        names = {self._decorator(each, found) for each in decorators}
        return names <= _HARMLESS

    def _decorator(self, node: ast.expr, found: Defined) -> str | None:
        """Return the dotted name of a decorator, None if it is not known."""
        function = node.func if isinstance(node, ast.Call) else node
        meant = self._code.expression(found.module, function)
        return meant.dotted if isinstance(meant, Outside) else None

    # -- classes -----------------------------------------------------------------------------------

    def _of_class(self, node: ast.ClassDef, found: Defined) -> Signature | None:
        line = self._line(found)
        return self._of_line(node.name, line) if self._are_plain(line) else None

    def _of_line(self, name: str, line: Line) -> Signature | None:
        """Return the signature of the first ``__init__`` in a line of classes."""
        for i, base in enumerate(line):
            if base == UNKNOWN:
                return None
            if isinstance(base, Outside):
                if has_no_init(base.dotted):
                    continue
                known = of_class(base.dotted)
                return known and known._replace(name=name)
            init = self._init(base, line[i:])
            if init == UNKNOWN:
                return None
            if init is not None:
                return self._with_inherited(init._replace(name=name), base, line[i + 1 :])
        return Signature(name, {})

    def _are_plain(self, line: Line) -> bool:
        """Return True if nothing but an ``__init__`` decides how a class is called."""
        for base in line:
            if not isinstance(base, Defined):
                continue
            assert isinstance(base.node, ast.ClassDef)
            names = {self._decorator(d, base) for d in base.node.decorator_list}
            if not names <= {*_HARMLESS, _DATACLASS}:
                return False
            metaclasses = [k.value for k in base.node.keywords if k.arg == "metaclass"]
            meant = [self._code.expression(base.module, m) for m in metaclasses]
            if any(not (isinstance(m, Outside) and m.dotted in _METACLASSES) for m in meant):
                return False
            if not {"__new__", "__signature__"}.isdisjoint(_body(base).by_name):
                return False
        return True

    def _init(self, found: Defined, line: Line) -> Signature | Unknown | None:
        """Return the signature of a class's own ``__init__``, None if it has none of its own."""
        assert isinstance(found.node, ast.ClassDef)
        body = _body(found)
        if "__init__" in body.by_name:
            own = single(body, "__init__")
            if not isinstance(own, ast.FunctionDef) or own.decorator_list:
                return UNKNOWN
            return _signature(found.node.name, own.args, skip_first=True)
        decorator = next(
            (d for d in found.node.decorator_list if self._decorator(d, found) == _DATACLASS), None
        )
        return None if decorator is None else self._of_dataclass(decorator, line)

    def _with_inherited(self, own: Signature, found: Defined, bases: Line) -> Signature:
        """Return a signature with the parameters of the bases that ``**kwargs`` are handed on to.

        Where it is not known that all of them are, further keys are taken, and what is required,
        the class alone says. The trainer reads it so, too.
        """
        init = single(_body(found), "__init__")
        how = forwarding(init) if isinstance(init, ast.FunctionDef) else None
        following = self._of_line(own.name, bases) if how else None
        if how and following:
            return with_forwarded(own, following, how)
        parameters = dict(own.parameters)
        for i, base in enumerate(bases):
            if not own.takes_any:
                break
            inherited: Signature | Unknown | None = UNKNOWN
            if isinstance(base, Defined):
                inherited = self._init(base, bases[i:])
            elif isinstance(base, Outside):
                inherited = None if has_no_init(base.dotted) else of_class(base.dotted)
            if inherited == UNKNOWN:
                break
            if inherited is not None:
                more = {k: p._replace(is_required=False) for k, p in inherited.parameters.items()}
                parameters = more | parameters
                if not inherited.takes_any:
                    break
        return own._replace(parameters=parameters)

    # -- data classes ------------------------------------------------------------------------------

    def _of_dataclass(self, decorator: ast.expr, line: Line) -> Signature | Unknown | None:
        """Return the signature that ``dataclass`` generates for the first class of a line."""
        options = {k.arg: literal(k.value) for k in getattr(decorator, "keywords", [])}
        if options.get("init") is False:
            return None
        if "init" in options and options["init"] is not True:
            return UNKNOWN
        parameters: dict[str, Parameter] = {}
        for base in reversed(line):
            if isinstance(base, Outside) and (has_no_init(base.dotted) or of_class(base.dotted)):
                continue
            if not isinstance(base, Defined):
                return UNKNOWN
            names = {self._decorator(d, base) for d in base.node.decorator_list}
            if _DATACLASS in names:
                parameters |= dict(self._fields(base))
        first = line[0]
        assert isinstance(first, Defined)
        return Signature(first.node.name, parameters)

    def _fields(self, found: Defined) -> Iterator[tuple[str, Parameter]]:
        for name, bound in _body(found).by_name.items():
            last = bound[-1]
            if not isinstance(last, ast.AnnAssign):
                continue
            text = ast.unparse(last.annotation)
            if "ClassVar" in text or text.rpartition(".")[2] == "KW_ONLY":
                continue
            given = last.value
            options = {}
            if isinstance(given, ast.Call) and ast.unparse(given.func).endswith("field"):
                options = {k.arg: literal(k.value) for k in given.keywords}
                if options.get("init") is False:
                    continue
            is_required = given is None or (
                isinstance(given, ast.Call)
                and ast.unparse(given.func).endswith("field")
                and not {"default", "default_factory", None} & options.keys()
            )
            yield name, Parameter(is_required, text, isinstance(literal(given), bool))

    # -- the order of bases ------------------------------------------------------------------------

    def _line(self, found: Found, depth: int = 0) -> Line:
        """Return a class and its bases in the order in which Python looks for attributes.

        Source: docs.python.org, The Python 2.3 Method Resolution Order (C3).
        """
        if not isinstance(found, Defined):
            return [found if isinstance(found, Outside) else UNKNOWN]
        if not isinstance(found.node, ast.ClassDef) or depth > _MAX_DEPTH:
            return [UNKNOWN]
        bases = [self._code.expression(found.module, base) for base in found.node.bases]
        lines = [self._line(base, depth + 1) for base in bases]
        heads: Line = [line[0] for line in lines]
        return [found, *_merged([*lines, heads])]


_MAX_DEPTH = 30


def _merged(lines: list[Line]) -> Line:
    """Merge lines so that the order of each one is kept; what cannot be merged is unknown."""
    merged: Line = []
    left = [list(line) for line in lines if line]
    while left:
        for line in left:
            first = line[0]
            if not any(_is_same(first, other) for rest in left for other in rest[1:]):
                break
        else:
            return [*merged, UNKNOWN]
        merged.append(first)
        left = [[each for each in line if not _is_same(each, first)] for line in left]
        left = [line for line in left if line]
    return merged


def _is_same(a: Defined | Outside | Unknown, b: Defined | Outside | Unknown) -> bool:
    if isinstance(a, Defined) and isinstance(b, Defined):
        return a.node is b.node
    return a == b


def _body(found: Defined) -> Bindings:
    return _bindings(found.node)


@lru_cache(maxsize=1024)
def _bindings(node: Definition) -> Bindings:
    return Bindings(node.body)


def _is_known_class(dotted: str) -> bool:
    return has_no_init(dotted) or of_class(dotted) is not None


def _signature(name: str, args: ast.arguments, *, skip_first: bool = False) -> Signature:
    """Return the signature of a function; ``skip_first`` leaves out ``self``."""
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + list(args.defaults)
    pairs = [(arg, default) for arg, default in zip(positional, defaults, strict=True)]
    by_name = pairs[len(args.posonlyargs) :]
    if skip_first and not args.posonlyargs:
        by_name = by_name[1:]
    by_name += zip(args.kwonlyargs, args.kw_defaults, strict=True)
    parameters = {arg.arg: _parameter(arg, default) for arg, default in by_name}
    return Signature(name, parameters, args.kwarg is not None)


def _parameter(arg: ast.arg, default: ast.expr | None) -> Parameter:
    annotation = ast.unparse(arg.annotation) if arg.annotation else ""
    is_bool = isinstance(literal(default), bool) if isinstance(default, ast.Constant) else None
    return Parameter(default is None, annotation, is_bool)
