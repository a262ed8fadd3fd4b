"""Check that weights fit a module and that a state fits an optimizer; describe what does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtf.errors import MtfError
from mtf.trainer.compute.structure import shape_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    import torch

    from mtf.trainer.compute.structure import Names, Shape, Structure

_SHOWN = 10


@dataclass(frozen=True)
class Fit:
    """The comparison of a checkpoint's weights with a module's, by name."""

    fitting: tuple[str, ...]
    other_shape: tuple[str, ...]  # each "name: shape in the checkpoint, shape in the model"
    missing: tuple[str, ...]  # in the module, and not in the checkpoint
    unexpected: tuple[str, ...]  # in the checkpoint, and not in the module

    @property
    def is_whole(self) -> bool:
        """Return True if all weights fit."""
        return not (self.other_shape or self.missing or self.unexpected)

    def __str__(self) -> str:
        parts = (
            ("other shapes", self.other_shape),
            ("not in the checkpoint", self.missing),
            ("not in the model", self.unexpected),
        )
        return "; ".join(f"{what}: {_listed(names)}" for what, names in parts if names)


def fit_of(module: torch.nn.Module, weights: Mapping[str, Any]) -> Fit:
    """Compare a checkpoint's weights with a module's parameters and buffers.

    A shape that the module has not chosen yet fits any other.
    """
    own = {name: shape_of(value) for name, value in module.state_dict().items()}
    common = {name for name in own if name in weights}
    other = {n for n in common if None not in _shapes(own, weights, n)}
    other = {n for n in other if own[n] != shape_of(weights[n])}
    return _fit(own, weights, own.keys() - common, other)


def fit_after_rebuild(built: Structure, content: Mapping[str, Any]) -> Fit:
    """Compare the state of a training with its structure, but for what a resume makes fit.

    That is buffers, and the modules that adapt themselves when a state is loaded.
    """
    saved: Mapping[str, Any] = content["model"]
    now, then, own = content["requires_grad"], built.requires_grad, built.shapes
    names = [name for name in {**own, **saved} if not built.adapts(name)]
    missing = {n for n in names if n not in saved and n in then}
    new = {n for n in names if n not in own}
    unexpected = {n for n in new if n in now or n.rpartition(".")[0] not in built.modules}
    others = {
        n
        for n in names
        if n in own and n in saved
        if (n in now) != (n in then)
        or (n in now and None not in _shapes(own, saved, n) and own[n] != shape_of(saved[n]))
    }
    return _fit(own, saved, missing, others, unexpected)


def _shapes(
    own: Mapping[str, Shape | None], weights: Mapping[str, Any], name: str
) -> tuple[Shape | None, Shape | None]:
    return own[name], shape_of(weights[name])


def _fit(
    own: Mapping[str, Shape | None],
    weights: Mapping[str, Any],
    missing: Collection[str],
    other: Collection[str],
    unexpected: Collection[str] | None = None,
) -> Fit:
    if unexpected is None:
        unexpected = weights.keys() - own.keys()
    return Fit(
        fitting=tuple(name for name in own if name in weights and name not in other),
        other_shape=tuple(
            f"{n}: {_text(shape_of(weights[n]))} in the checkpoint, {_text(own[n])} in the model"
            for n in own
            if n in other
        ),
        missing=tuple(name for name in own if name in missing),
        unexpected=tuple(name for name in weights if name in unexpected),
    )


def load_weights(module: torch.nn.Module, weights: Mapping[str, Any]) -> None:
    """Load a module's state. Torch decides if it fits: some modules adapt themselves.

    Raises:
        MtfError: it does not.
    """
    try:
        module.load_state_dict(weights)
    except RuntimeError as e:
        fit = fit_of(module, weights)
        what = " ".join(str(e).split()) if fit.is_whole else str(fit)
        raise MtfError(f"the checkpoint is of another model: {what}. {BEFORE_LOAD}") from e


BEFORE_LOAD = (
    "If the training has changed its structure, build it so in a callback's"
    " before_load(training, saved)"
)


def misfit_of(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> str | None:
    """Return None if an optimizer can load a state, else the reason, as the end of a sentence."""
    kind, defaults = type(optimizer).__name__, optimizer.defaults.keys()
    saved, present = state["param_groups"], optimizer.param_groups
    more = sorted(saved[0].keys() - present[0].keys() - _OF_SCHEDULERS)
    fewer = sorted(defaults - saved[0].keys())
    if more and fewer:  # only one of them may be due to another version of torch
        return f" than {kind}: it has {_listed(more)}, and {kind} has {_listed(fewer)}"
    sizes = [[len(group["params"]) for group in groups] for groups in (saved, present)]
    if sizes[0] != sizes[1]:
        return (
            f": its groups have {_counts(sizes[0])} parameters, and those of {kind} have"
            f" {_counts(sizes[1])}"
        )
    return None


def misplaced(present: Names, saved: Names) -> str | None:
    """Return None if parameters stand where they stood, else the reason, as a sentence's end.

    Torch gives each parameter the state of the one that stood in its place.
    """
    for index, (now, then) in enumerate(zip(present, saved, strict=True)):
        if differing := [pair for pair in zip(now, then, strict=True) if pair[0] != pair[1]]:
            name, other = differing[0]
            return f": in its group {index}, {other} stands where {name} stands here"
    return None


# keys that learning-rate schedulers add to an optimizer's groups
_OF_SCHEDULERS = {
    "params",
    "initial_lr",
    "max_lr",
    "min_lr",
    "max_momentum",
    "base_momentum",
    "swa_lr",
}


def _counts(sizes: list[int]) -> str:
    return " and ".join(map(str, sizes)) or "no"


def _text(shape: Shape | None) -> str:
    return "no shape" if shape is None else str(list(shape))


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
