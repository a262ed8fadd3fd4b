"""Numbers and texts in the attributes of a model, which no checkpoint holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtf.trainer.compute.structure import is_from

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_MOST_ITEMS = 100  # of a list or tuple; longer ones hold data
_SAVED = frozenset({"training"})  # as part of every checkpoint


def names_set_by(call: Callable[[], object], module: nn.Module) -> list[str]:
    """Call a function; return the plain attributes of a module that it sets, like ``Net.scale``.

    Those of submodules count; objects of torchmetrics do not: their state is in every checkpoint.
    """
    before = _plain_attributes(module)
    call()
    after = _plain_attributes(module)
    return [n for n, value in after.items() if n not in before or not _equal(before[n], value)]


def _plain_attributes(module: nn.Module) -> dict[str, Any]:
    return {
        f"{type(module).__name__}.{path}{'.' * bool(path)}{name}": _copy(value)
        for path, part in module.named_modules()
        if not is_from(part, ("torchmetrics",))
        for name, value in vars(part).items()
        if name not in _SAVED and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple) and len(value) <= _MOST_ITEMS:
        return all(type(item) in _PLAIN for item in value)
    return type(value) in _PLAIN


def _copy(value: Any) -> Any:
    return list(value) if type(value) is list else value


def _equal(left: Any, right: Any) -> bool:
    return left is right or (type(left) is type(right) and bool(left == right))
