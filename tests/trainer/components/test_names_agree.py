"""What the static checks of names and keys say is what a job does that builds from the same spec.

Each case is judged twice: by `NamedCode`, which reads sources and tables, and by the trainer's own
builders, which import the classes. A mistake that only one of them finds is a failure, except where
the sources cannot tell.
"""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mtf.errors import MtfError
from mtf.project.code_files.source_trees import files_on_disk
from mtf.spec.named_code.name_check import NamedCode
from mtf.spec.schema.run_config import ExperimentConfig
from mtf.spec.schema.sections import ModelConfig, OptimizerConfig, SchedulerConfig
from mtf.trainer.components.factory import build_data, build_model
from mtf.trainer.components.lr_schedulers import _CLASSES, _SHORT, Length, build_schedule
from mtf.trainer.components.optimizers import OPTIMIZERS, build_optimizer
from mtf.trainer.components.registry import load
from mtf.trainer.loop.callbacks import build_callbacks
from tests.trainer.runs import DIGITS, config_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MODELS = """
import abc
import dataclasses
import functools
from dataclasses import dataclass, field
from typing import ClassVar, Generic, TypeVar

import torch
from torch import nn
from torch.nn import Linear

T = TypeVar("T")


class Plain(nn.Module):
    def __init__(self, a, b=2, *, c: float = 0.1, d):
        super().__init__()


class Sized(nn.Module):
    def __init__(self, input_shape, num_classes, hidden_size):
        super().__init__()


class Without(nn.Module):
    pass


class Child(Plain):
    pass


class Mixin:
    def __init__(self, a):
        super().__init__()


class Both(nn.Module, Mixin):
    pass


class MixinFirst(Mixin, nn.Module):
    pass


class HandsOn(Plain):
    def __init__(self, e, **kwargs):
        super().__init__(**kwargs)


class Typed(nn.Module, Generic[T]):
    def __init__(self, a: "int | None" = None):
        super().__init__()


class Abstract(nn.Module, abc.ABC):
    def __init__(self, a):
        super().__init__()


class Many(nn.Module):
    def __init__(self, a, *args):
        super().__init__()


class Layer(nn.Linear):
    pass


@dataclass(eq=False)
class Config:
    a: int
    b: int = 2
    shared: ClassVar[int] = 1
    c: list = field(default_factory=list)
    d: int = field(init=False, default=3)


@dataclass(eq=False)
class Data(Config, nn.Module):
    e: int = 5

    def __post_init__(self):
        nn.Module.__init__(self)


@dataclasses.dataclass(eq=False, init=False)
class NoInit(nn.Module):
    a: int = 1


class Outer:
    class Inner(nn.Module):
        def __init__(self, a):
            super().__init__()

    @classmethod
    def build(cls, a):
        return nn.Linear(1, 1)


def function(a, b=1):
    return nn.Linear(1, 1)


@functools.lru_cache
def cached(a, b=1):
    return nn.Linear(1, 1)


def wrapped(function):
    def call(x):
        return function(x, 1)
    return call


@wrapped
def decorated(a, b):
    return nn.Linear(1, 1)


def changed(cls):
    return functools.partial(cls, a=1, d=2)


@changed
class Decorated(Plain):
    pass


Alias = Plain
Partial = functools.partial(Plain, a=1)
first, second = Plain, Sized

if torch:
    class Conditional(nn.Module):
        def __init__(self, a):
            super().__init__()
else:
    Conditional = None

try:
    from missing_package import Fallback
except ImportError:
    Fallback = Without
"""
PACKAGE = """
from .models import Plain
from .models import Sized as Renamed
from .more import *
"""
MORE = """
from torch import nn
class Starred(nn.Module):
    def __init__(self, a):
        super().__init__()
class _Private(Starred):
    pass
"""
HIDDEN = """
from zoo.models import Plain
globals()["Hid" + "den"] = Plain
"""
LAZY = """
def __getattr__(name):
    from zoo.models import Plain
    return Plain
"""
DATA = """
import torch
from torch.utils.data import Dataset, TensorDataset

def rows():
    return TensorDataset(torch.randn(64, 4), torch.zeros(64, dtype=torch.long))

def by_split(split, root="."): return rows()
def by_train(train, root="."): return rows()
def by_typed_train(root=".", train: bool = True): return rows()
def by_size(train: int = 3): return rows()
def by_default(train=True): return rows()
def neither(root="."): return rows()
def needs(split, root): return rows()
def anything(**keys): return rows()
def anything_named(root=".", **keys): return rows()

class Own(Dataset):
    def __init__(self, split, scale=1):
        self.rows = rows()
    def __len__(self): return 64
    def __getitem__(self, i): return self.rows[i]

class Bare(Own):
    pass
"""
PARTS = """
import torch
from torch.optim.lr_scheduler import LRScheduler, StepLR
from mtf.trainer import Callback

class Mine(torch.optim.Optimizer):
    def __init__(self, params, lr, rho=0.5):
        super().__init__(params, {"lr": lr})

class Derived(torch.optim.SGD):
    pass

class Narrow(torch.optim.AdamW):
    def __init__(self, params, weight_decay=0.1):
        super().__init__(params, weight_decay=weight_decay)

class Steps(StepLR):
    pass

class Ramp(LRScheduler):
    def __init__(self, optimizer, warmup, last_epoch=-1):
        super().__init__(optimizer, last_epoch)
    def get_lr(self):
        return [g["lr"] for g in self.optimizer.param_groups]

class Bell(Callback):
    def __init__(self, loud, times=1):
        pass

class Silent(Callback):
    pass
"""
FILES = {
    "zoo/__init__.py": PACKAGE,
    "zoo/models.py": MODELS,
    "zoo/more.py": MORE,
    "zoo/lazy.py": LAZY,
    "zoo/hidden.py": HIDDEN,
    "zoo/data.py": DATA,
    "zoo/parts.py": PARTS,
    "src/deep/inside/net.py": MORE,
    "loose/net.py": MORE,
}


