"""`FoundCode`: what the files of a commit say of the code that a spec names."""

from __future__ import annotations

import ast
import re
from functools import cached_property, wraps
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from mtf.core.vocabulary.spelling import nearest
from mtf.spec.named_code.find_code import UNKNOWN, Defined, Missing, Outside, SourceCode
from mtf.spec.named_code.foreign_models import LIGHTNING, LIGHTNING_MODULE
from mtf.spec.named_code.read_signature import SignatureReader
from mtf.spec.named_code.source_module import SourceModule

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtf.spec.named_code.call_signature import Signature
    from mtf.spec.named_code.find_code import Found
    from mtf.spec.named_code.source_files import SourceFiles

_P = ParamSpec("_P")
_T = TypeVar("_T")
_U = TypeVar("_U")
_CONFIGURE = "configure_optimizers"
_MAX_MODULES = 200  # that are searched for the model which a function returns


def _or_if_too_deep(
    unknown: _U,
) -> Callable[
    [Callable[Concatenate[FoundCode, _P], _T]], Callable[Concatenate[FoundCode, _P], _T | _U]
]:
    """Let a method return a value where expressions are nested too deeply to be read."""

    def decorated(
        method: Callable[Concatenate[FoundCode, _P], _T],
    ) -> Callable[Concatenate[FoundCode, _P], _T | _U]:
        @wraps(method)
        def guarded(self: FoundCode, /, *args: _P.args, **kwargs: _P.kwargs) -> _T | _U:
            try:
                return method(self, *args, **kwargs)
            except RecursionError:
                return unknown

        return guarded

    return decorated


class FoundCode:
    """The code of a commit, by the names that specs have for it."""

    def __init__(self, files: SourceFiles) -> None:
        self._source = SourceCode(files)
        self._reader = SignatureReader(self._source)
        self._found: dict[str, Found] = {}

    @_or_if_too_deep(UNKNOWN)
    def _find(self, target: str) -> Found:
        if target not in self._found:
            self._found[target] = self._source.find(target)
        return self._found[target]

    def problem(self, target: str) -> str | None:
        """Return the reason that ``package.module:Name`` does not exist, None if it may exist."""
        found = self._find(target)
        return found.what if isinstance(found, Missing) else None

    def doubt(self, target: str) -> str | None:
        """Return the reason that a name, which an installed package may have, is probably wrong."""
        found, top = self._find(target), target.partition(":")[0].partition(".")[0]
        if not isinstance(found, Outside) or top in _WELL_KNOWN:
            return None
        near = nearest(top, self._source.top_level_names, cutoff=0.75)
        if near is None or near == top:
            return None
        return f"{top!r} is not in this repository. Did you mean {near!r}?"

    @_or_if_too_deep(None)
    def signature(self, target: str) -> Signature | None:
        """Return the signature of ``package.module:Name``, None if it is not known."""
        return self._reader.of(self._find(target))

    def facts(self, target: str) -> tuple[object, ...]:
        """Return all that a check may say of ``package.module:Name``, to compare two commits."""
        return (
            self.problem(target),
            self.signature(target),
            self.problem_as_entrypoint(target),
            self.may_configure_optimizers(target),
        )

    @_or_if_too_deep(None)
    def foreign(self, target: str) -> str | None:
        """Return the advice about a model that is made for another trainer, None for others."""
        for base in self._reader.base_names(self._find(target)):
            package, _, name = base.rpartition(".")
            if name == "LightningModule" and package.split(".")[0] in LIGHTNING:
                return LIGHTNING_MODULE
        return None

    def problem_as_entrypoint(self, target: str) -> str | None:
        """Return the reason that a function cannot be called with the run alone, None if it can."""
        found = self._find(target)
        if not isinstance(found, Defined) or isinstance(found.node, ast.ClassDef):
            return None
        if found.node.decorator_list:
            return None
        args = found.node.args
        positional = [*args.posonlyargs, *args.args]
        required = len(positional) - len(args.defaults)
        takes_one = required <= 1 and (positional or args.vararg)
        if takes_one and all(default is not None for default in args.kw_defaults):
            return None
        name = found.node.name
        return f"it is called with the run alone. Define it as {name}(run)"

    @_or_if_too_deep(None)
    def may_configure_optimizers(self, target: str) -> bool | None:
        """Return True if a model builds its optimizers itself, None if that is not known."""
        found = self._find(target)
        if isinstance(found, Defined) and isinstance(found.node, ast.ClassDef):
            return self._reader.has_method(found, _CONFIGURE)
        if isinstance(found, Defined):
            return self._mentions(found.module, _in_text(_CONFIGURE))
        if isinstance(found, Missing):
            module = self._source.module(target.partition(":")[0])
            return isinstance(module, SourceModule) and self._mentions(module, _in_text(_CONFIGURE))
        return None

    @_or_if_too_deep(None)
    def may_log(self, target: str, name: str) -> bool | None:
        """Return False if the code of a model, which logs its own metrics, has no such word."""
        found = self._find(target)
        if not isinstance(found, Defined):
            return None
        is_class = isinstance(found.node, ast.ClassDef)
        if is_class and self._reader.has_method(found, "training_step") is None:
            return None
        word = re.compile(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])".encode())
        return self._mentions(found.module, lambda text: word.search(text) is not None)

    def nearest_to(self, target: str) -> str | None:
        """Return the name most like one that does not exist, in the same module."""
        module_name, _, name = target.partition(":")
        module = self._source.module(module_name)
        if not isinstance(module, SourceModule):
            return None
        near = nearest(name, module.public_names, cutoff=0.75)
        return near and f"{module_name}:{near}"

    def _mentions(self, start: SourceModule, is_in: Callable[[bytes], bool]) -> bool | None:
        """Return True if something is in the text of a module or of one that it imports."""
        seen: dict[str, SourceModule] = {start.name: start}
        left = [start]
        while left and len(seen) < _MAX_MODULES:
            module = left.pop()
            if is_in(module.text):
                return True
            for name in module.imported_modules:
                found = self._source.module(name)
                if isinstance(found, SourceModule) and name not in seen:
                    seen[name] = found
                    left.append(found)
        return None if left else False

    @cached_property
    def unreadable(self) -> dict[str, tuple[int, str]]:
        """Return the modules that this Python cannot read: line and message by path."""
        return self._source.unreadable


def _in_text(word: str) -> Callable[[bytes], bool]:
    return lambda text: word.encode() in text


_WELL_KNOWN = frozenset({"torch", "torchvision", "timm", "mtf", "lightning", "transformers"})
