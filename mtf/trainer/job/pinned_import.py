"""Imports the pinned code of a run into a process that may have other versions of its modules."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mtf.trainer.job.code_proof import is_own_module, prove_checkout, put_first

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from mtf.spec.schema.run_config import RunInfo

# Classes of a loaded model refer to their modules, which nothing else keeps alive.
_KEPT: list[dict[str, ModuleType]] = []


@contextmanager
def pinned_code(info: RunInfo) -> Iterator[None]:
    """Let imports find the pinned code for a block; afterwards all is as it was before.

    So models of several commits can be loaded side by side, beside the code of the work tree.

    Raises:
        RefusedError: the checkout is not what was committed.
    """
    pinned = prove_checkout(info)
    before = {name: sys.modules[name] for name in list(sys.modules) if is_own_module(name, pinned)}
    path, writes = list(sys.path), sys.dont_write_bytecode
    for name in before:
        del sys.modules[name]
    put_first(info)
    sys.dont_write_bytecode = True  # the checkout must stay as it is
    importlib.invalidate_caches()
    try:
        yield
    finally:
        names = [name for name in sys.modules if is_own_module(name, pinned)]
        _KEPT.append({name: sys.modules.pop(name) for name in names})
        sys.modules.update(before)
        sys.path[:], sys.dont_write_bytecode = path, writes
