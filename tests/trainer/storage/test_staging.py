"""A copied state stays as it was copied, whatever the training does to its own."""

from __future__ import annotations

import io
import mmap
from collections import OrderedDict
from typing import Any

import torch

from mtf.trainer.storage.staging import StagingBuffer, expected_size, nbytes
from tests.trainer.hard_training import difference


def state() -> dict[str, Any]:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 5, 5)).sum().backward()
    optimizer.step()
    tied = torch.randn(3, 2)
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "gradients": [p.grad for p in model.parameters()] + [None],
        "others": (
            torch.randn(2, 3).t(),
            torch.zeros(0, 3),
            torch.tensor(True),
            tied,
            tied,
            torch.randn(4).bfloat16(),
            torch.randn(3, dtype=torch.complex64).conj(),
            torch.ones(3, 1).expand(3, 4),
            torch.eye(2).to_sparse(),
        ),
        "plain": {"count": 3, "words": ["a"], "rng": (1, (2, 3), None)},
    }


def read_back(content: Any) -> Any:
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def tensors(content: Any) -> list[torch.Tensor]:
    if isinstance(content, torch.Tensor):
        return [content] if content.layout is torch.strided else []
    values = content.values() if isinstance(content, dict) else content
    return [
        t for v in values if isinstance(v, dict | list | tuple | torch.Tensor) for t in tensors(v)
    ]


def test_a_copy_equals_the_state_and_does_not_change_with_it() -> None:
    content, expected = state(), read_back(state())
    copied = StagingBuffer().copy_of(content)
    with torch.no_grad():
        for tensor in tensors(content):
            if not tensor.is_conj() and 0 not in tensor.stride():
                tensor.zero_()
    content["plain"]["words"].append("b")
    content["optimizer"]["param_groups"][0]["lr"] = 7.0
    sparse = copied["others"][-1]
    assert torch.equal(sparse.to_dense(), torch.eye(2))
    for whole in (copied, expected):
        whole["others"] = whole["others"][:-1]
    assert difference(read_back(copied), expected) is None
    assert copied["model"]._metadata == content["model"]._metadata
    assert isinstance(copied["model"], OrderedDict)


def test_strides_and_sharing_are_kept() -> None:
    copied = StagingBuffer().copy_of(state())
    assert copied["model"]["0.weight"].is_contiguous(memory_format=torch.channels_last)
    assert copied["others"][0].stride() == (1, 3)
    assert copied["others"][3] is copied["others"][4]


def test_memory_is_kept_between_saves_and_replaced_for_a_larger_state() -> None:
    buffer = StagingBuffer()
    first = buffer.copy_of([torch.zeros(1000)])[0].data_ptr()
    again = buffer.copy_of([torch.ones(500), torch.ones(400)])
    assert again[0].data_ptr() == first
    assert buffer.copy_of([torch.arange(5000)])[0].tolist() == list(range(5000))
    assert again[1].tolist() == [1.0] * 400  # the old pages live as long as who reads them


def test_a_copy_takes_the_size_of_the_state_and_no_more() -> None:
    buffer = StagingBuffer()
    content = [torch.zeros(mmap.PAGESIZE) for _ in range(4)]
    copied = buffer.copy_of(content)
    spans = [(t.data_ptr(), t.data_ptr() + t.nbytes) for t in copied]
    assert max(end for _, end in spans) - min(start for start, _ in spans) == nbytes(content)


def test_the_size_is_known_before_the_first_step() -> None:
    model = torch.nn.Linear(100, 100)
    for optimizer in (
        torch.optim.AdamW(model.parameters()),
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        torch.optim.SGD(model.parameters(), lr=0.1),
    ):
        expected = expected_size(model, [optimizer])
        model(torch.randn(2, 100)).sum().backward()
        optimizer.step()
        assert abs(expected_size(model, [optimizer]) - expected) < 100
        model.zero_grad()
