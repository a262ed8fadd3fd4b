"""Finds models, data sets, ... by name, plug-in or ``package.module:Name``, and calls them."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from mtf.core.vocabulary.spelling import did_you_mean
from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    Factory = Callable[..., Any]


class UnknownNameError(MtfError):
    """A name in a configuration was not found."""


class UnknownKeyError(MtfError):
    """A class or function does not take a key."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def load(target: str, *, key: str) -> Any:
    """Return the object ``package.module:Name``, imported from the pinned checkout.

    Args:
        target: ``package.module:Name``.
        key: the configuration key with that value, for the error.

    Raises:
        UnknownNameError: the module does not exist, or has no such name.
    """
    module_name, _, name = target.partition(":")
    if module_name == "__main__" or module_name.endswith("ipynb"):
        raise UnknownNameError(
            f"{key}: {target} is defined in a notebook or script, which a job does not run: move it"
            f" to a module of the repository, and write package.module:{name}"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if not e.name or not f"{module_name}.".startswith(f"{e.name}."):
            raise  # the module exists, and imports one that does not
        raise UnknownNameError(
            f"{key}: {target}: no module {e.name!r} in the pinned checkout. Commit it, at the"
            " repository's root or under src/"
        ) from e
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            near = did_you_mean(part, [n for n in dir(found) if not n.startswith("_")])
            message = f"{key}: {target}: {module_name} has no {part!r}. {near}"
            raise UnknownNameError(message.rstrip())
        found = getattr(found, part)
    return found


def plugins(group: str) -> Mapping[str, importlib.metadata.EntryPoint]:
    """Return the entry points that installed packages register in a group, by name."""
    return {point.name: point for point in importlib.metadata.entry_points(group=group)}


def unknown_name(key: str, name: str, known: Collection[str]) -> UnknownNameError:
    """Return the error for a name that was not found."""
    near = did_you_mean(name, known)
    own = "" if near.endswith("?") else ". Or name your own as package.module:Name"
    return UnknownNameError(f"{key}: unknown name {name!r}. {near}{own}")


@dataclass(frozen=True)
class Keys:
    """The keys that a class or function can be called with.

    Attributes:
        name: its name, for messages.
        parameters: by name. If a class hands ``**kwargs`` on to its base class, those of the base
            class are among them.
        required: the names that it must be called with.
        takes_any: whether it takes further keys by ``**kwargs``.
    """

    name: str
    parameters: Mapping[str, inspect.Parameter]
    required: frozenset[str]
    takes_any: bool

    def takes_switch(self, name: str) -> bool:
        """Return True if it takes a boolean of that name, by its annotation or its default.

        A parameter without either is taken for one.
        """
        found = self.parameters.get(name)
        if found is None:
            return False
        written = found.annotation
        if written is not found.empty:
            return "bool" in (written.__name__ if isinstance(written, type) else str(written))
        return found.default is found.empty or isinstance(found.default, bool)


def keys_of(factory: Factory, *, key: str) -> Keys:
    """Return the keys that a class or function takes.

    Args:
        factory: a class or function.
        key: the configuration key that names it, for the error.

    Raises:
        MtfError: it is neither.
    """
    if isinstance(factory, torch.nn.Module | Dataset) or not callable(factory):
        raise MtfError(
            f"{key}: it is an instance of {type(factory).__name__}: name the class, or a function"
            " that returns an instance"
        )
    function: Any = getattr(factory, "func", factory)  # of a functools.partial
    name = getattr(function, "__name__", type(function).__name__)
    own = _parameters(factory)
    named = {p.name: p for p in own if p.kind in _BY_NAME}
    required = frozenset(p.name for p in named.values() if p.default is p.empty)
    takes_any = any(p.kind is p.VAR_KEYWORD for p in own)
    for base in factory.__mro__[1:] if isinstance(factory, type) and takes_any else ():
        if "__init__" in vars(base) and base is not object and not _is_torchs_own(base):
            inherited = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
            named = {p.name: p for p in inherited if p.kind in _BY_NAME} | named
            if not any(p.kind is p.VAR_KEYWORD for p in inherited):
                break
    return Keys(name, named, required, takes_any)


_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def call(
    factory: Factory,
    *,
    key: str,
    asked: Mapping[str, Any],
    offered: Mapping[str, Any],
    parts: Mapping[str, Any] = {},
) -> Any:
    """Call a factory with the user's keys and parts, and with what is offered and it names.

    Args:
        factory: a class or function.
        key: the configuration section, for the error.
        asked: the user's keys; the factory must take each of them.
        offered: facts and defaults; the factory gets those that its signature names.
        parts: what it is called with in any case, such as the parameters to optimize.

    Raises:
        MtfError: the factory does not take one of the user's keys, or needs one that is missing; or
            it is one of torch that does not take one of the values.
    """
    keys = keys_of(factory, key=key)
    named, takes_any = keys.parameters, keys.takes_any
    for unwanted in () if takes_any else [k for k in asked if k not in named]:
        near = did_you_mean(unwanted, named) or f"It takes {', '.join(sorted(named))}"
        raise UnknownKeyError(unwanted, f"{key}.{unwanted}: {keys.name} takes no such key. {near}")
    given = {k: v for k, v in offered.items() if k in named}
    given |= {k: v for k, v in parts.items() if takes_any or k in named} | dict(asked)
    if missing := sorted(keys.required - set(given)):
        raise MtfError(f"{key}: {keys.name} needs {', '.join(missing)}: add it to the section")
    try:
        return factory(**given)
    except TypeError as e:  # **kwargs take any key, but what they are handed on to may not
        refused = _REFUSED_KEY.search(str(e))
        if _is_from_torch(factory):
            raise MtfError(f"{key}: {keys.name}: {e}") from e
        if refused is None or not takes_any or refused[1] not in given:
            raise
        raise UnknownKeyError(refused[1], f"{key}.{refused[1]}: {keys.name}: {e}") from e
    except (ValueError, AssertionError) as e:
        if not _is_from_torch(factory):
            raise  # its traceback leads to the user's code
        raise MtfError(f"{key}: {keys.name}: {e}") from e


_REFUSED_KEY = re.compile(r"(?:unexpected|multiple values for) keyword argument '(\w+)'")


def _parameters(factory: Factory) -> list[inspect.Parameter]:
    """Return the parameters of a factory.

    A model without an ``__init__`` of its own has none: torch's has ``**kwargs`` and refuses them.
    """
    if isinstance(factory, type) and _is_torchs_own(factory):
        return []
    try:
        return list(inspect.signature(factory).parameters.values())
    except ValueError:  # a class or function written in C may not tell them
        return [inspect.Parameter("keys", inspect.Parameter.VAR_KEYWORD)]


def _is_from_torch(factory: Factory) -> bool:
    return getattr(factory, "__module__", "").startswith("torch.")


def _is_torchs_own(kind: Any) -> bool:
    return getattr(kind.__init__, "__module__", None) == "torch.nn.modules.module"
