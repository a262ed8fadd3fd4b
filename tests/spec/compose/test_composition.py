"""Specs with a defaults list: composition by Hydra, and errors at their positions."""

from __future__ import annotations

from typing import Any

from mtf.spec.compose.config_groups import Groups
from mtf.spec.load import Loaded, load_specs
from mtf.spec.schema.settings import Settings

STAMP = "20250101T120000Z"
CONF = {
    "model/small.yaml": "type: mlp\nhidden_size: 64\nnum_layers: 2\n",
    "model/big.yaml": "defaults: [small]\nhidden_size: 1024\nactivation: gelu\n",
    "optimizer/adam.yaml": "type: adamw\nlr: 1e-3\n",
    "optimizer/sgd.yaml": "type: sgd\nlr: 1e-1\nmomentum: 0.9\n",
    "data/digits.yaml": "dataset_name: digits\nnum_workers: 0\n",
    "slurm/short.yaml": "time: 1:30\n",
    "quick.yaml": "# @package _global_\ntraining: {max_epochs: 2, use_amp: false}\n",
}
DEFAULTS = "defaults: [{model: small}, {optimizer: adam}, {data: digits}, quick]\n"
ONE = f"kind: experiment\nexperiment_name: one\n{DEFAULTS}"
GRID = """\
kind: grid
name: g
base:
  defaults: [{model: small}, {optimizer: adam}, {data: digits}, quick]
"""


def load(text: str, conf: dict[str, str] | None = None) -> Loaded:
    files = {f"conf/{k}": v.encode() for k, v in {**CONF, **(conf or {})}.items()}
    return load_specs(
        {"experiments/s.yaml": text.encode()}, Settings(), STAMP, Groups(lambda: files)
    )


def configs(text: str, conf: dict[str, str] | None = None) -> list[dict[str, Any]]:
    loaded = load(text, conf)
    assert not loaded.problems, "\n".join(map(str, loaded.problems))
    return [dict(e.config) for e in loaded.desired[0].experiments]


def problems(text: str, conf: dict[str, str] | None = None) -> list[str]:
    return [str(p) for p in load(text, conf).problems]


def test_values_of_the_spec_override_those_of_its_groups() -> None:
    (config,) = configs(ONE + "model: {hidden_size: 32}\n")
    assert (config["model"]["hidden_size"], config["model"]["num_layers"]) == (32, 2)
    assert config["optimizer"]["lr"] == 1e-3
    assert (config["training"]["max_epochs"], config["training"]["use_amp"]) == (2, False)
    assert "defaults" not in config


def test_a_group_may_have_a_defaults_list_whose_choices_are_overridden() -> None:
    conf = {"stack.yaml": "# @package _global_\ndefaults: [{model: small}, {optimizer: adam}]\n"}
    text = "defaults: [stack, {data: digits}, {override model: big}, {override optimizer: sgd}]\n"
    (config,) = configs(f"kind: experiment\nexperiment_name: one\n{text}", conf)
    assert config["model"]["hidden_size"] == 1024
    assert (config["model"]["num_layers"], config["model"]["activation"]) == (2, "gelu")
    assert config["optimizer"]["momentum"] == 0.9


def test_numbers_and_times_are_yaml_1_2_in_groups_too() -> None:
    (config,) = configs(ONE.replace("quick]", "quick, {slurm: short}]"))
    assert config["slurm"]["time"] == "1:30"
    assert config["optimizer"]["lr"] == 0.001


def test_interpolations_are_resolved() -> None:
    (config,) = configs(
        ONE + "logging: {use_wandb: true, wandb_project: '${experiment_name}-${model.type}'}\n"
    )
    assert config["logging"]["wandb_project"] == "one-mlp"


def test_a_grid_chooses_groups_and_sets_values_on_top() -> None:
    text = GRID + "parameters: {model: [small, big], model.dropout: [0.0, 0.5], optimizer: [sgd]}\n"
    found = [(c["model"]["hidden_size"], c["model"]["dropout"]) for c in configs(text)]
    assert found == [(64, 0.0), (64, 0.5), (1024, 0.0), (1024, 0.5)]
    assert {c["optimizer"]["type"] for c in configs(text)} == {"sgd"}
    names = [e.name for e in load(text).desired[0].experiments]
    assert names[2] == "model=big,model.dropout=0.0,optimizer=sgd"


def test_a_grid_may_choose_in_a_group_that_its_base_leaves_out() -> None:
    conf = {"scheduler/cosine.yaml": "type: cosine\n"}
    text = GRID + "parameters: {scheduler: [null, cosine]}\n"
    found = [c["scheduler"] and c["scheduler"]["type"] for c in configs(text, conf)]
    assert found == [None, "cosine"]


