"""Seeds for a block of code."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtf.trainer.compute import generator_memory, rng
from mtf.trainer.compute.rng import TemporarilySeeded, seed_all

if TYPE_CHECKING:
    import pytest


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_a_seeded_block_draws_by_its_seed_and_leaves_no_trace() -> None:
    seed_all(1)
    without = [draws(), draws()]
    seed_all(1)
    first = draws()
    with TemporarilySeeded(7):
        one = draws()
    with TemporarilySeeded(7):
        again = draws()
    with TemporarilySeeded(8):
        other = draws()
    assert [first, draws()] == without
    assert one == again
    assert all(a != b for a, b in zip(one, other, strict=True))


def draw_all_kinds(python: int, numpy: int, normals: int) -> list[float]:
    """Draw that many numbers of each kind; normal ones come in pairs, of which one is kept."""
    return [
        *(random.random() for _ in range(python)),
        *(random.gauss(0, 1) for _ in range(normals)),
        *(float(np.random.random()) for _ in range(numpy)),
        *(float(np.random.normal()) for _ in range(normals)),
        float(torch.rand(())),
    ]


numbers = st.integers(0, 3)
draw = st.tuples(numbers, numbers, numbers)


@given(blocks=st.lists(st.tuples(draw, draw, st.booleans()), max_size=8))
def test_whatever_a_block_and_the_code_around_it_draw_the_others_numbers_stay(
    blocks: list[tuple[tuple[int, int, int], tuple[int, int, int], bool]],
) -> None:
    seed_all(1)
    without = [draw_all_kinds(*outside) for outside, _, _ in blocks]
    alone = []
    for number, (_, inside, _) in enumerate(blocks):
        seed_all(number)
        alone.append(draw_all_kinds(*inside))
    seed_all(1)
    for number, (outside, inside, nested) in enumerate(blocks):
        assert draw_all_kinds(*outside) == without[number]
        with TemporarilySeeded(number):
            if nested:
                with TemporarilySeeded(100):
                    draw_all_kinds(*outside)
            assert draw_all_kinds(*inside) == alone[number]


def test_a_block_leaves_no_trace_in_another_bit_generator_of_numpy() -> None:
    module: Any = np.random  # its types leave these two functions out
    default = module.get_bit_generator()
    try:
        for other in (np.random.MT19937(3), np.random.MT19937(4)):
            module.set_bit_generator(other)
            seed_all(1)
            without = [draw_all_kinds(1, 1, 1), draw_all_kinds(1, 1, 1)]
            seed_all(1)
            assert draw_all_kinds(1, 1, 1) == without[0]
            with TemporarilySeeded(7):
                draw_all_kinds(1, 2, 1)
            assert draw_all_kinds(1, 1, 1) == without[1]
    finally:
        module.set_bit_generator(default)


def test_generators_that_are_not_found_in_memory_are_kept_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generator_memory, "_found", lambda *_: None)
    monkeypatch.setattr(rng, "_PYTHON", generator_memory.PythonGenerator())
    monkeypatch.setattr(rng, "_NUMPY", generator_memory.NumpyGenerator())
    test_a_seeded_block_draws_by_its_seed_and_leaves_no_trace()


def test_the_generators_are_found_in_memory() -> None:
    kept = generator_memory.PythonGenerator().state(), generator_memory.NumpyGenerator().state()
    assert all(isinstance(memory, bytes) for memory, _ in kept)
