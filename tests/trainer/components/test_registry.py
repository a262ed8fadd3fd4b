"""A configuration's names become models, data and so on, or errors that name the nearest one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.optim import lr_scheduler

from mtf.errors import MtfError
from mtf.spec.schema.run_config import ExperimentConfig
from mtf.spec.schema.sections import ModelConfig, OptimizerConfig, SchedulerConfig
from mtf.trainer.components.factory import build_data, build_model
from mtf.trainer.components.lr_schedulers import Length, build_schedule
from mtf.trainer.components.optimizers import OPTIMIZERS, build_optimizer
from mtf.trainer.components.registry import load
from mtf.trainer.data.datasets import digits, synthetic
from tests.trainer.runs import DIGITS, config_with

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

IMAGES = {"input_shape": (1, 8, 8), "num_classes": 10}
NAMES = dict.fromkeys(
    ("run", "submission", "experiment", "key", "commit", "code_dir", "manifest", "repository"), ""
)


def config(**changes: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {**config_with(DIGITS, changes), "mtf": {**NAMES, "grid": None}}
    )


def model(type_: str, facts: dict[str, Any] = IMAGES, **keys: Any) -> Any:
    small = {"hidden_size": 8, "num_layers": 2, **keys}
    return build_model(ModelConfig.model_validate({"type": type_, **small}), facts)


def optimizer(type_: str, **keys: Any) -> Any:
    section = OptimizerConfig.model_validate({"type": type_, "lr": 0.1, **keys})
    return build_optimizer(section, torch.nn.Linear(4, 4, bias=False))


def schedule(type_: str, **keys: Any) -> Any:
    section = SchedulerConfig.model_validate({"type": type_, **keys})
    return build_schedule(section, optimizer("sgd"), Length(100, 10), monitor="val_loss")


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on ``sys.path``."""
    before = set(sys.modules)
    sys.path.insert(0, str(tmp_path))
    yield tmp_path
    sys.path.remove(str(tmp_path))
    for name in set(sys.modules) - before:
        del sys.modules[name]


# -- models ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["mlp", "transformer"])
@pytest.mark.parametrize("shape", [(5,), (4, 3), (2, 4, 4)])
def test_built_in_models_take_vectors_sequences_and_images(
    type_: str, shape: tuple[int, ...]
) -> None:
    made = model(type_, {"input_shape": shape, "num_classes": 7}, activation="gelu")
    assert made(torch.zeros(3, *shape)).shape == (3, 7)


def test_the_transformer_reads_token_ids() -> None:
    made = model("transformer", {"input_shape": (6,), "num_classes": 3}, vocab_size=11)
    assert made(torch.randint(11, (2, 6))).shape == (2, 3)


def test_a_model_gets_the_values_of_its_section() -> None:
    made = model("mlp", hidden_size=5, num_layers=3, dropout=0.25)
    assert [layer.out_features for layer in made.hidden] == [5, 5, 5]
    assert made.dropout.p == 0.25
    heads = model("transformer", num_heads=2, feedforward_size=24).encoder.layers[0]
    assert (heads.self_attn.num_heads, heads.linear1.out_features) == (2, 24)


