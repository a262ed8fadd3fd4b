"""Imports what mtf's commands import, and nothing of the trainer, for the processes forked from it.

And compiles the models, which pydantic otherwise does in each of them when it first needs one.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from typing import TYPE_CHECKING

import mtf
from mtf.spec.schema.strict import Strict

if TYPE_CHECKING:
    from collections.abc import Iterator

os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # as `mtf` does at its start
_LATE = ("jinja2", "rich.console", "rich.table", "ruamel.yaml", "yaml._yaml")  # inside functions
_NOT = ("mtf.trainer", "mtf.cli.__main__")

for module in pkgutil.walk_packages(mtf.__path__, "mtf."):
    if not module.name.startswith(_NOT):
        importlib.import_module(module.name)
for name in _LATE:
    importlib.import_module(name)


def _models(base: type[Strict]) -> Iterator[type[Strict]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)


for model in _models(Strict):
    model.model_rebuild()
