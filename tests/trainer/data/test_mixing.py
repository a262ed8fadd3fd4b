"""Mixed training sets: which batches of which set an epoch holds, and that it can start anywhere."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mtf.errors import MtfError
from mtf.trainer.data.batches import Batches, TensorBatches
from mtf.trainer.data.mixing import MixingMode, mixed
from mtf.trainer.data.order import SampleOrder

SIZES = st.lists(st.integers(1, 20), min_size=1, max_size=4)
EPOCHS = st.integers(0, 50)
BATCH_SIZE = 2
MODES: tuple[MixingMode, ...] = ("in_turn", "cycle")


def sets_of(sizes: list[int], seed: int = 0) -> dict[str, Batches]:
    return {
        f"set{n}": TensorBatches(
            [torch.arange(size)], SampleOrder(size, BATCH_SIZE, seed, shuffled=True)
        )
        for n, size in enumerate(sizes)
    }


def epoch_of(batches: Batches, epoch: int, start: int = 0) -> list[dict[str, list[int]]]:
    found = batches.batches(epoch, start)
    return [{name: tensors[0].tolist() for name, tensors in b.items()} for b in found]


def samples_of(batches: list[dict[str, list[int]]], name: str) -> list[int]:
    return list(chain(*(batch[name] for batch in batches if name in batch)))


@given(SIZES, EPOCHS)
def test_in_turn_uses_every_sample_of_every_set_once(sizes: list[int], epoch: int) -> None:
    batches = epoch_of(mixed(sets_of(sizes), "in_turn"), epoch)
    assert all(len(batch) == 1 for batch in batches)
    for name, size in zip(sets_of(sizes), sizes, strict=True):
        assert sorted(samples_of(batches, name)) == list(range(size))


@given(SIZES, EPOCHS)
def test_cycle_uses_every_sample_and_repeats_the_shorter_sets(sizes: list[int], epoch: int) -> None:
    sets = sets_of(sizes)
    batches = epoch_of(mixed(sets, "cycle"), epoch)
    assert len(batches) == max(map(len, sets.values()))
    for (name, part), size in zip(sets.items(), sizes, strict=True):
        used = Counter(samples_of(batches, name))
        assert set(used) == set(range(size))
        passes = -(-len(batches) // len(part))
        assert all(passes - 1 <= times <= passes for times in used.values())


@given(SIZES, EPOCHS)
def test_shortest_ends_with_the_shortest_set_and_repeats_no_sample(
    sizes: list[int], epoch: int
) -> None:
    sets = sets_of(sizes)
    batches = epoch_of(mixed(sets, "shortest"), epoch)
    assert len(batches) == min(map(len, sets.values()))
    for name in sets:
        used = samples_of(batches, name)
        assert len(used) == len(set(used))


@given(SIZES, EPOCHS, st.sampled_from([None, "cycle", "shortest", "in_turn"]), st.data())
def test_a_mixed_epoch_opened_late_continues_the_same_batches(
    sizes: list[int], epoch: int, mode: Any, data: st.DataObject
) -> None:
    both = mixed(sets_of(sizes), mode)
    whole = epoch_of(both, epoch)
    assert len(whole) == len(both)
    start = data.draw(st.integers(0, len(both)))
    assert epoch_of(mixed(sets_of(sizes), mode), epoch, start) == whole[start:]


def test_cycle_is_the_default() -> None:
    assert epoch_of(mixed(sets_of([9, 3]), None), 4) == epoch_of(mixed(sets_of([9, 3]), "cycle"), 4)


@given(st.integers(0, 40))
def test_each_pass_over_a_shorter_set_has_an_order_of_its_own(epoch: int) -> None:
    batches = epoch_of(mixed(sets_of([40, 16]), "cycle"), epoch)
    used = samples_of(batches, "set1")
    assert sorted(used[:16]) == sorted(used[16:32]) == list(range(16))
    assert used[:16] != used[16:32]
    assert samples_of(epoch_of(mixed(sets_of([40, 16]), "cycle"), epoch + 1), "set1") != used


def test_settings_that_a_resume_may_not_change_are_those_of_all_sets() -> None:
    sets: dict[str, Any] = sets_of([4, 4])
    sets["set1"].fixed = {"data.num_workers": 2}
    in_turn, cycle = (vars(mixed(sets, mode))["fixed"] for mode in MODES)
    assert in_turn == cycle == {"data.num_workers": 2}


def test_no_training_set_is_an_error() -> None:
    with pytest.raises(MtfError, match="dict of training sets is empty"):
        mixed({}, None)