@pytest.mark.parametrize(
    ("type_", "keys", "message"),
    [
        ("transfromer", {}, "unknown name 'transfromer'. Did you mean 'transformer"),
        ("resnet50", {}, "pip install timm or pip install torchvision"),
        ("timm:resnet50", {}, "needs timm, which is not installed here: pip install timm"),
        ("torchvision:resnet50", {}, "pip install torchvision"),
        (
            "mlp",
            {"activation": "rleu"},
            "model.activation: unknown name 'rleu'. Did you mean 'relu",
        ),
        ("mlp", {"num_head": 3}, "model.num_head: MLP takes no such key. Known: activation"),
        ("transformer", {"num_heads": 3}, "3 does not divide hidden_size, 8"),
        ("no_such.place:Net", {}, "no module 'no_such' in the pinned checkout"),
        ("torch.nn:Linaer", {}, "torch.nn has no 'Linaer'. Did you mean 'Linear"),
        ("json:dumps", {}, "model: dumps needs obj: add it to the section"),
    ],
)
def test_an_error_names_what_is_wrong_with_a_model(
    type_: str, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(MtfError) as wrong:
        model(type_, **keys)
    assert message in str(wrong.value)


def test_a_model_of_the_checkout_gets_the_keys_that_it_takes(checkout: Path) -> None:
    (checkout / "mine.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self, num_classes, width):\n"
        "        super().__init__()\n"
        "        self.layer = torch.nn.Linear(width, num_classes)\n"
        "class Bare(torch.nn.Module):\n"
        "    layer = torch.nn.Linear(6, 2)\n"
        "def number(**keys):\n"
        "    return 3\n"
    )
    assert model("mine:Net", width=6).layer.weight.shape == (10, 6)
    assert model("mine:Bare").layer.weight.shape == (2, 6)  # takes no key at all
    with pytest.raises(MtfError, match="mine:number returned a int"):
        model("mine:number")


def test_an_import_error_inside_a_users_module_is_not_hidden(checkout: Path) -> None:
    (checkout / "broken.py").write_text("import no_such_package\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        load("broken:Net", key="model.type")


ZOO = """
import torch
def list_models(): return ["resnet50", "resnet18"]
def create(name, num_classes=1000, **keys):
    model = torch.nn.Linear(1, num_classes)
    model.asked = name, keys
    return model
create_model = get_model = create
"""


def test_models_of_timm_and_torchvision_are_found_by_bare_name(checkout: Path) -> None:
    (checkout / "timm.py").write_text(ZOO)
    assert model("resnet50").asked == ("resnet50", {"in_chans": 1})
    assert model("timm:resnet18", pretrained=False).asked[1]["pretrained"] is False
    with pytest.raises(MtfError, match=r"timm has no model 'resnet5'\. Did you mean 'resnet50"):
        model("timm:resnet5")
    (checkout / "torchvision").mkdir()
    (checkout / "torchvision" / "__init__.py").write_text("")
    (checkout / "torchvision" / "models.py").write_text(ZOO)
    assert model("torchvision:resnet50").out_features == 10


def test_plug_ins_register_by_entry_point(checkout: Path) -> None:
    (checkout / "extra.py").write_text(
        "import torch\n"
        "def net(num_classes): return torch.nn.Linear(2, num_classes)\n"
        "def data(split): return torch.utils.data.TensorDataset(torch.zeros(64, 2))\n"
    )
    info = checkout / "extra-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: extra\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[mtf.models]\nextra = extra:net\n[mtf.datasets]\nextra = extra:data\n"
    )
    assert model("extra", num_layers=1).out_features == 10
    assert len(build_data(config(data={"dataset_name": "extra"})).train) == 1


# -- data ------------------------------------------------------------------------------------------


def test_digits_are_normalised_and_always_split_alike() -> None:
    train, validation = digits("train"), digits("validation")
    assert (len(train), len(validation)) == (1437, 360)
    assert (train.input_shape, train.num_classes) == ((1, 8, 8), 10)
    images = train.tensors[0]
    assert abs(float(images.mean())) < 1e-5
    assert abs(float(images.std()) - 1) < 1e-3
    both = torch.cat([images, validation.tensors[0]]).flatten(1)
    assert len(torch.unique(both, dim=0)) == 1797


def test_equal_keys_make_equal_synthetic_data() -> None:
    first, again = (synthetic("train", num_samples=50, num_features=3) for _ in range(2))
    assert torch.equal(first.tensors[0], again.tensors[0])
    other = synthetic("train", num_samples=50, num_features=3, data_seed=1)
    assert not torch.equal(first.tensors[0], other.tensors[0])


class Endless(torch.utils.data.Dataset[int]):
    def __init__(self, split: str) -> None: ...

    def __getitem__(self, index: int) -> int:
        return index


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"dataset_name": "digit"}}, "unknown name 'digit'. Did you mean 'digits"),
        (
            {"data": {"val_split": "test"}},
            "split 'test' does not exist in this data set: use train",
        ),
        ({"data": {"size": 3}}, "data.size: digits takes no such key"),
        ({"training": {"batch_size": 9999}}, "9999 is more than the 1437 samples"),
        ({"data": {"dataset_name": f"{__name__}:Endless"}}, "Endless has no length: give it a"),
    ],
)
def test_an_error_names_what_is_wrong_with_the_data(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MtfError) as wrong:
        build_data(config(**changes))
    assert message in str(wrong.value)


def test_a_batch_may_not_be_larger_than_the_share_of_a_rank() -> None:
    with pytest.raises(MtfError, match="800 is more than the 719 samples that each of 2 ranks"):
        build_data(config(training={"batch_size": 800}), world_size=2)


# -- optimizers and schedulers ---------------------------------------------------------------------


def test_common_optimizers_are_found_by_name() -> None:
    wanted = {"adamw", "adam", "sgd", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "radam"}
    assert wanted <= set(OPTIMIZERS)
    for name in sorted(set(OPTIMIZERS) - {"sparseadam", "lbfgs"}):
        made = optimizer(name, weight_decay=0.0)
        made.param_groups[0]["params"][0].grad = torch.ones(4, 4)
        made.step()


