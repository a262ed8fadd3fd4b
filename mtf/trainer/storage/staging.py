"""The staging buffer: memory kept between saves, holding the copy that a background write reads.

All tensors lie in one mapping. For a GPU it is page-locked as a whole, since torch rounds its own
page-locked memory up to a power of two. The mapping is shared with forked processes: of private
pages, the kernel would keep a second copy for loader workers.
"""

from __future__ import annotations

import copy
import mmap
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parameter import is_lazy

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ALIGNED = 64  # bytes: a cache line, enough for any element


class StagingBuffer:
    """Memory for one copy of a state: a copy is valid until the next one is made."""

    def __init__(self) -> None:
        self._pages: mmap.mmap | None = None
        self._size = 0

    def copy_of(self, content: Any) -> Any:
        """Return a copy of containers of tensors and plain values.

        Tensors that share memory, such as tied weights, share it in the copy too.
        """
        plain = list({_identity(tensor): tensor for tensor in _tensors(content)}.values())
        self._make_room(sum(map(_room, plain)), is_locked=any(t.is_cuda for t in plain))
        copied: dict[Any, torch.Tensor] = {}
        at = 0
        with torch.no_grad():
            for tensor in plain:
                copied[_identity(tensor)] = self._copied(tensor, at)
                at += _room(tensor)
        if any(tensor.is_cuda for tensor in plain):
            torch.cuda.current_stream().synchronize()
        return _with_copies(content, copied)

    def reserve(self, size: int) -> None:
        """Allocate memory for a state of about this size: a first touch is slower than a copy."""
        self._make_room(size + size // 2, is_locked=False)  # room for gradients, not touched yet
        torch.frombuffer(self._pages, dtype=torch.uint8, count=size).zero_()

    def _copied(self, tensor: torch.Tensor, at: int) -> torch.Tensor:
        assert self._pages is not None
        raw = torch.frombuffer(self._pages, dtype=torch.uint8, count=tensor.nbytes, offset=at)
        # with the same strides, so that a channels-last state stays one
        like = torch.empty_like(tensor, device="meta")
        copied = raw.view(tensor.dtype).as_strided(like.size(), like.stride())
        return copied.copy_(tensor, non_blocking=tensor.is_cuda)

    def _make_room(self, size: int, *, is_locked: bool) -> None:
        if size <= self._size:
            return
        if self._pages is not None and is_locked:
            _unlock(self._pages)
        self._pages = None  # freed first: two buffers would take twice the memory
        self._pages = mmap.mmap(-1, size)
        self._size = size
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self._pages.madvise(mmap.MADV_HUGEPAGE)
        if is_locked:
            _lock(self._pages, size)


def nbytes(content: Any) -> int:
    """Return the size of a state's tensors in bytes; shared memory counts once."""
    return sum({_identity(t): t.nbytes for t in _tensors(content)}.values())


def expected_size(module: torch.nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> int:
    """Return the approximate size of a checkpoint in bytes, also before the first step."""
    return nbytes(module.state_dict()) + sum(map(_expected_size, optimizers))


def _expected_size(optimizer: torch.optim.Optimizer) -> int:
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    trained = sum(p.nbytes for p in parameters if not is_lazy(p))
    return nbytes(optimizer.state_dict()) or trained * _tensors_kept(optimizer.defaults)


def _tensors_kept(settings: dict[str, Any]) -> int:
    """Return the number of tensors that an optimizer keeps for each parameter."""
    if "betas" in settings:
        return 2
    return 1 if settings.get("momentum") else 0


def _tensors(content: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors that ``StagingBuffer`` holds: strided ones that are not empty."""
    if isinstance(content, torch.Tensor):
        if _is_plain(content):
            yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from _tensors(value)
    elif type(content) in (list, tuple):
        for value in content:
            yield from _tensors(value)


def _with_copies(content: Any, copied: dict[Any, torch.Tensor]) -> Any:
    """Return a copy of the containers that holds the copied tensors."""
    if isinstance(content, torch.Tensor):
        if _is_plain(content):
            return copied[_identity(content)]
        return content.detach().clone()
    if isinstance(content, dict):
        other = copy.copy(content)  # keeps the attributes of a state_dict: its modules' versions
        for key, value in content.items():
            other[key] = _with_copies(value, copied)
        return other
    if type(content) in (list, tuple):
        return type(content)(_with_copies(value, copied) for value in content)
    return copy.deepcopy(content)


def _is_plain(tensor: torch.Tensor) -> bool:
    is_own_kind = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    is_strided = is_own_kind and tensor.layout is torch.strided and not tensor.is_quantized
    return is_strided and tensor.device.type != "meta" and tensor.numel() > 0


def _identity(tensor: torch.Tensor) -> Any:
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.device


def _room(tensor: torch.Tensor) -> int:
    return -(-tensor.nbytes // _ALIGNED) * _ALIGNED


def _lock(pages: mmap.mmap, size: int) -> None:
    """Page-lock memory if the system allows it: copies from the GPU get several times as fast."""
    _cuda_runtime().cudaHostRegister(_address(pages), size, 0)


def _unlock(pages: mmap.mmap) -> None:
    _cuda_runtime().cudaHostUnregister(_address(pages))


def _address(pages: mmap.mmap) -> int:
    return torch.frombuffer(pages, dtype=torch.uint8).data_ptr()


def _cuda_runtime() -> Any:
    return torch.cuda.cudart()
