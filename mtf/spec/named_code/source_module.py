"""`SourceModule`: the names that a Python module binds, read from its text."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Functions through which a module's names can be set without being written anywhere.
_WRITERS = frozenset({"exec", "globals", "locals", "vars", "eval"})


@dataclass(frozen=True, slots=True)
class Imported:
    """A name that an import binds: a module, or a ``name`` in it."""

    module: str
    level: int  # of a relative import
    name: str | None  # None: the module itself


Bound = ast.stmt | Imported | None  # None: bound by something that tells nothing more


class Bindings:
    """The names that a module or a class body binds, wherever in it: under if, try, with, for."""

    def __init__(self, body: Iterable[ast.stmt]) -> None:
        self.by_name: dict[str, list[Bound]] = {}
        self.stars: list[Imported] = []
        self._block(body)

    def _add(self, name: str, bound: Bound) -> None:
        self.by_name.setdefault(name, []).append(bound)

    def _block(self, body: Iterable[ast.stmt]) -> None:
        for statement in body:
            self._statement(statement)

    def _statement(self, statement: ast.stmt) -> None:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                self._add(statement.name, statement)
            case ast.Import():
                self._import(statement)
            case ast.ImportFrom():
                self._import_from(statement)
            case ast.Assign(targets=[ast.Name(id=name)]):
                self._add(name, statement)
            case ast.AnnAssign(target=ast.Name(id=name)):
                self._add(name, statement)
            case _:
                self._compound(statement)

    def _import(self, statement: ast.Import) -> None:
        for alias in statement.names:
            if alias.asname:
                self._add(alias.asname, Imported(alias.name, 0, None))
            else:
                top = alias.name.partition(".")[0]
                self._add(top, Imported(top, 0, None))

    def _import_from(self, statement: ast.ImportFrom) -> None:
        module = statement.module or ""
        for alias in statement.names:
            found = Imported(module, statement.level, alias.name)
            if alias.name == "*":
                self.stars.append(found)
            else:
                self._add(alias.asname or alias.name, found)

    def _compound(self, statement: ast.stmt) -> None:
        """Take the names that any other statement binds, and those of the blocks inside it."""
        for _, value in ast.iter_fields(statement):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.stmt):
                    self._statement(child)
                elif isinstance(child, ast.ExceptHandler | ast.match_case):
                    self._names_in(getattr(child, "pattern", None))
                    self._block(child.body)
                elif isinstance(child, ast.AST):
                    self._names_in(child)

    def _names_in(self, node: ast.AST | None) -> None:
        for found in ast.walk(node) if node is not None else ():
            if isinstance(found, ast.Name) and isinstance(found.ctx, ast.Store):
                self._add(found.id, None)
            elif isinstance(found, ast.MatchAs | ast.MatchStar) and found.name:
                self._add(found.name, None)
            elif isinstance(found, ast.MatchMapping) and found.rest:
                self._add(found.rest, None)


class SourceModule:
    """One module as it is written.

    Attributes:
        name: its dotted name; ``package`` is that of the package it belongs to.
        text: as it is written.
    """

    def __init__(self, name: str, path: str, text: bytes, *, is_package: bool) -> None:
        """Take the text of a module.

        Raises:
            SyntaxError: this Python cannot read it.
        """
        self.name, self.path, self.is_package = name, path, is_package
        self.package = name if is_package else name.rpartition(".")[0]
        self.text = text
        self._tree, self.bindings = _parsed(text)

    def absolute(self, imported: Imported) -> str | None:
        """Return the dotted name of an imported module, None if it is above the top package."""
        if not imported.level:
            return imported.module
        parts = self.package.split(".")
        if imported.level > len(parts) or not self.package:
            return None
        above = parts[: len(parts) - imported.level + 1]
        return ".".join([*above, *([imported.module] if imported.module else [])])

    def mentions(self, word: str) -> bool:
        """Return True if a word occurs anywhere in the text."""
        return word.encode() in self.text

    @cached_property
    def has_hidden_names(self) -> bool:
        """Return True if names may be bound that are not written as such: by ``globals()``, ..."""
        return (
            "__getattr__" in self.bindings.by_name
            or self.mentions("sys.modules")
            or any(map(_writes_names, ast.walk(self._tree)))
        )

    @cached_property
    def further_names(self) -> frozenset[str]:
        """Return the names that expressions and ``global`` statements bind."""
        found: set[str] = set()
        for node in ast.walk(self._tree):
            if isinstance(node, ast.Global):
                found.update(node.names)
            elif isinstance(node, ast.NamedExpr) and isinstance(node.target, ast.Name):
                found.add(node.target.id)
        return frozenset(found)

    @property
    def public_names(self) -> list[str]:
        """Return the classes and functions that the module defines or imports."""
        return sorted(_public(self.bindings.by_name))

    @property
    def imported_modules(self) -> Iterator[str]:
        """Yield the dotted names of the modules that the module imports, or names in them."""
        for bound in (b for all_bound in self.bindings.by_name.values() for b in all_bound):
            if isinstance(bound, Imported) and (dotted := self.absolute(bound)) is not None:
                yield dotted
                if bound.name:
                    yield f"{dotted}.{bound.name}"
        for star in self.bindings.stars:
            if (dotted := self.absolute(star)) is not None:
                yield dotted


def _public(by_name: dict[str, list[Bound]]) -> Iterator[str]:
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for name, bound in by_name.items():
        is_own = any(isinstance(each, kinds) for each in bound)
        is_imported = any(isinstance(each, Imported) and each.level for each in bound)
        if not name.startswith("_") and (is_own or is_imported):
            yield name


def _writes_names(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in _WRITERS
        and not (node.func.id == "vars" and node.args)
    )


def _parsed(text: bytes) -> tuple[ast.Module, Bindings]:
    """Return the syntax tree of a text and its names; those of the last texts are kept.

    Raises:
        SyntaxError: this Python cannot read it.
    """
    if text not in _kept:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the user's code: it gets them when it is run
            try:
                tree = ast.parse(text)
                found = tree, Bindings(tree.body)
            except (ValueError, MemoryError, RecursionError) as e:
                raise SyntaxError(str(e)) from e
        if sum(map(len, _kept)) + len(text) > _MOST_KEPT:
            _kept.clear()
        _kept[text] = found
    return _kept[text]


_kept: dict[bytes, tuple[ast.Module, Bindings]] = {}  # by the texts of modules
_MOST_KEPT = 1 << 22  # bytes of texts


def literal(node: ast.expr | None) -> Any:
    """Return the value of a constant, None for any other expression."""
    return node.value if isinstance(node, ast.Constant) else None
