"""How the keys of a section reach what it names: the rules of the trainer, for signatures.

`mtf/trainer/components` builds by the same rules with the imported objects; a test holds the two
together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mtf.core.vocabulary.spelling import nearest
from mtf.spec.named_code.call_signature import fits
from mtf.spec.named_code.known_signatures import built_in_splits, offered_by_trainer
from mtf.spec.schema.error_messages import shown
from mtf.spec.schema.sections import DataConfig, ModelConfig, OptimizerConfig, SchedulerConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from mtf.spec.named_code.call_signature import Signature

Severity = Literal["error", "warning"]
FACTS = frozenset({"input_shape", "num_classes"})  # what the data may tell the model
INTERVALS = ("step", "epoch")
_DATA_KEYS = frozenset(DataConfig.model_fields) - {"dataset_name"}
SCHEDULER_KEYS = frozenset({"interval", "monitor"})  # that mtf takes from the section itself
_FEW = 24  # keys that a message lists, and keys that messages list them for
_LONGEST = 100  # characters of a key that a message lists


class Finding(NamedTuple):
    """A mistake in a section, at one of its keys or at a key's value."""

    loc: tuple[str, ...]  # within the spec: ("optimizer", "lrr")
    message: str
    at_key: bool = False
    severity: Severity = "error"
    is_lack: bool = False  # it goes away if a key is added, as a grid may do to its base


def model_findings(
    raw: Mapping[str, Any], known: Signature, *, is_built_in: bool
) -> Iterator[Finding]:
    """Yield the mistakes in the keys of a model."""
    defaulted = ModelConfig.defaulted
    sizes = defaulted if is_built_in else defaulted & raw.keys()
    further = raw.keys() - ModelConfig.model_fields.keys()
    yield from _refused("model", further, known, FACTS)
    for key in sorted(sizes - known.parameters.keys() if not known.takes_any else ()):
        message = f"model.{key}: {shown(raw[key])} is ignored: {known.name} takes no such key"
        yield Finding(("model", key), message, at_key=True, severity="warning")
    yield from _missing(("model", "type"), known, {*further, *sizes, *FACTS})
    yield from wrong_types(("model",), {k: raw[k] for k in further}, known)


def data_findings(
    raw: Mapping[str, Any], known: Signature, *, is_built_in: bool
) -> Iterator[Finding]:
    """Yield the mistakes in the keys of a data set."""
    further = raw.keys() - DataConfig.model_fields.keys()
    switch = known.parameters["train"].is_switch if "train" in known.parameters else False
    selecting = {"train"} if switch is not False else set()
    if "split" in known.parameters or (known.takes_any and not selecting):
        selecting.add("split")
    train, held_out = raw.get("train_split", "train"), raw.get("val_split", "validation")
    if held_out not in (None, train) and not selecting - further:
        yield _one_split(known.name, train, held_out, selecting)
    if is_built_in:
        yield from _wrong_splits(raw, known.name)
    yield from _refused("data", further, known, selecting, _DATA_KEYS)
    yield from _missing(("data", "dataset_name"), known, {*further, *selecting})
    yield from wrong_types(("data",), {k: raw[k] for k in further}, known)


def _one_split(name: str, train: object, held_out: object, fixed: set[str]) -> Finding:
    if fixed:
        keys = ", ".join(sorted(fixed))
        message = (
            f"data.{keys}: the section sets it for training and validation alike, so the run would"
            " be validated on its training data. Remove it (mtf sets it), or set data.val_split:"
            " null"
        )
        return Finding(("data", min(fixed)), message, at_key=True)
    message = (
        f"data.val_split: {name} takes neither split nor train, so the run would be validated on"
        f" its training data. Add a parameter split, which gets {train!r} or {held_out!r}, or set"
        " data.val_split: null"
    )
    return Finding(("data", "val_split"), message, is_lack=True)


def _wrong_splits(raw: Mapping[str, Any], name: str) -> Iterator[Finding]:
    splits = built_in_splits()
    for key in ("train_split", "val_split"):
        if isinstance(raw.get(key), str) and raw[key] not in splits:
            message = f"data.{key}: {name} has no split {raw[key]!r}. Use {' or '.join(splits)}"
            yield Finding(("data", key), message)


