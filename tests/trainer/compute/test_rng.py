"""Seeds for a block of code."""

from __future__ import annotations

import random

import numpy as np
import torch

from mtf.trainer.compute.rng import seed_all, temporarily_seeded


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(()))


def test_a_seeded_block_draws_by_its_seed_and_leaves_no_trace() -> None:
    seed_all(1)
    without = [draws(), draws()]
    seed_all(1)
    first = draws()
    with temporarily_seeded(7):
        one = draws()
    with temporarily_seeded(7):
        again = draws()
    with temporarily_seeded(8):
        other = draws()
    assert [first, draws()] == without
    assert one == again
    assert all(a != b for a, b in zip(one, other, strict=True))
