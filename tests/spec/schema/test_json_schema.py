"""JSON Schemas for editors: they accept what mtf accepts and describe every key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from mtf.spec.schema.json_schema import settings_schema, spec_schema
from mtf.spec.yaml.reader import load_yaml
from tests.spec.samples import BASE, EXPERIMENT

ROOT = Path(__file__).parents[3]
GRID = "kind: grid\nname: g\nbase: base.yaml\nparameters: {optimizer.lr: [0.1, 0.2]}\n"


@pytest.fixture(scope="module")
def spec() -> Any:
    schema = spec_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.fixture(scope="module")
def settings() -> Any:
    schema = settings_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def mistakes(validator: Any, text: str) -> list[str]:
    value, _ = load_yaml(text.encode(), "s.yaml")
    return [error.message for error in validator.iter_errors(value)]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda p: p.name
)
def test_the_schema_accepts_the_examples(spec: Any, path: Path) -> None:
    assert mistakes(spec, path.read_text()) == []


@pytest.mark.parametrize(
    "text",
    [
        EXPERIMENT + "slurm: {time: 30, mem: 2000}\ninit_from: other\n",
        EXPERIMENT.replace("data: {dataset_name: digits}\n", "defaults: [{data: digits}]\n"),
        EXPERIMENT + "trainer: {max_epochs: 3}\nmodel_: 1\n".replace("model_: 1\n", ""),
        BASE,
        "kind: base\noptimizer: {lr: 0.1}\n",
        GRID,
        GRID.replace("base.yaml", "{model: {type: mlp}, data: {dataset_name: digits}}"),
        GRID
        + "linked:\n  - [{training.seed: 1, model.width: 2}]\nexclude: [{optimizer.lr: 0.1}]\n",
        GRID + "conditional: [{set: {optimizer.momentum: [0.9]}, when: {optimizer.type: sgd}}]\n",
        GRID + "sample: {model.dropout: {distribution: uniform, low: 0.0, high: 0.5, n: 3}}\n",
    ],
)
def test_the_schema_accepts_what_mtf_accepts(spec: Any, text: str) -> None:
    assert mistakes(spec, text) == []


@pytest.mark.parametrize(
    "text",
    [
        EXPERIMENT + "traning: {}\n",
        EXPERIMENT + "training: {max_epoch: 3}\n",
        EXPERIMENT + "training: {max_epochs: many}\n",
        EXPERIMENT + "checkpoint: {mode: least}\n",
        EXPERIMENT.replace("experiment_name: one\n", ""),
        EXPERIMENT.replace("data: {dataset_name: digits}\n", ""),
        "kind: experimnt\n",
        GRID + "naming: params\n",
        GRID.replace("[0.1, 0.2]", "[fast]"),
        GRID.replace("[0.1, 0.2]", "[]"),
        GRID.replace("base: base.yaml\n", ""),
    ],
)
def test_the_schema_refuses_common_mistakes(spec: Any, text: str) -> None:
    assert mistakes(spec, text)


def test_the_schema_checks_settings(settings: Any) -> None:
    assert (
        mistakes(settings, "executor: local\nretry: {on: [preempted]}\nslurm: {time: 30}\n") == []
    )
    assert mistakes(settings, "executer: local\n")
    assert mistakes(settings, "retry: {on: [boredom]}\n")


@pytest.mark.parametrize("schema", [spec_schema(), settings_schema()], ids=["spec", "settings"])
def test_every_key_has_a_description(schema: dict[str, Any]) -> None:
    silent = [
        f"{name}.{key}"
        for name, definition in schema["$defs"].items()
        for key, value in definition.get("properties", {}).items()
        if not value.get("description") and key != "kind" and "$ref" not in value
    ]
    assert silent == []
