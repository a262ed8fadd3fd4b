"""Recognises models and data made for other trainers, and says what to give mtf instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtf.errors import MtfError
from mtf.spec.named_code.foreign_models import LIGHTNING, LIGHTNING_MODULE

if TYPE_CHECKING:
    from collections.abc import Mapping

_DATA_MODULE = (
    "is a LightningDataModule. Name a class or function that takes split and returns the data set"
    " of that split, or its DataLoader"
)
_WRAPPED = "wraps the model for several processes, as mtf does itself. Return the model inside"
# by class name: the packages that define it, and what to do
_MODELS = {
    "LightningModule": (LIGHTNING, LIGHTNING_MODULE),
    "DistributedDataParallel": (("torch.nn.parallel",), _WRAPPED),
    "DataParallel": (("torch.nn.parallel",), _WRAPPED),
}
_DATA = {"LightningDataModule": (LIGHTNING, _DATA_MODULE)}


def refuse_foreign_model(model: object, key: str) -> None:
    """Refuse a model that is made for another trainer.

    Args:
        model: the model.
        key: what to call it in the message, such as ``model.type: package.module:Name``.

    Raises:
        MtfError: it is.
    """
    _refuse(model, key, _MODELS)


def refuse_foreign_data(data: object, key: str) -> None:
    """Refuse data that is made for another trainer; see ``refuse_foreign_model``."""
    _refuse(data, key, _DATA)


def _refuse(value: object, key: str, kinds: Mapping[str, tuple[tuple[str, ...], str]]) -> None:
    classes: tuple[Any, ...] = (value if isinstance(value, type) else type(value)).__mro__
    for cls in classes:  # the packages stay unimported
        packages, advice = kinds.get(cls.__name__, ((), ""))
        if any(f"{cls.__module__}.".startswith(f"{package}.") for package in packages):
            raise MtfError(f"{key} {advice}")
