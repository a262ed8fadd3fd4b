"""Builds the data and the model that a configuration names."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch.utils.data import DataLoader, IterableDataset

from mtf.core.vocabulary.spelling import did_you_mean
from mtf.errors import MtfError
from mtf.trainer.components.data_facts import facts_of
from mtf.trainer.components.other_frameworks import refuse_foreign_data, refuse_foreign_model
from mtf.trainer.components.registry import (
    UnknownKeyError,
    UnknownNameError,
    call,
    keys_of,
    load,
    plugins,
    unknown_name,
)
from mtf.trainer.data.batches import (
    LoadedBatches,
    Stream,
    TensorBatches,
    batches_from_loader,
    tensors_of,
)
from mtf.trainer.data.mixing import mixed
from mtf.trainer.data.order import SampleOrder
from mtf.trainer.runtime.console import say

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.spec.schema.sections import DataConfig, ModelConfig, TrainingConfig
    from mtf.trainer.data.batches import Batches

MODELS = {  # the same names as in ``ModelConfig.known_types``
    "mlp": "mtf.trainer.components.models:MLP",
    "transformer": "mtf.trainer.components.models:Transformer",
}
DATASETS = {
    "digits": "mtf.trainer.data.datasets:digits",
    "synthetic": "mtf.trainer.data.datasets:synthetic",
}
_ZOOS = ("timm", "torchvision")


@dataclass(frozen=True)
class Data:
    """The data a run trains and validates on, and the facts that a model is built from."""

    train: Batches
    validation: Batches | None
    facts: Mapping[str, Any]  # input_shape and num_classes, where known


def build_data(config: ExperimentConfig, *, rank: int = 0, world_size: int = 1) -> Data:
    """Return one rank's share of the data that a configuration names.

    The data set's factory is called with the section's further keys, and with ``split`` or the
    boolean ``train``, as it takes them. It returns a map-style or iterable data set with a length,
    or a DataLoader; for the training split it may also return a dict of these by name.

    Raises:
        MtfError: a name or key is unknown, or the data does not fit the configuration.
    """
    data = _section_of(config)
    factory = _dataset_factory(data.dataset_name)
    batches_of = partial(_batches, config, world_size=world_size)
    built = _dataset(factory, data, data.train_split)
    if isinstance(built, Mapping):
        _refuse_splits(built, data)
        sets = {name: batches_of(s, Stream(f"train/{name}", rank)) for name, s in built.items()}
        train = mixed(sets, config.training.combine)
        first = next(iter(built.values()))
    else:
        train, first = batches_of(built, Stream("train", rank)), built
    validation: Batches | None = None
    if data.val_split is not None:
        dataset = _dataset(factory, data, data.val_split)
        validation = batches_of(dataset, Stream("validation", rank))
    return Data(train, validation, facts_of(first))


def data_facts(config: ExperimentConfig) -> Mapping[str, Any]:
    """Return the facts that a model is built from, of the training data.

    Raises:
        MtfError: a name or key is unknown.
    """
    data = _section_of(config)
    built = _dataset(_dataset_factory(data.dataset_name), data, data.train_split)
    return facts_of(next(iter(built.values())) if isinstance(built, Mapping) else built)


def _section_of(config: ExperimentConfig) -> DataConfig:
    if config.data is None:
        raise MtfError("data is missing: no data set is named. Add data.dataset_name")
    return config.data


def _refuse_splits(built: Mapping[str, Any], data: DataConfig) -> None:
    """Refuse a dict of all splits in place of the training set.

    Raises:
        MtfError: the training would use the validation or test data.
    """
    held_out = {data.val_split, "validation", "val", "valid", "test"} - {data.train_split}
    if found := sorted(name for name in built if name in held_out):
        raise MtfError(
            f"data.dataset_name: {data.dataset_name} returned a dict with the split {found[0]} for"
            f" training: return the data set of the split that it is asked for ({data.train_split})"
        )


def _dataset_factory(name: str) -> Callable[..., Any]:
    if ":" in name or name in DATASETS:
        factory: Callable[..., Any] = load(DATASETS.get(name, name), key="data.dataset_name")
        refuse_foreign_data(factory, f"data.dataset_name: {name}")
        return factory
    installed = plugins("mtf.datasets")
    if name not in installed:
        raise unknown_name("data.dataset_name", name, {*DATASETS, *installed})
    plug_in: Callable[..., Any] = installed[name].load()
    return plug_in


def _dataset(factory: Callable[..., Any], data: DataConfig, split: str) -> Any:
    """Return the data set of a split.

    Raises:
        MtfError: nothing tells the factory which split to return, though both are needed.
    """
    keys = keys_of(factory, key="data.dataset_name")
    selecting: dict[str, Any] = {}
    if keys.takes_switch("train"):  # as the data sets of torchvision have it
        selecting["train"] = split == data.train_split
    if "split" in keys.parameters or (keys.takes_any and not selecting):
        selecting["split"] = split
    needs_both = data.val_split not in (None, data.train_split)
    if needs_both and not selecting.keys() - data.further.keys():
        _refuse_one_split(keys.name, data, selecting)
    try:
        return call(factory, key="data", asked=data.further, offered={}, parts=selecting)
    except UnknownKeyError as e:
        if e.key != "split" or "split" in (*keys.parameters, *data.further):
            raise
        if needs_both:
            _refuse_one_split(keys.name, data, {})
    return call(factory, key="data", asked=data.further, offered={})


def _refuse_one_split(name: str, data: DataConfig, selecting: Mapping[str, Any]) -> NoReturn:
    fixed = ", ".join(sorted(selecting))
    raise MtfError(
        f"data.{fixed}: the section sets it for training and validation alike, so the run would be"
        f" validated on its training data. Remove it (mtf sets it), or set data.val_split: null"
        if fixed
        else f"data.val_split: {name} takes neither split nor train, so the run would be validated"
        " on its training data. Add a parameter split, which gets"
        f" {data.train_split!r} or {data.val_split!r}, or set data.val_split: null"
    )


def _batches(config: ExperimentConfig, dataset: Any, stream: Stream, *, world_size: int) -> Batches:
    data, training = _section_of(config), config.training
    refuse_foreign_data(dataset, f"data.dataset_name: {data.dataset_name}")
    if isinstance(dataset, DataLoader):
        return batches_from_loader(
            dataset, seed=training.seed, stream=stream, world_size=world_size
        )
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        loader: DataLoader[Any] = DataLoader(
            dataset, batch_size=training.batch_size, **_options(data)
        )
        return batches_from_loader(loader, seed=training.seed, stream=stream, world_size=world_size)
    _require_length(dataset, data.dataset_name)
    order = _order(dataset, training, stream, world_size)
    if (tensors := tensors_of(dataset)) is not None:
        return TensorBatches(tensors, order)
    options = _options(data)
    if hasattr(dataset, "collate_fn"):
        options["collate_fn"] = dataset.collate_fn
    # training workers are kept for the next epoch; validation workers would idle until then
    options["persistent_workers"] = data.num_workers > 0 and stream.is_train
    return LoadedBatches(dataset, order, seed=training.seed, stream=stream, **options)


def _require_length(dataset: Any, name: str) -> None:
    if not hasattr(dataset, "__len__"):
        raise MtfError(
            f"data.dataset_name: {name} has no length: give it a __len__ that returns the number of"
            " samples in an epoch"
        )


def _order(dataset: Any, training: TrainingConfig, stream: Stream, world_size: int) -> SampleOrder:
    size = len(dataset)
    is_train = stream.is_train
    if size < world_size:
        raise MtfError(f"the {stream.name} data has {size} samples, too few for {world_size} ranks")
    share = -(-size // world_size)
    if is_train and share < training.batch_size:
        available = f"{size} samples of the data set"
        if world_size > 1:
            available = f"{share} samples that each of {world_size} ranks gets of {size}"
        raise MtfError(f"training.batch_size: {training.batch_size} is more than the {available}")
    return SampleOrder(
        size,
        training.batch_size,
        training.seed,
        shuffled=is_train,
        rank=stream.rank,
        world_size=world_size,
        source=dataset,
    )


def _options(data: DataConfig) -> dict[str, Any]:
    pin = data.pin_memory and torch.cuda.is_available()
    return {"num_workers": data.num_workers, "pin_memory": pin}


def build_model(config: ModelConfig, facts: Mapping[str, Any]) -> torch.nn.Module:
    """Return the model that a configuration names.

    Its ``type`` is ``mlp``, ``transformer`` or the name of a plug-in; ``package.module:Name`` in
    the pinned checkout; ``timm:name`` or ``torchvision:name``, or just the name of a model there.
    The model gets all further keys of the section, and those of ``input_shape`` and ``num_classes``
    that its signature names. Of ``hidden_size``, ``num_layers``, ``dropout`` and ``activation`` it
    gets those that it takes: the models of mtf with the section's defaults, others only if the
    section sets them.

    Raises:
        MtfError: a name or key is unknown, or a package is not installed.
    """
    prefix, colon, name = config.type.partition(":")
    if colon and prefix in _ZOOS:
        return _from_zoo(prefix, name, config, facts)
    if colon or config.type in MODELS:
        factory = load(MODELS.get(config.type, config.type), key="model.type")
    elif (point := plugins("mtf.models").get(config.type)) is not None:
        factory = point.load()
    else:
        return _found_in_zoo(config, facts)
    refuse_foreign_model(factory, f"model.type: {config.type}")
    keys = keys_of(factory, key="model.type")
    sizes = {name: getattr(config, name) for name in sorted(config.defaulted - config.left_out)}
    taken = {k: v for k, v in sizes.items() if keys.takes_any or k in keys.parameters}
    _report_ignored(keys.name, sizes.keys() - taken.keys(), config)
    model = call(factory, key="model", asked={**taken, **config.further}, offered=facts)
    refuse_foreign_model(model, f"model.type: {config.type}")
    if not isinstance(model, torch.nn.Module):
        raise MtfError(
            f"model.type: {config.type} returned a {type(model).__name__}: return an nn.Module"
        )
    return model


def _report_ignored(name: str, ignored: Collection[str], config: ModelConfig) -> None:
    for key in sorted(ignored):
        say(f"model.{key}: {getattr(config, key)} is ignored: {name} takes no such key")


def _found_in_zoo(config: ModelConfig, facts: Mapping[str, Any]) -> torch.nn.Module:
    installed = [zoo for zoo in _ZOOS if importlib.util.find_spec(zoo)]
    for zoo in installed:
        if config.type in _zoo_names(zoo):
            return _from_zoo(zoo, config.type, config, facts)
    error = unknown_name("model.type", config.type, {*MODELS, *plugins("mtf.models")})
    missing = " or ".join(f"pip install {zoo}" for zoo in _ZOOS if zoo not in installed)
    hint = f" (for models of timm or torchvision: {missing})" if missing else ""
    raise UnknownNameError(f"{error}{hint}")


def _from_zoo(
    zoo: str, name: str, config: ModelConfig, facts: Mapping[str, Any]
) -> torch.nn.Module:
    if importlib.util.find_spec(zoo) is None:
        raise UnknownNameError(
            f"model.type: {config.type} needs {zoo}, which is not installed here: pip install {zoo}"
        )
    if name not in (known := _zoo_names(zoo)):
        message = f"model.type: {zoo} has no model {name!r}. {did_you_mean(name, known)}"
        raise UnknownNameError(message.rstrip())
    asked = dict(config.further)
    if "num_classes" in facts:
        asked.setdefault("num_classes", facts["num_classes"])
    if zoo == "timm" and len(facts.get("input_shape", ())) == 3:
        asked.setdefault("in_chans", facts["input_shape"][0])
    _report_ignored(name, config.defaulted - config.left_out, config)
    build = _zoo(zoo).create_model if zoo == "timm" else _zoo(zoo).get_model
    model: torch.nn.Module = build(name, **asked)
    return model


def _zoo_names(zoo: str) -> list[str]:
    return list(_zoo(zoo).list_models())


def _zoo(name: str) -> Any:
    return importlib.import_module("timm" if name == "timm" else "torchvision.models")
