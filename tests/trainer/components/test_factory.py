"""What a user's class or function is called with: what the spec says, and nothing else."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from mtf.errors import MtfError
from mtf.spec.schema.run_config import ExperimentConfig
from mtf.spec.schema.sections import ModelConfig, OptimizerConfig
from mtf.trainer.components.factory import MODELS, build_data, build_model
from mtf.trainer.components.optimizers import build_optimizer
from tests.trainer.runs import DIGITS, config_with

HERE = __name__
FACTS = {"input_shape": (1, 8, 8), "num_classes": 10}
NAMES = dict.fromkeys(
    ("run", "submission", "experiment", "key", "commit", "code_dir", "manifest", "repository"), ""
)


class Recorded(nn.Module):
    """A model that keeps what it was called with."""

    def __init__(self, given: dict[str, Any]) -> None:
        super().__init__()
        self.given = {k: v for k, v in given.items() if k not in {"self", "__class__"}}


class WithDefaults(Recorded):
    def __init__(
        self, hidden_size: int = 64, dropout: float = 0.0, seed: int = 42, num_classes: int = 2
    ) -> None:
        super().__init__(locals())


class TakesAny(Recorded):
    def __init__(self, **cfg: Any) -> None:
        super().__init__(cfg)


class HandsOn(WithDefaults):
    def __init__(self, depth: int = 3, **rest: Any) -> None:
        super().__init__(**rest)
        self.given["depth"] = depth


NET = WithDefaults()


def given(name: str, **keys: Any) -> dict[str, Any]:
    section = ModelConfig.model_validate({"type": f"{HERE}:{name}", **keys})
    model: Any = build_model(section, FACTS)
    found: dict[str, Any] = model.given
    return found


def test_a_models_own_defaults_hold_unless_the_spec_sets_the_key() -> None:
    own = {"hidden_size": 64, "dropout": 0.0, "seed": 42, "num_classes": 10}
    assert given("WithDefaults") == own
    assert given("WithDefaults", hidden_size=512, dropout=0.1) == {
        **own,
        "hidden_size": 512,
        "dropout": 0.1,
    }


def test_nothing_is_injected_through_keyword_arguments() -> None:
    assert given("TakesAny") == {}
    assert given("TakesAny", width=3, num_layers=2) == {"width": 3, "num_layers": 2}
    own = {"dropout": 0.0, "seed": 42, "num_classes": 10, "depth": 3}
    assert given("HandsOn", hidden_size=9) == {**own, "hidden_size": 9}


def test_a_set_key_that_a_model_does_not_take_is_reported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given("WithDefaults", num_layers=3)
    line = "model.num_layers: 3 is ignored: WithDefaults takes no such key\n"
    assert capsys.readouterr().err.endswith(line)
    given("WithDefaults")
    assert capsys.readouterr().err == ""


def test_an_instance_in_place_of_a_class_is_an_error() -> None:
    with pytest.raises(MtfError, match=r"model\.type: it is an instance of WithDefaults: name the"):
        given("NET")
    with pytest.raises(MtfError, match=r"data\.dataset_name: it is an instance of TensorDataset"):
        data("PAIRS")


def test_the_resolved_section_lists_what_the_model_is_called_with() -> None:
    own = ModelConfig.model_validate({"type": "lab:Net", "dropout": 0.1, "width": 3})
    assert own.model_dump(mode="json") == {"type": "lab:Net", "dropout": 0.1, "width": 3}
    assert own.hidden_size == 512, "a loop of your own may read the section's default"
    assert "hidden_size" in ModelConfig.model_validate({"type": "mlp"}).model_dump()
    assert set(MODELS) == ModelConfig.known_types


class Lion(torch.optim.SGD):
    def __init__(
        self, params: Any, lr: float = 0.5, betas: tuple[float, float] = (0.9, 0.99), **rest: Any
    ) -> None:
        super().__init__(params, lr, **rest)
        self.given = (lr, betas, rest)


def test_an_optimizers_own_defaults_hold_unless_the_spec_sets_the_key() -> None:
    def made(**keys: Any) -> Any:
        section = OptimizerConfig.model_validate({"type": f"{HERE}:Lion", **keys})
        return build_optimizer(section, nn.Linear(2, 2))

    assert made().given == (0.5, (0.9, 0.99), {})
    assert made(lr=0.1, weight_decay=0.2).given == (0.1, (0.9, 0.99), {"weight_decay": 0.2})
    plain = OptimizerConfig.model_validate({"type": f"{HERE}:Lion"}).model_dump()
    assert plain == {"type": f"{HERE}:Lion"}


# -- data sets -------------------------------------------------------------------------------------

CALLS: list[dict[str, Any]] = []
PAIRS = TensorDataset(torch.zeros(64, 2), torch.zeros(64))


class Pairs(Dataset[Any]):
    def __init__(self, root: str = "", train: bool = True, seed: int = 7) -> None:
        CALLS.append({"root": root, "train": train, "seed": seed})

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> Any:
        return torch.zeros(2), index % 2


class Letters(Pairs):
    """As torchvision's EMNIST: its ``split`` is no split, and ``train`` is the base class's."""

    def __init__(self, root: str, split: str, **rest: Any) -> None:
        super().__init__(root, **rest)
        CALLS[-1]["split"] = split


def handing_on(**keys: Any) -> Any:
    return blind(**keys)


def blind(root: str = "") -> Any:
    del root
    return PAIRS


def by_path(train: str = "train.csv") -> Any:
    del train
    return PAIRS


def by_name(split: str, *, seed: int = 7) -> Any:
    CALLS.append({"split": split, "seed": seed})
    return PAIRS


def by_any(**keys: Any) -> Any:
    CALLS.append(keys)
    return PAIRS


bound = functools.partial(Pairs, "/data")


def data(name: str, **keys: Any) -> list[dict[str, Any]]:
    """Build the data and return what the factory was called with, for each split."""
    CALLS.clear()
    section = {"dataset_name": f"{HERE}:{name}", **keys}
    changes = {"data": section, "mtf": {**NAMES, "grid": None}}
    build_data(ExperimentConfig.model_validate(config_with(DIGITS, changes)))
    return list(CALLS)


@pytest.mark.parametrize(("name", "root"), [("Pairs", ""), ("bound", "/data")])
def test_a_data_set_that_takes_train_gets_it(name: str, root: str) -> None:
    assert data(name) == [{"root": root, "train": t, "seed": 7} for t in (True, False)]


def test_a_key_of_the_spec_comes_before_what_mtf_would_set() -> None:
    assert data("Letters", root="/data", split="letters") == [
        {"root": "/data", "train": t, "seed": 7, "split": "letters"} for t in (True, False)
    ]
    assert data("by_name", seed=3, val_split="test") == [
        {"split": split, "seed": 3} for split in ("train", "test")
    ]


def test_a_data_set_gets_its_split_and_nothing_else() -> None:
    assert data("by_name") == [{"split": s, "seed": 7} for s in ("train", "validation")]
    assert data("by_any", size=3) == [{"split": s, "size": 3} for s in ("train", "validation")]


@pytest.mark.parametrize("name", ["blind", "by_path", "handing_on"])
def test_a_data_set_that_cannot_tell_its_split_is_not_validated_on(name: str) -> None:
    with pytest.raises(MtfError, match=f"{name} takes neither split nor train, so the run would"):
        data(name)
    data(name, val_split=None)
    data(name, val_split="train")  # asked for
    with pytest.raises(MtfError, match=r"data\.siz"):
        data(name, siz=3, val_split=None)


@pytest.mark.parametrize(
    ("name", "keys"), [("Pairs", {"train": True}), ("by_name", {"split": "all"})]
)
def test_a_split_that_the_spec_fixes_is_not_validated_on(name: str, keys: dict[str, Any]) -> None:
    with pytest.raises(MtfError, match="the section sets it for training and validation alike"):
        data(name, **keys)
    data(name, **keys, val_split=None)
