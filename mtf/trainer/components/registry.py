"""Finds models, data sets, ... by name, plug-in or ``package.module:Name``, and calls them."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.spelling import did_you_mean
from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    Factory = Callable[..., Any]


class UnknownNameError(MtfError):
    """A name in a configuration was not found."""


def load(target: str, *, key: str) -> Any:
    """Return the object ``package.module:Name``, imported from the pinned checkout.

    Args:
        target: ``package.module:Name``.
        key: the configuration key with that value, for the error.

    Raises:
        UnknownNameError: the module does not exist, or has no such name.
    """
    module_name, _, name = target.partition(":")
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


def call(
    factory: Factory,
    *,
    key: str,
    asked: Mapping[str, Any],
    offered: Mapping[str, Any],
) -> Any:
    """Call a factory with the user's keys, and with those defaults that its signature names.

    Args:
        factory: a class or function.
        key: the configuration section, for the error.
        asked: the user's further keys; the factory must take each of them.
        offered: defaults; those that the signature does not name are left out.

    Raises:
        MtfError: the factory does not take one of the user's keys, or needs one that is missing.
    """
    parameters = _parameters(factory)
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    name = getattr(factory, "__name__", repr(factory))
    for unwanted in () if takes_all else [k for k in asked if k not in named]:
        near = did_you_mean(unwanted, named) or f"It takes {', '.join(sorted(named))}"
        raise MtfError(f"{key}.{unwanted}: {name} takes no such key. {near}")
    given = {k: v for k, v in offered.items() if takes_all or k in named} | dict(asked)
    required = {p.name for p in parameters if p.name in named and p.default is p.empty}
    if missing := sorted(required - set(given)):
        raise MtfError(f"{key}: {name} needs {', '.join(missing)}: add it to the section")
    return factory(**given)


def _parameters(factory: Factory) -> list[inspect.Parameter]:
    """Return the parameters of a factory.

    A model without an ``__init__`` of its own has none: torch's has ``**kwargs`` and refuses them.
    """
    inherited = getattr(getattr(factory, "__init__", None), "__module__", None)
    if isinstance(factory, type) and inherited == "torch.nn.modules.module":
        return []
    return list(inspect.signature(factory).parameters.values())