def test_an_optimizer_gets_the_keys_that_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    sgd = optimizer("sgd", momentum=0.9, weight_decay=0.2)
    assert (sgd.defaults["momentum"], sgd.defaults["weight_decay"]) == (0.9, 0.2)
    assert capsys.readouterr().err == ""
    assert optimizer("AdamW", betas=[0.8, 0.9]).defaults["betas"] == (0.8, 0.9)
    optimizer("rmsprop", betas=[0.8, 0.9])
    assert (
        "optimizer.betas: (0.8, 0.9) is ignored: RMSprop has no such setting"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("type_", "keys", "message"),
    [
        ("adamww", {}, "optimizer.type: unknown name 'adamww'. Did you mean 'adamw"),
        ("sgd", {"momentun": 0.9}, "optimizer.momentun: SGD takes no such key. Did you mean 'mom"),
    ],
)
def test_an_error_names_what_is_wrong_with_an_optimizer(
    type_: str, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(MtfError) as wrong:
        optimizer(type_, **keys)
    assert message in str(wrong.value)


class AsForLightning(torch.nn.Linear):
    """A model whose optimizers are configured as Lightning calls it."""

    def __init__(self) -> None:
        super().__init__(2, 2)

    def configure_optimizers(self) -> Any:
        """Return an optimizer and a scheduler."""
        return {"optimizer": torch.optim.SGD(self.parameters()), "lr_scheduler": None}


def test_optimizers_that_are_configured_for_lightning_are_refused_with_the_cure() -> None:
    model = AsForLightning()
    with pytest.raises(MtfError, match=r"define it with \(self, config\)"):
        build_optimizer(OptimizerConfig(), model)
    without = model.configure_optimizers
    vars(model)["configure_optimizers"] = lambda _: without()
    with pytest.raises(MtfError, match=r"returned a dict: .* section scheduler names"):
        build_optimizer(OptimizerConfig(), model)


def test_a_model_without_parameters_cannot_be_trained() -> None:
    with pytest.raises(MtfError, match="Identity has no parameters to train"):
        build_optimizer(OptimizerConfig(), torch.nn.Identity())


@pytest.mark.parametrize(
    ("type_", "made", "interval"),
    [
        ("cosine", lr_scheduler.CosineAnnealingLR, "step"),
        ("linear", lr_scheduler.LinearLR, "step"),
        ("polynomial", lr_scheduler.PolynomialLR, "step"),
        ("onecycle", lr_scheduler.OneCycleLR, "step"),
        ("step", lr_scheduler.StepLR, "epoch"),
        ("multistep", lr_scheduler.MultiStepLR, "epoch"),
        ("exponential", lr_scheduler.ExponentialLR, "epoch"),
        ("constant", lr_scheduler.ConstantLR, "epoch"),
        ("plateau", lr_scheduler.ReduceLROnPlateau, "epoch"),
        ("warm_restarts", lr_scheduler.CosineAnnealingWarmRestarts, "epoch"),
        ("CosineAnnealingLR", lr_scheduler.CosineAnnealingLR, "step"),
        ("torch.optim.lr_scheduler:StepLR", lr_scheduler.StepLR, "step"),
    ],
)
def test_schedulers_are_found_by_name_with_their_usual_interval(
    type_: str, made: type, interval: str
) -> None:
    keys = {"step_size": 3} if type_.endswith("StepLR") else {}
    built = schedule(type_, **keys)
    assert type(built.scheduler) is made
    assert built.interval == interval
    assert built.monitor == ("val_loss" if type_ == "plateau" else None)


def test_a_scheduler_gets_the_length_of_the_training_in_its_own_interval() -> None:
    assert schedule("cosine").scheduler.T_max == 100
    assert schedule("cosine", interval="epoch").scheduler.T_max == 10
    assert schedule("cosine", T_max=7).scheduler.T_max == 7


def test_a_linear_schedule_ends_at_zero() -> None:
    built = schedule("linear")
    for _ in range(100):
        built.scheduler.optimizer.step()
        built.after_step()
    assert built.scheduler.get_last_lr() == [pytest.approx(0.0)]


@pytest.mark.parametrize(
    ("type_", "keys", "message"),
    [
        ("cosin", {}, "scheduler.type: unknown name 'cosin'. Did you mean 'cosine"),
        ("cosine", {"interval": "batch"}, "scheduler.interval: expected step or epoch"),
        ("cosine", {"t_max": 3}, "scheduler.t_max: CosineAnnealingLR takes no such key. Did you"),
        ("cycliclr", {}, "scheduler: CyclicLR needs base_lr, max_lr: add it to the section"),
    ],
)
def test_an_error_names_what_is_wrong_with_a_scheduler(
    type_: str, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(MtfError) as wrong:
        schedule(type_, **keys)
    assert message in str(wrong.value)


def test_a_missing_monitored_metric_is_an_error() -> None:
    with pytest.raises(MtfError, match=r"no metric 'val_los'\. Metrics are train_loss"):
        schedule("plateau", monitor="val_los", mode="min").after_metrics({"train_loss": 1.0})
