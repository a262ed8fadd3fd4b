"""Generators of a user's own objects are found wherever they are, and seeded."""

from __future__ import annotations

import functools
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset

from mtf.trainer.data.own_generators import OwnGenerators, note_on_generators
from mtf.trainer.data.user_parts import epoch_setters, parts_of

if TYPE_CHECKING:
    import pytest

OF_MODULE = np.random.default_rng()


class Transform:
    of_class = random.Random()

    def __init__(self) -> None:
        self.legacy = np.random.RandomState()
        self.torchs = torch.Generator()

    def draw(self) -> list[float]:
        drawn = [OF_MODULE.random(), self.of_class.gauss(), self.legacy.normal()]
        return [*drawn, float(torch.rand(1, generator=self.torchs))]


class Noisy(Dataset[Any]):
    def __init__(self) -> None:
        self.transforms = [Transform()]
        self.philox = np.random.Generator(np.random.Philox())
        self.samples = list(range(2_000))

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> list[float]:
        return [*self.transforms[0].draw(), self.philox.random()]


def collate_with(generator: random.Random) -> Any:
    return lambda samples: [samples, generator.random()]


def test_a_variable_that_has_no_value_yet_is_no_part() -> None:
    def early() -> Any:
        return late

    assert [path for path, _ in parts_of(early)] == [""]
    late = 1


def test_every_generator_of_a_data_set_is_seeded() -> None:
    data: Any = Subset(ConcatDataset([Noisy(), Noisy()]), [0, 3])
    collates = (collate_with(random.Random()), functools.partial(Transform.draw, Transform()))
    own = OwnGenerators(data, collates, reported=True)

    def drawn() -> Any:
        return [data[0], data[1], collates[0](1), collates[1]()]

    own.seed(1, 2)
    first = drawn()
    assert drawn() != first
    own.seed(1, 2)
    assert drawn() == first
    own.seed(1, 3)
    assert drawn() != first
    assert len({*first[0], *first[1]}) == len([*first[0], *first[1]]), "each has its own seed"


def test_the_generators_that_all_code_shares_are_left_alone() -> None:
    class Shared(Dataset[Any]):
        def __init__(self) -> None:
            self.rngs = (vars(np.random.mtrand)["_rand"], torch.default_generator, random)

    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    OwnGenerators(Shared(), reported=True).seed(2)
    drawn = [float(torch.rand(1)), np.random.rand(), random.random()]
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    assert drawn == [float(torch.rand(1)), np.random.rand(), random.random()]


def test_a_generator_that_cannot_be_seeded_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    class Unseeded(Dataset[Any]):
        def __init__(self) -> None:
            self.rng = random.SystemRandom()

    OwnGenerators(Subset(Unseeded(), [0]), reported=True)
    assert "Subset.dataset.rng: a SystemRandom cannot be seeded" in capsys.readouterr().err


class Told(Dataset[Any]):
    def __init__(self) -> None:
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)


class Wrapped(Dataset[Any]):
    def __init__(self, inner: Any) -> None:
        self.source = inner


def test_set_epoch_reaches_wrapped_data_sets_once() -> None:
    one, other, stranger = Told(), Told(), Told()
    data: Any = ConcatDataset.__new__(ConcatDataset)
    data.datasets = [Subset(Wrapped(one), [0]), other, one]
    for set_epoch in epoch_setters(data):
        set_epoch(3)
    assert (one.epochs, other.epochs, stranger.epochs) == ([3], [3], [])


class Noise(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rng = np.random.default_rng()


class SavedNoise(Noise):
    def get_extra_state(self) -> Any:
        return {"rng": self.rng}

    def set_extra_state(self, state: Any) -> None:
        self.rng = state["rng"]


def test_a_generator_of_the_model_is_named_unless_it_is_saved() -> None:
    note = note_on_generators(torch.nn.Sequential(Noise(), SavedNoise()))
    assert note is not None
    assert note.startswith("Noise.rng: no checkpoint holds a random generator of the model's own")
    assert note_on_generators(torch.nn.Sequential(torch.nn.Dropout(), SavedNoise())) is None
