"""Imports everything that mtf's commands use, without the trainer, before processes are forked.

It also builds the pydantic models, which each process would otherwise do at their first use.
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

os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # as `mtf` does when it starts
_LAZY = (
    "jinja2",
    "rich.console",
    "rich.table",
    "ruamel.yaml",
    "yaml._yaml",
)  # imported inside functions
_EXCLUDED = ("mtf.trainer", "mtf.cli.__main__")

for module in pkgutil.walk_packages(mtf.__path__, "mtf."):
    if not module.name.startswith(_EXCLUDED):
        importlib.import_module(module.name)
for name in _LAZY:
    importlib.import_module(name)


def _models(base: type[Strict]) -> Iterator[type[Strict]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)


for model in _models(Strict):
    model.model_rebuild()
