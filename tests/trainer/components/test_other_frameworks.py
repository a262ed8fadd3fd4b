"""Models and data of other trainers get words instead of a traceback."""

from __future__ import annotations

import pytest
from torch import nn

from mtf.errors import MtfError
from mtf.trainer.components.other_frameworks import refuse_foreign_data, refuse_foreign_model
from mtf.trainer.components.registry import load


class LightningModule(nn.Linear):
    """Stands for Lightning's class, whose import takes seconds."""


class LightningDataModule:
    """Stands for Lightning's class."""


LightningModule.__module__ = "lightning.pytorch.core.module"
LightningDataModule.__module__ = "pytorch_lightning.core.datamodule"


def test_a_lightning_module_is_refused_with_what_to_derive_instead() -> None:
    class Net(LightningModule):
        pass

    with pytest.raises(MtfError, match=r"model.type: zoo:Net is a LightningModule, .*nn.Module"):
        refuse_foreign_model(Net(6, 3), "model.type: zoo:Net")


def test_a_lightning_data_module_is_refused_as_class_and_as_object() -> None:
    for data in (LightningDataModule, LightningDataModule()):
        with pytest.raises(MtfError, match=r"is a LightningDataModule\. Name a class or function"):
            refuse_foreign_data(data, "data.dataset_name: zoo:Data")


def test_a_model_in_a_wrapper_for_several_processes_is_refused() -> None:
    with pytest.raises(MtfError, match="the model wraps the model for several processes"):
        refuse_foreign_model(nn.DataParallel(nn.Linear(6, 3)), "the model")


def test_own_classes_are_nobody_elses() -> None:
    refuse_foreign_model(nn.Linear(6, 3), "the model")
    refuse_foreign_data([1, 2], "the data")


@pytest.mark.parametrize("target", ["__main__:Net", "notebooks.ipynb:Net"])
def test_a_class_of_a_notebook_or_script_is_refused(target: str) -> None:
    with pytest.raises(MtfError, match=r"in a notebook or script, .* write package.module:Net"):
        load(target, key="model.type")
