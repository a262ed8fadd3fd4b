"""Finds metrics that a spec watches and its training does not have.

The metrics of mtf's own steps are all known. A model with steps of its own may log any others: only
a name that resembles one of mtf's, and that the model's source does not contain, is doubted.
Callbacks of the user's may add metrics, so nothing is said of a spec that has some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.spelling import nearest
from mtf.spec.named_code.known_signatures import of_short_name
from mtf.spec.named_code.section_rules import Finding, Severity
from mtf.spec.schema.sections import CallbacksConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WATCHING = ("scheduler", "callbacks", "checkpoint")  # the sections that may name a metric
DECIDING = ("model", "data")  # those that decide which metrics there are
_PLACES = (
    ("scheduler", "monitor"),
    ("callbacks", "early_stopping", "monitor"),
    ("checkpoint", "monitor"),
)
_PLATEAU = "ReduceLROnPlateau"
_TRAINING, _VALIDATION = ("train_loss",), ("val_loss", "val_accuracy")  # of mtf's own steps
_NEAR = 0.85  # how like a known name one must be that is doubted
Sections = Mapping[str, Any]


def watched(sections: Sections) -> dict[tuple[str, ...], str]:
    """Return the metrics that sections name, by the places of the names."""
    found = {place: _value(sections, place) for place in _PLACES}
    return {place: name for place, name in found.items() if isinstance(name, str)}


def metric_findings(
    sections: Sections, has_in_source: Callable[[str], bool | None] | None
) -> Iterator[Finding]:
    """Yield the mistakes in the metrics that sections watch.

    Args:
        sections: as they are written, those of ``WATCHING`` and ``DECIDING``.
        has_in_source: returns False if a word is not in the source of the model, None if that is
            not known. The argument is None for models that have no steps of their own.
    """
    callbacks = sections.get("callbacks")
    if isinstance(callbacks, Mapping) and callbacks.keys() - CallbacksConfig.model_fields.keys():
        return
    is_validated = _value(sections, ("data", "val_split"), "validation") is not None
    known = (*_TRAINING, *(_VALIDATION if is_validated else ()))
    for place, name in watched(sections).items():
        if place[0] == "scheduler" and (other := _without_metric(sections)):
            message = (
                f"scheduler.monitor is ignored: {other} watches no metric. Remove it, or write"
                " scheduler.type: plateau"
            )
            yield Finding(place, message, at_key=True, severity="warning")
        elif name not in known:
            yield from _unknown(place, name, known, has_in_source)


def _value(sections: Sections, place: tuple[str, ...], default: Any = None) -> Any:
    value: Any = sections
    for key in place:
        value = value.get(key, default) if isinstance(value, Mapping) else default
    return value


def _without_metric(sections: Sections) -> str | None:
    """Return the scheduler of torch that sections name if it watches no metric."""
    target = _value(sections, ("scheduler", "type"))
    known = of_short_name("schedulers", target.lower()) if isinstance(target, str) else None
    return known.name if known and known.name != _PLATEAU else None


def _unknown(
    place: tuple[str, ...],
    name: str,
    known: tuple[str, ...],
    has_in_source: Callable[[str], bool | None] | None,
) -> Iterator[Finding]:
    key = ".".join(place)
    is_own = has_in_source is not None
    severity: Severity = "warning" if is_own else "error"
    if name in _VALIDATION:
        message = f"{key}: no metric {name!r}: data.val_split is null, so nothing is validated"
        yield Finding(place, message, severity=severity)
        return
    near = nearest(name, known, cutoff=_NEAR if is_own else 0.6)
    if has_in_source is not None:
        word = name.removeprefix("val_").removeprefix("train_")
        if near is None or has_in_source(word) is not False:
            return
    message = f"{key}: no metric {name!r}."
    message += f" Did you mean {near!r}?" if near else ""
    message += "" if is_own else f" This training has {', '.join(known)}"
    yield Finding(place, message.rstrip("."), severity=severity)