def named(module: str, names: str) -> list[str]:
    return [f"{module}:{name}" for name in names.split()]


FACTS = {"input_shape": (4,), "num_classes": 2}
KEYS: tuple[tuple[str, Any], ...] = (("a", 1), ("b", 2), ("c", 0.5), ("d", 3), ("e", 4))
# Of these the sources do not tell everything: what the checks find is true, but they may miss some.
UNTOLD = (
    "HandsOn",
    "Decorated",
    "decorated",
    "Partial",
    "first",
    "Hidden",
    "Conditional",
    "Fallback",
    "lazy:",
    "Outer",
    "_Private",
    "NoInit",
    "zoo:models",
)
NAMES = (
    *named("zoo.models", "Plain Sized Without Child Both MixinFirst HandsOn Typed"),
    *named("zoo.models", "Abstract Many Layer Data NoInit function cached"),
    *named("zoo.models", "decorated Decorated Alias Partial first"),
    *named("zoo.models", "Conditional Fallback Linear Outer.Inner Outer.build"),
    *("zoo:Plain", "zoo:Renamed", "zoo:Starred", "zoo:_Private", "zoo:models", "zoo.lazy:Anything"),
    *("zoo.hidden:Hidden",),
    *("deep.inside.net:Starred", "loose.net:Starred", "torch.nn:Linear", "torch.nn:Identity"),
    *("mlp", "transformer"),
)
MISSING = (
    *("zoo.models:Plan", "zoo.modles:Plain", "zoo:Sized", "zoo.more:Plain", "zoo.models.x:Plain"),
    *(
        "deep.inside.nett:Starred",
        "deep.insid.net:Starred",
        "loose.nett:Starred",
        "torch.nn:Linaer",
    ),
    *("loose.net:Starred2", "zoo.models:", "zoo..models:Plain", "zoo/models:Plain", "mpl"),
)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NamedCode]:
    """Return the static checks of a checkout that is also on the import path, as in a job."""
    root: Path = tmp_path_factory.mktemp("checkout")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    before, path = set(sys.modules), list(sys.path)
    sys.path[:0] = [str(root), str(root / "src")]
    yield NamedCode(files_on_disk(root))
    sys.path[:] = path
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in {"zoo", "deep", "loose"}:
            del sys.modules[name]


def refusal(build: Callable[[], object]) -> str:
    """Return the error that a job ends with at the names and keys of its spec, "" if it builds."""
    try:
        build()
    except (MtfError, ImportError, TypeError, ValueError) as e:
        return f"{type(e).__name__}: {e}"
    return ""


def mistakes(code: NamedCode, section: str, raw: dict[str, Any]) -> list[str]:
    found = code.findings(section, raw, dict)
    return [each.message for each in found if each.severity == "error"]


def compare(found: list[str], refused: str, *, is_told: bool, what: object) -> None:
    assert not found or refused, f"{what} builds, but the check says {found}"
    if is_told:
        assert found or not refused, f"{what}: the check misses {refused}"


def subsets() -> Iterator[dict[str, Any]]:
    for number in range(len(KEYS) + 1):
        yield from map(dict, itertools.combinations(KEYS, number))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_is_refused_is_refused_by_the_job_too(code: NamedCode, name: str) -> None:
    is_told = not any(word in name for word in UNTOLD)
    sizes: tuple[dict[str, Any], ...] = ({}, {"hidden_size": 4, "num_layers": 1})
    for keys, more in itertools.product(subsets(), sizes):
        raw = {"type": name, **keys, **more}
        refused = refusal(lambda: build_model(ModelConfig.model_validate(raw), FACTS))  # noqa: B023
        compare(mistakes(code, "model", raw), refused, is_told=is_told, what=raw)


def test_the_cases_hold_mistakes_and_none(code: NamedCode) -> None:
    found = [bool(mistakes(code, "model", {"type": "zoo.models:Plain", **k})) for k in subsets()]
    assert 0 < sum(found) < len(found)


@pytest.mark.parametrize("name", MISSING)
def test_a_model_that_does_not_exist_is_found_missing(code: NamedCode, name: str) -> None:
    raw = {"type": name}
    refused = refusal(lambda: build_model(ModelConfig.model_validate(raw), FACTS))
    compare(mistakes(code, "model", raw), refused, is_told=True, what=raw)
    assert refused