def optimizer_findings(
    raw: Mapping[str, Any], known: Signature, *, is_built_in: bool
) -> Iterator[Finding]:
    """Yield the mistakes in the keys of an optimizer."""
    defaulted = OptimizerConfig.defaulted
    offered = defaulted if is_built_in else defaulted & raw.keys()
    further = raw.keys() - OptimizerConfig.model_fields.keys()
    yield from _refused("optimizer", further, known, ("params",))
    yield from _missing(("optimizer", "type"), known, {*further, *offered, "params"})
    yield from wrong_types(("optimizer",), {k: raw[k] for k in further}, known)


def scheduler_findings(
    raw: Mapping[str, Any], known: Signature, *, is_short: bool
) -> Iterator[Finding]:
    """Yield the mistakes in the keys of a learning-rate scheduler."""
    further = raw.keys() - SchedulerConfig.model_fields.keys() - SCHEDULER_KEYS
    offered = set(offered_by_trainer(known.name)) if is_short else set()
    yield from wrong_interval(raw)
    yield from _refused("scheduler", further, known, ("optimizer",), SCHEDULER_KEYS)
    yield from _missing(("scheduler", "type"), known, {*further, *offered, "optimizer", "mode"})
    values = {k: raw[k] for k in further}
    yield from wrong_types(("scheduler",), values, known, is_of_torch=is_short)


def wrong_interval(raw: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a mistake if the interval of a scheduler does not exist."""
    if "interval" in raw and raw["interval"] not in INTERVALS:
        message = f"scheduler.interval: expected step or epoch, got {shown(raw['interval'])}"
        yield Finding(("scheduler", "interval"), message)


def callback_findings(name: str, raw: Mapping[str, Any], known: Signature) -> Iterator[Finding]:
    """Yield the mistakes in the keys of a callback of the user's."""
    asked = raw.keys() - {"type"}
    yield from _refused(f"callbacks.{name}", asked, known)
    yield from _missing(("callbacks", name), known, asked)
    yield from wrong_types(("callbacks", name), {k: raw[k] for k in asked}, known)


def _refused(
    where: str,
    further: Iterable[str],
    known: Signature,
    ours: Collection[str] = (),
    own: Collection[str] = (),
) -> Iterator[Finding]:
    """Yield a mistake for each key that cannot be handed on.

    Args:
        where: the section.
        further: the keys that are handed on.
        known: what they go to.
        ours: the keys that mtf passes itself.
        own: the keys of the section itself, which may be meant.
    """
    refused = sorted(key for key in further if known.refuses(key))
    takes = sorted(known.parameters.keys() - set(ours)) if refused else []
    usable = {*takes, *own}
    for i, key in enumerate(refused):
        near = nearest(key, usable) if i < _FEW else None
        suggestion = f" Did you mean {near!r}?" if near else ""
        if near in own and near not in takes:
            message = f"unknown key {key!r} in {where}.{suggestion}"
        else:
            message = f"{where}.{key}: {known.name} takes no such key.{suggestion}"
            message += f" It takes {_listed(takes) or 'no further keys'}" if i < _FEW else ""
        yield Finding((*where.split("."), key), message.rstrip("."), at_key=True)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(name[:_LONGEST] for name in names[:_FEW]) + more


def _missing(loc: tuple[str, ...], known: Signature, given: Iterable[str]) -> Iterator[Finding]:
    if missing := sorted(known.required - set(given)):
        section = ".".join(loc[:2]) if loc[0] == "callbacks" else loc[0]
        message = f"{section}: {known.name} needs {_listed(missing)}: add it to the section"
        yield Finding(loc, message, is_lack=True)


def wrong_types(
    where: tuple[str, ...],
    raw: Mapping[str, Any],
    known: Signature,
    *,
    is_of_torch: bool = False,
) -> Iterator[Finding]:
    """Yield a warning for each value that is certainly not of the type of its parameter.

    A text that is none of those which a class of torch allows is an error.
    """
    for key, value in raw.items():
        parameter = known.parameters.get(key)
        types = parameter.types if parameter else frozenset()
        if types and not fits(value, types):
            expected = " or ".join(sorted(types)).replace("'", "")
            message = (
                f"{'.'.join((*where, key))}: {known.name} expects {expected}, got {shown(value)}"
            )
            is_refused = is_of_torch and isinstance(value, str) and "'" in min(types)
            severity: Severity = "error" if is_refused else "warning"
            yield Finding((*where, key), message, severity=severity)
