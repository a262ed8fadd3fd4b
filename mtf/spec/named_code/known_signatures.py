"""The signatures of torch's classes and of mtf's own models and data sets, without importing them.

They are in `known_signatures.json`, which `python -m tests.spec.named_code.test_known_signatures`
writes from the installed torch; a test holds the two together.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf.spec.named_code.call_signature import Signature, decoded

if TYPE_CHECKING:
    from collections.abc import Mapping

_OWN = ("models", "datasets")  # of mtf itself
PATH = Path(__file__).with_suffix(".json")


@cache
def _table() -> Mapping[str, Any]:
    table: Mapping[str, Any] = json.loads(PATH.read_bytes())
    return table


def torch_version() -> str:
    """Return the version of torch that the table was made from."""
    return str(_table()["torch"])


def short_names(section: str) -> Mapping[str, str]:
    """Return the names that a section knows, each with the name of its class.

    ``section`` is ``models``, ``datasets``, ``optimizers`` or ``schedulers``.
    """
    names: Mapping[str, str] = _table()[section]
    return names


@cache
def of_short_name(section: str, name: str) -> Signature | None:
    """Return the signature of a name that ``short_names`` has, None if it has no such name."""
    found = short_names(section).get(name)
    if found is None:
        return None
    if section in _OWN:
        return decoded(name, found)
    module = "torch.optim" if section == "optimizers" else "torch.optim.lr_scheduler"
    return of_class(f"{module}.{found}")


def listed_names(section: str) -> list[str]:
    """Return the names that a section knows as messages list them: the shortest of each class."""
    shortest: dict[str, str] = {}
    for name, meant in short_names(section).items():
        if not name.startswith("_"):
            kind = name if section in _OWN else meant
            shortest[kind] = min(shortest.get(kind, name), name, key=len)
    return sorted(shortest.values())


@cache
def of_any(section: str) -> Signature:
    """Return a signature with the keys of everything that a section knows by name."""
    parameters = {}
    for name in short_names(section):
        known = of_short_name(section, name)
        for key, parameter in known.parameters.items() if known else ():
            parameters[key] = parameter._replace(is_required=False, annotation="")
    return Signature(section, parameters)


def offered_by_trainer(class_name: str) -> frozenset[str]:
    """Return the keys of a scheduler that the trainer computes if the spec does not set them."""
    return frozenset(_table()["offered"].get(class_name, "").split())


@cache
def activations() -> frozenset[str]:
    """Return the names that ``model.activation`` may have, in small letters."""
    return frozenset(_table()["activations"].split())


def built_in_splits() -> tuple[str, ...]:
    """Return the splits of mtf's own data sets."""
    return tuple(_table()["splits"].split())


@cache
def of_class(dotted: str) -> Signature | None:
    """Return the signature of a class of torch by its dotted name, None if it is not known.

    A class may be named by the module that defines it or by a package that exports it.
    """
    module, _, name = dotted.rpartition(".")
    while module.startswith("torch."):
        classes = _table()["classes"].get(module, {})
        if name in classes:
            return decoded(name, classes[name])
        module = module.rpartition(".")[0]
    return None


def has_no_init(dotted: str) -> bool:
    """Return True for a class outside of the repository that has no ``__init__`` of its own."""
    return dotted in _WITHOUT_INIT or _without_submodules(dotted) in _table()["without_init"]


_WITHOUT_INIT = frozenset(
    {
        "builtins.object",
        "abc.ABC",
        "typing.Generic",
        "typing.Protocol",
        "typing_extensions.Protocol",
    }
)


def _without_submodules(dotted: str) -> str:
    """Return the name under which a package exports a class that one of its modules defines."""
    for package in ("torch.utils.data", "mtf.trainer"):
        if dotted.startswith(f"{package}."):
            return f"{package}.{dotted.rpartition('.')[2]}"
    return dotted


def names_in(module: str) -> frozenset[str] | None:
    """Return the public names of a module of torch, None for a module that is not in the table."""
    names: str | None = _table()["names"].get(module)
    return None if names is None else frozenset(names.split())