@pytest.mark.parametrize(
    "name",
    [
        *named("zoo.data", "by_split by_train by_typed_train by_size by_default"),
        *named("zoo.data", "neither needs anything anything_named Own Bare Missing"),
        "synthetic",
        "syntetic",
    ],
)
def test_data_that_is_refused_is_refused_by_the_job_too(code: NamedCode, name: str) -> None:
    choices: dict[str, list[Any]] = {
        "root": [None, "x"],
        "split": [None, "train"],
        "train": [None, True],
        "noise": [None, 0.5],
        "val_split": ["validation", "train", "absent", None],
    }
    for values in itertools.product(*choices.values()):
        keys = dict(zip(choices, values, strict=True))
        raw = {k: v for k, v in keys.items() if v is not None or k == "val_split"}
        raw = {"dataset_name": name, "num_workers": 0, **raw}

        def build(raw: dict[str, Any] = raw) -> object:
            return build_data(config(data=raw))

        compare(mistakes(code, "data", raw), refusal(build), is_told="any" not in name, what=raw)


def config(**changes: Any) -> ExperimentConfig:
    names = (
        "run",
        "submission",
        "experiment",
        "key",
        "commit",
        "code_dir",
        "manifest",
        "repository",
    )
    value = config_with(DIGITS, {})
    value = {**value, **changes, "training": {**value["training"], "batch_size": 8}}
    return ExperimentConfig.model_validate(
        {**value, "mtf": {**dict.fromkeys(names, ""), "grid": None}}
    )


OPTIMIZER_KEYS = (("momentum", 0.9), ("rho", 0.5), ("amsgrad", False), ("lr", 0.1), ("lrr", 1.0))


@pytest.mark.parametrize(
    "name",
    [
        *OPTIMIZERS,
        "AdamW",
        "torch.optim:SGD",
        "torch.optim.adamw:AdamW",
        "torch.optim:Adamm",
        "torch.optim.AdamW",
        "adamx",
        *named("zoo.parts", "Mine Derived Narrow Mein"),
    ],
)
def test_an_optimizer_that_is_refused_is_refused_by_the_job_too(code: NamedCode, name: str) -> None:
    net = torch.nn.Linear(4, 4, bias=False)
    for number in range(3):
        for keys in map(dict, itertools.combinations(OPTIMIZER_KEYS, number)):
            raw = {"type": name, **keys}

            def build(raw: dict[str, Any] = raw) -> object:
                return build_optimizer(OptimizerConfig.model_validate(raw), net)

            compare(mistakes(code, "optimizer", raw), refusal(build), is_told=True, what=raw)


SCHEDULER_KEYS = (
    ("T_max", 5),
    ("gamma", 0.5),
    ("step_size", 3),
    ("interval", "epoch"),
    ("interval", "day"),
    ("warmup", 3),
    ("monitor", "val_loss"),
)


@pytest.mark.parametrize(
    "name",
    [
        *_SHORT,
        *sorted(_CLASSES.keys() - {"_lrscheduler"}),
        "CosineAnnealingLR",
        "cosin",
        "torch.optim.lr_scheduler:StepLR",
        "torch.optim.lr_scheduler:Nope",
        *named("zoo.parts", "Steps Ramp Nope"),
    ],
)
def test_a_scheduler_that_is_refused_is_refused_by_the_job_too(code: NamedCode, name: str) -> None:
    optimizer = torch.optim.SGD(torch.nn.Linear(4, 4).parameters(), lr=0.1, momentum=0.9)
    for number in range(3):
        for keys in map(dict, itertools.combinations(SCHEDULER_KEYS, number)):
            raw = {"type": name, **keys}

            def build(raw: dict[str, Any] = raw) -> object:
                section = SchedulerConfig.model_validate(raw)
                return build_schedule(section, optimizer, Length(100, 10), monitor="val_loss")

            refused = refusal(build)
            is_told = "gamma" not in keys or "sequential" not in name.lower()
            compare(mistakes(code, "scheduler", raw), refused, is_told=is_told, what=raw)


@pytest.mark.parametrize("name", ["Bell", "Silent", "Bel"])
def test_a_callback_that_is_refused_is_refused_by_the_job_too(code: NamedCode, name: str) -> None:
    for keys in ({}, {"loud": True}, {"times": 3}, {"loud": True, "tims": 3}):
        raw = {"mine": {"type": f"zoo.parts:{name}", **keys}}

        def build(raw: dict[str, Any] = raw) -> object:
            return build_callbacks(config(callbacks=raw), monitor="val_loss")

        compare(mistakes(code, "callbacks", raw), refusal(build), is_told=True, what=raw)


@pytest.mark.parametrize(
    "target", ["zoo.models:function", "zoo.models:nothing", "zoo.nowhere:main", "zoo:Plain"]
)
def test_an_entry_point_is_found_or_missing_as_in_the_job(code: NamedCode, target: str) -> None:
    refused = refusal(lambda: load(target, key="entrypoint"))
    found = [each.message for each in code.entrypoint(target)]
    compare(found, refused, is_told=True, what=target)
