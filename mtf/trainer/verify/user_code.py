"""Distinguishes the user's source files, modules and classes from installed ones and mtf's."""

from __future__ import annotations

import linecache
import sys
from typing import TYPE_CHECKING

from mtf.packaged_files import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import ModuleType


class UserCode:
    """The code of the work tree, without what is installed inside it."""

    def __init__(self, root: Path) -> None:
        self._roots = (f"{root}/", f"{root.resolve()}/")
        self._others = (f"{PACKAGE}/", f"{sys.prefix}/")

    def has_file(self, path: str | None) -> bool:
        """Return True if a source file is the user's."""
        if not path or not path.startswith(self._roots) or path.startswith(self._others):
            return False
        return "-packages/" not in path

    def has_module(self, name: str) -> bool:
        """Return True if an imported module is the user's."""
        return self.has_file(getattr(sys.modules.get(name), "__file__", None))

    def modules(self) -> Iterator[tuple[str, ModuleType]]:
        """Yield the names of the user's imported modules and the modules, sorted by name."""
        for name, module in sorted(sys.modules.items()):
            if self.has_module(name):
                yield name, module

    def classes(self) -> Iterator[type]:
        """Yield the classes that the user's imported modules define."""
        for name, module in self.modules():
            for value in vars(module).values():
                if isinstance(value, type) and value.__module__ == name:
                    yield value

    def relative_path(self, path: str) -> str:
        """Return a file's path relative to the work tree."""
        for root in self._roots:
            path = path.removeprefix(root)
        return path


def source_line(file: str, line: int) -> str:
    """Return a line of source code, empty if it cannot be read."""
    return linecache.getline(file, line).strip()
