"""Imports what mtf's commands import, and nothing of the trainer, for the processes forked from it."""

from __future__ import annotations

import importlib
import os
import pkgutil

import mtf

os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # as `mtf` does at its start
_LATE = ("jinja2", "rich.console", "rich.table", "ruamel.yaml", "yaml._yaml")  # inside functions
_NOT = ("mtf.trainer", "mtf.cli.__main__")

for module in pkgutil.walk_packages(mtf.__path__, "mtf."):
    if not module.name.startswith(_NOT):
        importlib.import_module(module.name)
for name in _LATE:
    importlib.import_module(name)
