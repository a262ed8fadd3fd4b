"""Turns a state into tensors, numbers, text and plain containers, and back into what it was.

``torch.load(weights_only=True)``, which executes no code of a checkpoint, reads nothing else. A
converted value stands at the place of the original; the table ``KINDS`` beside them says, by path,
what it was. No tensor is copied, and a state that is plain already is returned as it is.
"""

from __future__ import annotations

import io
import pickle  # noqa: TID251 -- torch raises its errors
import re
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mtf.errors import MtfError
from mtf.trainer.storage.value_codecs import codec_of, decoded

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path
    from typing import BinaryIO

    from mtf.trainer.storage.value_codecs import Kind

KINDS = "__kinds__"  # part of the checkpoint format

Place = tuple[Any, ...]  # keys and indices
Kinds = dict[Place, tuple["Kind", ...]]  # of each converted value; the outermost comes first

_PLAIN = frozenset(
    {bool, int, float, complex, str, bytes, bytearray, type(None)}
    | {torch.Tensor, nn.Parameter, nn.Buffer, torch.dtype, torch.device, torch.Size}
)
_KEYS = frozenset({bool, int, float, complex, str, bytes, type(None)})


def simplified(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state that ``torch.load(weights_only=True)`` can read back.

    Raises:
        MtfError: a value cannot be saved; the message names its key.
    """
    kinds: Kinds = {}
    plain: dict[str, Any] = _plain(state, (), kinds)
    return {**plain, KINDS: kinds} if kinds else plain


def restored(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state that ``simplified`` was given.

    Raises:
        MtfError: the class of a value is not imported here.
    """
    plain = dict(state)
    kinds: Kinds = plain.pop(KINDS, {})
    restored_state: dict[str, Any] = _restored(plain, (), kinds) if kinds else plain
    return restored_state


def key_of(path: Iterable[Any]) -> str:
    """Return a path as messages name it, such as ``callbacks/own/history/0``."""
    return "/".join(map(str, path))


def find_unreadable(state: Any) -> str | None:
    """Return the key of the innermost value that cannot be read back, None if all can be."""
    without_data = _without_data(state)
    return None if _is_readable(without_data) else key_of(_innermost_unreadable(without_data))


# -- to plain values -------------------------------------------------------------------------------


def _plain(value: Any, path: Place, kinds: Kinds) -> Any:
    cls = type(value)
    if cls in _PLAIN:
        return value
    if cls in (dict, OrderedDict, Counter) and all(map(_is_plain_key, value)):
        return _plain_dict(value, path, kinds)
    if cls in (list, tuple):
        parts = [_plain(part, (*path, index), kinds) for index, part in enumerate(value)]
        return value if _are_same(parts, value) else cls(parts)
    if cls is set and all(type(part) in _KEYS for part in value):
        return value
    if (codec := codec_of(value)) is None:
        if not _is_shard(value) and _is_readable(
            value
        ):  # of a class that the user has declared safe for torch
            return value
        raise _refusal(value, path)
    kind, inner = codec(value)
    plain = _plain(inner, path, kinds)
    kinds[path] = (kind, *kinds.get(path, ()))
    return plain


def _is_shard(value: Any) -> bool:
    """Return True for one process's part of a tensor, which torch does read."""
    return any(cls.__module__.startswith("torch.distributed") for cls in type(value).__mro__)


def _plain_dict(value: dict[Any, Any], path: Place, kinds: Kinds) -> dict[Any, Any]:
    parts = {key: _plain(part, (*path, key), kinds) for key, part in value.items()}
    if _are_same(parts.values(), value.values()):
        return value
    return _like(value, parts)


def _like(container: dict[Any, Any], parts: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a container with other values, and the attributes of a ``state_dict``."""
    made = type(container)(parts)
    if type(container) is not dict:
        vars(made).update(vars(container))
    return made


def _are_same(left: Iterable[Any], right: Iterable[Any]) -> bool:
    return all(a is b for a, b in zip(left, right, strict=True))


def _is_plain_key(key: Any) -> bool:
    return type(key) in _KEYS or (type(key) is tuple and all(map(_is_plain_key, key)))


def _refusal(value: Any, path: Place) -> MtfError:
    cls = type(value)
    name = f"{cls.__module__}.{cls.__qualname__}".removeprefix("builtins.")
    if "<locals>" in name:
        cure = "Define that class at the top level of a module, or save only"
    elif isinstance(value, torch.Tensor):
        cure = "Save it as an ordinary torch.Tensor, such as its full or plain value, or save only"
    else:
        cure = "Save in its place only"
    return MtfError(
        f"the state cannot be saved: {key_of(path)} is of type {name}, which no resume could read."
        f" {cure} tensors, numbers, text, and containers of these"
    )


# -- back from plain values ------------------------------------------------------------------------


def _restored(value: Any, path: Place, kinds: Kinds) -> Any:
    if isinstance(value, dict):
        parts = {key: _restored(part, (*path, key), kinds) for key, part in value.items()}
        value = _like(value, parts)
    elif type(value) in (list, tuple):
        value = type(value)(
            _restored(part, (*path, index), kinds) for index, part in enumerate(value)
        )
    for kind in reversed(kinds.get(path, ())):
        try:
            value = decoded(kind, value)
        except (LookupError, AttributeError, TypeError, ValueError) as e:
            raise MtfError(
                f"the checkpoint has a value at {key_of(path)} that cannot be made again here"
                f" ({type(e).__name__}: {e}): is the code the same as then?"
            ) from e
    return value


def read_plain(file: Path | BinaryIO, *, mapped: bool = False) -> dict[str, Any]:
    """Return the content of a checkpoint as it was written; no code in it is executed.

    Args:
        file: the checkpoint.
        mapped: whether its tensors are read from the file only when they are used.

    Raises:
        MtfError: it holds something that needs code.
    """
    try:
        return _load(file, mapped=mapped)
    except pickle.UnpicklingError as e:
        found = re.search(r"(?:GLOBAL|Type|class) ([\w.]+)", str(e))
        what = found[1] if found else " ".join(str(e).split())[:200]
        raise MtfError(
            f"the checkpoint cannot be read: it holds {what}, for which code would have to be"
            " executed. Save only tensors, numbers, text, and containers of these"
        ) from e


def _load(file: Path | BinaryIO, *, mapped: bool) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(
            file, map_location="cpu", weights_only=True, mmap=mapped
        )
    except RuntimeError:  # some file systems cannot map a file
        if not mapped:
            raise
        return _load(file, mapped=False)
    return content


# -- what torch can read ---------------------------------------------------------------------------


def _is_readable(value: Any) -> bool:
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except (pickle.PickleError, AttributeError, TypeError, RuntimeError, ValueError):
        return False
    return True


def _without_data(value: Any) -> Any:
    """Return the containers of a state with an empty tensor in place of each plain one."""
    if type(value) in (torch.Tensor, nn.Parameter, nn.Buffer):
        return torch.empty(0)
    if type(value) in (dict, OrderedDict):
        return _like(value, {key: _without_data(part) for key, part in value.items()})
    if type(value) in (list, tuple):
        return type(value)(map(_without_data, value))
    return value


def _innermost_unreadable(value: Any) -> Place:
    if isinstance(value, dict):
        parts: Iterable[tuple[Any, Any]] = value.items()
    else:
        parts = enumerate(value) if type(value) in (list, tuple) else ()
    for key, part in parts:
        if not _is_readable(part):
            return (key, *_innermost_unreadable(part))
    return ()
