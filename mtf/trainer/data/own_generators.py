"""Random generators that a user's data set or sampler has of its own: seeded like all others."""

from __future__ import annotations

import copy
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mtf.trainer.compute.rng import seed_at
from mtf.trainer.data.user_parts import GENERATORS, generators_of
from mtf.trainer.runtime.console import say

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn


class OwnGenerators:
    """The generators of some user's objects.

    Without seeds from mtf they would go on after a resume from another state than before the
    interruption, and data workers would draw other numbers than the training's own process.

    Args:
        roots: the objects.
        reported: whether to report those that cannot be seeded.
    """

    def __init__(self, *roots: Any, reported: bool) -> None:
        self._by_path = generators_of(roots)
        hopeless = [path for path, each in self._by_path.items() if not _is_seedable(each)]
        for path in hopeless:
            kind = type(self._by_path.pop(path)).__name__
            root, _, inner = path.partition(".")
            name = f"{type(roots[int(root)]).__name__}.{inner}" if root.isdigit() else path
            if reported:
                say(
                    f"{name}: a {kind} cannot be seeded, so a resume makes other data than an"
                    " uninterrupted training. Use random.Random or numpy.random.default_rng"
                )

    def __bool__(self) -> bool:
        return bool(self._by_path)

    def seed(self, *place: object, plain: Iterable[str] = ()) -> None:
        """Seed all generators from a place in the training.

        Args:
            place: see ``seed_at``.
            plain: paths of generators whose seed does not depend on their path.
        """
        for path, generator in self._by_path.items():
            seed_generator(generator, seed_at(*place) if path in plain else seed_at(*place, path))


def seed_generator(generator: Any, seed: int) -> None:
    """Seed a generator of python, numpy or torch."""
    if isinstance(generator, torch.Generator):
        generator.manual_seed(seed)
    elif isinstance(generator, random.Random):
        generator.seed(seed)
    elif isinstance(generator, np.random.RandomState):
        state = np.random.MT19937(seed).state
        generator.set_state({**state, "has_gauss": 0, "gauss": 0.0})
    else:
        bits: Any = getattr(generator, "bit_generator", generator)
        bits.state = type(bits)(seed).state


def note_on_generators(module: nn.Module) -> str | None:
    """Return a sentence about generators in a model's attributes, None if there are none.

    mtf cannot seed them, since nothing says when they are drawn from, and no checkpoint holds them
    unless ``get_extra_state`` returns them.
    """
    found = [
        f"{type(part).__name__}.{name}"
        for part in module.modules()
        if type(part).get_extra_state is torch.nn.Module.get_extra_state
        for name, value in vars(part).items()
        if isinstance(value, GENERATORS)
    ]
    if not found:
        return None
    return (
        f"{', '.join(found)}: no checkpoint holds a random generator of the model's own, so a"
        " resume draws other numbers than an uninterrupted training. Draw from torch, numpy or"
        " random directly, or let get_extra_state return it"
    )


def _is_seedable(generator: Any) -> bool:
    if isinstance(generator, torch.Generator | random.Random):
        return not isinstance(generator, random.SystemRandom)
    try:
        seed_generator(copy.deepcopy(generator), 0)
    except (TypeError, ValueError, AttributeError, RuntimeError, NotImplementedError):
        return False
    return True
