"""The small faults that a mutation test puts into a module."""

from __future__ import annotations

import ast
import difflib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import libcst as cst
from libcst import matchers as m
from libcst.metadata import MetadataWrapper, ParentNodeProvider, PositionProvider
from mutmut.mutation import mutators

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

SWAPPED = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """A fault in one module: the lines that it takes out and puts in, and the whole new text."""

    path: str
    line: int
    was: str
    became: str
    source: str

    @property
    def key(self) -> tuple[str, str, str]:
        """An id of the fault that stays the same when lines are added elsewhere."""
        return self.path, self.was, self.became


def without_the_branch(node: cst.If) -> Iterator[cst.If]:
    """Never take a branch that has a condition."""
    test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    never = cst.BooleanOperation(test, cst.And(), cst.Name("False"))
    yield node.with_changes(test=never)


def one_operand(node: cst.BooleanOperation) -> Iterator[cst.BaseExpression]:
    """Forget one side of `and` and `or`."""
    yield node.left
    yield node.right


def swapped_function(node: cst.Call) -> Iterator[cst.Call]:
    """Swap min and max, any and all."""
    if isinstance(node.func, cst.Name) and node.func.value in SWAPPED:
        yield node.with_changes(func=cst.Name(SWAPPED[node.func.value]))


def without_the_call(node: cst.Expr) -> Iterator[cst.Pass]:
    """Leave out a call whose value nobody uses."""
    if isinstance(node.value, cst.Call):
        yield cst.Pass()


OWN: list[tuple[type, Callable[..., Iterable[cst.CSTNode]]]] = [
    (cst.If, without_the_branch),
    (cst.BooleanOperation, one_operand),
    (cst.Call, swapped_function),
    (cst.Expr, without_the_call),
]
# A text that people read is no property: words are left alone, and so is what an error says.
OPERATORS = [
    *((kind, change) for kind, change in mutators.mutation_operators if change is not mutators.operator_string),
    *OWN,
]  # fmt: skip
LEFT_ALONE = (
    cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom, cst.Raise, cst.Assert,
    cst.FormattedString, cst.TypeAlias,
)  # fmt: skip
DECLARATION = m.Call(func=m.Name("NewType") | m.Name("TypeVar") | m.Name("cast") | m.Name("field"))
TYPES_ONLY = m.If(test=m.Name("TYPE_CHECKING"))


def sample(path: Path, name: str, rng: random.Random) -> Iterator[Mutant]:
    """Yield at most one fault a line of a module, in random order."""
    wrapper = MetadataWrapper(cst.parse_module(path.read_text()))
    places = wrapper.resolve(PositionProvider)
    parents = wrapper.resolve(ParentNodeProvider)
    lines: dict[int, list[tuple[cst.CSTNode, Callable[..., Iterable[cst.CSTNode]]]]] = defaultdict(
        list
    )
    for node in _changeable(wrapper.module):
        for kind, change in OPERATORS:
            if isinstance(node, kind) and not _is_keyword(node, parents):
                lines[places[node].start.line].append((node, change))
    for line in rng.sample(sorted(lines), len(lines)):
        candidates = [(node, new) for node, change in lines[line] for new in change(node)]
        rng.shuffle(candidates)
        for node, new in candidates:
            if found := _mutant(wrapper.module, node, new, name, line):
                yield found
                break


def _changeable(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    if isinstance(node, LEFT_ALONE) or m.matches(node, DECLARATION | TYPES_ONLY):
        return
    yield node
    for child in node.children:
        yield from _changeable(child)


def _is_keyword(node: cst.CSTNode, parents: object) -> bool:
    """Return True for the name of an argument, which looks like a value to an operator."""
    assert hasattr(parents, "get")
    parent = parents.get(node)
    return isinstance(parent, cst.Arg) and parent.keyword is node


def _mutant(
    module: cst.Module, node: cst.CSTNode, new: cst.CSTNode, name: str, line: int
) -> Mutant | None:
    """Return the fault; None if the change is not valid Python or changes nothing."""
    try:
        changed: Any = module.deep_replace(node, new)
        source: str = changed.code
        if ast.dump(ast.parse(source)) == ast.dump(ast.parse(module.code)):
            return None
        compile(source, name, "exec")
    except (SyntaxError, cst.CSTValidationError):
        return None
    lines = difflib.ndiff(module.code.splitlines(), source.splitlines())
    diff = [d for d in lines if d[:2] in ("- ", "+ ")]
    was, became = (" ⏎ ".join(d[2:].strip() for d in diff if d[0] == sign) for sign in "-+")
    return Mutant(name, line, was, became, source)