def test_interpolations_use_the_values_of_each_member() -> None:
    text = (
        GRID + "  model: {num_layers: '${training.max_epochs}'}\n"
        "parameters: {training.max_epochs: [1, 3], optimizer.lr: [0.1, 0.2]}\n"
    )
    found = [(c["model"]["num_layers"], c["optimizer"]["lr"]) for c in configs(text)]
    assert found == [(1, 0.1), (1, 0.2), (3, 0.1), (3, 0.2)]


def test_conditions_and_exclusions_see_the_composed_values() -> None:
    text = GRID + (
        "parameters: {model: [small, big], optimizer.lr: [0.1, 0.2]}\n"
        "conditional: [{set: {model.dropout: [0.7]}, when: {model.activation: gelu}}]\n"
        "exclude: [{model: small, optimizer.lr: 0.2}]\n"
    )
    found = [
        (c["model"]["hidden_size"], c["model"]["dropout"], c["optimizer"]["lr"])
        for c in configs(text)
    ]
    assert found == [(64, 0.1, 0.1), (1024, 0.7, 0.1), (1024, 0.7, 0.2)]


def test_a_missing_value_must_come_from_the_grid() -> None:
    conf = {"model/open.yaml": "type: mlp\nhidden_size: ???\n"}
    base = GRID.replace("model: small", "model: open")
    found = configs(base + "parameters: {model.hidden_size: [8, 16]}\n", conf)
    assert [c["model"]["hidden_size"] for c in found] == [8, 16]
    conf = {"model/open.yaml": "type: ???\n"}
    problem_texts = problems(ONE.replace("model: small", "model: open"), conf)
    missing = "conf/model/open.yaml:1:7: model.type is missing (???). Give it a value"
    assert problem_texts == [missing]


def test_a_missing_value_that_nobody_gives_is_an_error_and_not_the_default() -> None:
    conf = {"model/open.yaml": "type: mlp\nhidden_size: ???\n"}
    place = "conf/model/open.yaml:2:14: model.hidden_size is missing (???). Give it a value"
    one, base = (text.replace("model: small", "model: open") for text in (ONE, GRID))
    assert problems(one, conf) == [place]
    assert problems(one + "model: {hidden_size: 8}\n", conf) == []
    assert place in problems(base + "parameters: {model.dropout: [0.1, 0.2]}\n", conf)
    assert problems(base + "parameters: {model.hidden_size: [8, 16]}\n", conf) == []


def test_a_wrong_value_is_reported_in_the_file_that_contains_it() -> None:
    conf = {"model/small.yaml": "type: mlp\nhidden_size: many\n"}
    (problem,) = problems(ONE, conf)
    assert problem.startswith("conf/model/small.yaml:2:14: model.hidden_size: expected an integer")
    (problem,) = problems(GRID + "parameters: {model.dropout: [0.1, 2.0]}\n")
    assert problem.startswith("experiments/s.yaml:5:35: model.dropout")


def test_a_missing_configuration_is_reported_with_the_nearest_name() -> None:
    (problem,) = problems(ONE.replace("model: small", "model: smal"))
    assert problem == (
        "experiments/s.yaml:3:20: defaults: conf/model/smal.yaml does not exist. Did you mean 'small'?"
    )
    (problem,) = problems(ONE.replace("model: small", "network: small"))
    assert problem == (
        "experiments/s.yaml:3:22: defaults: conf/network/small.yaml does not exist, nor does the folder"
        " conf/network"
    )
    (problem,) = problems(ONE + "model: {hidden_size: '${model.width}'}\n")
    assert problem.startswith("experiments/s.yaml:4:22: model.hidden_size: Interpolation key")
    (problem,) = problems(GRID.replace("base:", "defaults: []\nbase:"))
    assert problem.startswith("experiments/s.yaml:3:1: defaults: a grid has no defaults list")


def test_an_error_in_a_group_is_reported_in_its_own_file() -> None:
    (problem,) = problems(ONE, {"model/small.yaml": "type: mlp\ntype: transformer\n"})
    assert problem.startswith("conf/model/small.yaml:2:1: duplicate key 'type'")


def test_a_group_cannot_read_environment_variables(monkeypatch: Any) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "hunter2")
    conf = {"model/small.yaml": "type: mlp\nname: ${oc.env:WANDB_API_KEY}\n"}
    (problem,) = problems(ONE, conf)
    assert problem.startswith("conf/model/small.yaml:2:7: ${oc.env:...} is not allowed")
    assert "hunter2" not in problem


def test_a_grid_cannot_read_environment_variables(monkeypatch: Any) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "hunter2")
    text = (
        GRID + "  logging: {wandb_project: '${model.type}'}\n"
        "parameters: {model.type: ['${oc.env:WANDB_API_KEY}']}\n"
    )
    (problem,) = problems(text)
    assert "a grid sets model.type to an interpolation" in problem
    assert "hunter2" not in problem
