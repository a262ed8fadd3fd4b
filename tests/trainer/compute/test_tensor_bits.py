"""Tensors of every layout are compared, digested and copied by their bits."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import pytest
import torch

from mtf.trainer.compute.digests import digest_of
from mtf.trainer.compute.tensor_bits import kind_of, same_bits
from mtf.trainer.storage.staging import StagingBuffer
from mtf.trainer.verify.batch_records import digest
from mtf.trainer.verify.compare_trainings import difference

if TYPE_CHECKING:
    from collections.abc import Callable

TWICE = torch.tensor([[0, 0], [1, 1]])  # an index twice, as in the gradient of an embedding
LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "strided": lambda dense: dense,
    "coo": lambda dense: torch.sparse_coo_tensor(TWICE, dense.diagonal(), (2, 2)),
    "csr": lambda dense: dense.to_sparse_csr(),
    "csc": lambda dense: dense.to_sparse_csc(),
    "quantised": lambda dense: torch.quantize_per_tensor(dense, 0.1, 0, torch.qint8),
    "jagged": lambda dense: torch.nested.nested_tensor(
        [dense[0], dense[1, 1:]], layout=torch.jagged
    ),
    "mkldnn": lambda dense: dense.to_mkldnn(),
    "complex": lambda dense: torch.complex(dense, dense).conj(),
    "bfloat16": lambda dense: dense.bfloat16(),
}


def made(layout: str, value: float) -> torch.Tensor:
    """Return a tensor that holds a value."""
    with warnings.catch_warnings():  # of layouts that torch may change
        warnings.simplefilter("ignore")
        return LAYOUTS[layout](torch.tensor([[value, 0.0], [0.0, 1.0]]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bits_of_a_layout_tell_equal_tensors_from_others(layout: str) -> None:
    one, same, other = made(layout, 3.0), made(layout, 3.0), made(layout, 4.0)
    assert same_bits(one, same)
    assert not same_bits(one, other)
    assert digest_of(one) == digest_of(same) != digest_of(other)
    assert digest([one]) == digest([same]) != digest([other])
    assert difference(one, same) is None
    assert difference(one, other) is not None
    assert same_bits(StagingBuffer().copy_of({"x": one})["x"], one)


def test_a_sparse_tensor_differs_from_its_dense_and_from_its_summed_up_form() -> None:
    sparse = made("coo", 3.0)
    assert kind_of(sparse) == "float32[2, 2] sparse_coo"
    assert difference(sparse, sparse.to_dense()) == (
        ": float32[2, 2] sparse_coo, then float32[2, 2]"
    )
    assert difference(sparse, sparse.coalesce()) == ": equal values in another order"
    assert difference(sparse, made("coo", 5.0)) == ": 1 of 4 values, by 2 at most"
