"""JSON Schema of specs and of ``mtf.yaml`` for editors: descriptions, defaults, enums, examples.

Nearly everything comes from the pydantic models; the description of a field is the docstring under
it. The dotted keys of grids are listed from the sections that they set.

Source: json-schema.org, draft 2020-12; yaml-language-server (``if`` by ``kind``).
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from mtf.spec.schema.dotted_keys import SECTIONS
from mtf.spec.schema.sections import ModelConfig, OptimizerConfig, Sections
from mtf.spec.schema.settings import Settings
from mtf.spec.schema.specs import ExperimentSpec, GridSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_DEFS = "#/$defs/"
_EXAMPLES: dict[tuple[str, str], list[Any]] = {
    ("ModelConfig", "type"): ["mlp", "transformer", "timm:resnet50", "lab.models:ResNet"],
    ("DataConfig", "dataset_name"): ["digits", "synthetic", "lab.data:Speech"],
    ("OptimizerConfig", "type"): ["adamw", "sgd"],
    ("OptimizerConfig", "lr"): [1e-3, 1e-4],
    ("SchedulerConfig", "type"): ["cosine", "OneCycleLR"],
    ("SLURMConfig", "time"): ["00:10:00", "1-12:00:00"],
    ("SLURMConfig", "mem"): ["2G", "800M"],
    ("SLURMConfig", "partition"): ["gpu"],
    ("SLURMConfig", "constraint"): ["a100&nvlink"],
    ("SLURMConfig", "extra"): [["--exclusive"]],
    ("CheckpointConfig", "monitor"): ["val_accuracy"],
    ("GridSpec", "base"): ["base.yaml"],
    ("GridSpec", "exclude"): [[{"optimizer.lr": 1e-2, "model.hidden_size": 64}]],
    ("Settings", "runs_root"): ["runs", "/scratch/lab/runs"],
}
# Further types that are accepted and converted to the type of the model.
_ALSO_ACCEPTED = {
    ("SLURMConfig", "time"): "integer",
    ("SLURMConfig", "mem"): "integer",
    ("ExperimentSpec", "init_from"): "string",
}
_DEFAULTS_LIST = {
    "type": "array",
    "items": {"type": ["string", "object"]},
    "description": "Hydra defaults list: the groups under conf/ that the spec is composed from.",
    "examples": [[{"model": "small"}, {"optimizer": "adam"}]],
}


def spec_schema() -> dict[str, Any]:
    """Return the schema of a spec file of any kind."""
    schema = _schema_of(ExperimentSpec, GridSpec)
    defs = schema["$defs"]
    experiment, grid = defs["ExperimentSpec"], defs["GridSpec"]
    for name, model in SECTIONS.items():
        experiment["properties"][name]["description"] = inspect.cleandoc(model.__doc__ or "")
    experiment["properties"]["kind"] = {"const": "experiment"}
    defs["BaseSpec"] = _base_schema(experiment)
    for spec in (experiment, defs["BaseSpec"]):
        _allow_composition(spec)
    del grid["properties"]["base"]["$ref"]
    grid["properties"]["base"]["anyOf"] = [{"type": "string"}, {"$ref": f"{_DEFS}BaseSpec"}]
    _list_dotted_keys(grid["properties"], defs)
    _limit_to_known_types(defs)
    return {
        "$schema": DIALECT,
        "title": "mtf spec",
        "type": "object",
        "properties": {
            "kind": {
                "enum": ["experiment", "grid", "base"],
                "description": "experiment: one run. grid: many runs. base: what grids build on.",
            }
        },
        "required": ["kind"],
        "allOf": [_when(kind, name) for kind, name in _KINDS.items()],
        "$defs": defs,
    }


_KINDS = {"experiment": "ExperimentSpec", "grid": "GridSpec", "base": "BaseSpec"}


def settings_schema() -> dict[str, Any]:
    """Return the schema of ``mtf.yaml``."""
    schema = _schema_of(Settings)
    return {
        "$schema": DIALECT,
        "title": "mtf settings",
        "$ref": f"{_DEFS}Settings",
        "$defs": schema["$defs"],
    }


def _when(kind: str, name: str) -> dict[str, Any]:
    condition = {"properties": {"kind": {"const": kind}}, "required": ["kind"]}
    return {"if": condition, "then": {"$ref": _DEFS + name}}


def _schema_of(*models: type[BaseModel]) -> dict[str, Any]:
    """Return one schema with all models in its ``$defs``, each field with its description."""
    from pydantic.json_schema import models_json_schema

    _, schema = models_json_schema([(model, "validation") for model in models])
    named = {model.__name__: model for top in models for model in _models_in(top)}
    for name, definition in schema["$defs"].items():
        if name in named:
            _describe(definition, named[name])
    return schema


def _models_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for field in model.model_fields.values():
        for inner in _classes(field.annotation):
            if inner is not model:
                yield from _models_in(inner)


def _classes(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _classes(argument)


def _describe(definition: dict[str, Any], model: type[BaseModel]) -> None:
    definition.pop("title", None)
    for name, text in _docstrings(model).items():
        if name in definition.get("properties", {}):
            definition["properties"][name]["description"] = text
    for name, value in definition.get("properties", {}).items():
        value.pop("title", None)
        if (model.__name__, name) in _EXAMPLES:
            value["examples"] = _EXAMPLES[model.__name__, name]
        if kind := _ALSO_ACCEPTED.get((model.__name__, name)):
            _also_accept(value, {"type": kind})


def _also_accept(value: dict[str, Any], other: dict[str, Any]) -> None:
    """Allow another type for a value."""
    first = {key: value.pop(key) for key in ("$ref", "type") if key in value}
    value["anyOf"] = [*value.get("anyOf", [first]), other]


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring under each field, from the source: no other command needs them."""
    found: dict[str, str] = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                continue
            if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def _base_schema(experiment: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a base: an experiment of which anything may be missing."""
    kept = {*Sections.model_fields, "kind", "experiment_name", "rerun_on", "cluster"}
    properties = {k: v for k, v in experiment["properties"].items() if k in kept}
    properties["kind"] = {"enum": ["base", "experiment"]}
    return {
        "type": "object",
        "description": "Sections for grids to build on. A grid adds what is missing.",
        "properties": properties,
        "additionalProperties": False,
    }


def _allow_composition(spec: dict[str, Any]) -> None:
    """Allow a defaults list instead of required sections, and ``trainer`` for ``training``."""
    properties = spec["properties"]
    properties["defaults"] = _DEFAULTS_LIST
    properties["trainer"] = properties["training"]
    required = [name for name in spec.pop("required", []) if name not in SECTIONS]
    sections = [name for name in ("model", "data") if name in properties]
    if required:
        spec["required"] = required
        enough = (sections, ["model", "entrypoint"], ["defaults"])
        spec["anyOf"] = [{"required": names} for names in enough]


def _limit_to_known_types(defs: dict[str, Any]) -> None:
    """List the keys with defaults for known types only where the section has such a type.

    Another type takes other keys, and nothing says which.
    """
    for model, of_known_type in (
        (ModelConfig, {"enum": sorted(ModelConfig.known_types)}),
        (OptimizerConfig, {"not": {"pattern": ":"}}),
    ):
        properties = defs[model.__name__]["properties"]
        listed = {key: properties.pop(key) for key in list(properties) if key in model.defaulted}
        defs[model.__name__] |= {
            "if": {"properties": {"type": of_known_type}},
            "then": {"properties": listed},
        }


def _list_dotted_keys(grid: dict[str, Any], defs: dict[str, Any]) -> None:
    """List the keys that a grid may set, each with its description from its section."""
    keys = dict(_dotted_keys(defs))
    arrays = {
        key: {"type": "array", "minItems": 1, "items": value, "description": value["description"]}
        for key, value in keys.items()
    }
    grid["parameters"]["properties"] = arrays
    grid["linked"]["items"]["items"] |= {"properties": keys}
    grid["exclude"]["items"] |= {"properties": keys}
    grid["sample"]["properties"] = {key: {"$ref": f"{_DEFS}Sample"} for key in keys}
    inside = defs["Conditional"]["properties"]
    inside["set"]["properties"] = arrays
    inside["when"]["properties"] = keys


def _dotted_keys(defs: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for section, model in SECTIONS.items():
        for name, value in defs[model.__name__]["properties"].items():
            yield f"{section}.{name}", {k: v for k, v in value.items() if k != "default"}
