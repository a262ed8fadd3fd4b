"""The bits of tensors of every layout: strided, sparse, quantised, nested, of MKL-DNN."""

from __future__ import annotations

import torch

_BY_ROW = (torch.sparse_csr, torch.sparse_bsr)
_BY_COLUMN = (torch.sparse_csc, torch.sparse_bsc)


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Return True if all bits are equal: NaN equals itself, and -0.0 is not 0.0."""
    if kind_of(left) != kind_of(right):
        return False
    ours, theirs = strided_parts(left), strided_parts(right)
    return len(ours) == len(theirs) and all(
        a.shape == b.shape and torch.equal(as_bytes(a), as_bytes(b))
        for a, b in zip(ours, theirs, strict=True)
    )


def strided_parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return strided tensors that hold all that a tensor holds; a strided one holds itself."""
    tensor = tensor.detach()
    if tensor.is_nested:
        return list(tensor.unbind())
    if tensor.is_quantized:
        return [tensor.int_repr(), *_scales(tensor)]
    if tensor.layout is torch.sparse_coo:  # ``values`` would refuse one with repeated indices
        return [tensor._indices(), tensor._values()]  # noqa: SLF001 -- torch's only view of them
    if tensor.layout in _BY_ROW:
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in _BY_COLUMN:
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor if tensor.layout is torch.strided else tensor.to_dense()]


def as_bytes(strided: torch.Tensor) -> torch.Tensor:
    """Return the bytes of a strided tensor, uint8 [N], in the order of its elements."""
    whole = strided.detach().resolve_conj().resolve_neg()
    return whole.contiguous().reshape(-1).view(torch.uint8)


def kind_of(tensor: torch.Tensor) -> str:
    """Return a tensor's type, shape and layout in words, such as ``float32[64, 10]``."""
    shape = "nested" if tensor.is_nested else list(tensor.shape)
    layout = "" if tensor.layout is torch.strided else f" {tensor.layout}"
    return f"{tensor.dtype}{shape}{layout}".replace("torch.", "")


def _scales(quantized: torch.Tensor) -> list[torch.Tensor]:
    if quantized.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return [
            torch.tensor([quantized.q_scale()], dtype=torch.float64),
            torch.tensor([quantized.q_zero_point()]),
        ]
    return [quantized.q_per_channel_scales(), quantized.q_per_channel_zero_points()]
