"""Finds out in the first batch that BatchNorm will refuse the last one of the epoch."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from mtf.errors import MtfError
from mtf.trainer.data.epoch_reader import ENDLESS
from mtf.trainer.data.sample_counts import known_samples

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.hooks import RemovableHandle

    from mtf.trainer.data.batches import Batches


def refuse_single_sample(module: nn.Module, batches: Batches, number: int) -> None:
    """Let the next forward pass fail if a pass over the last batch of the first epoch would.

    BatchNorm cannot train on one value for each channel, which is what some of its layers get of a
    batch of one sample. The first batch shows which layers these are.

    Args:
        module: about to be trained.
        batches: what it is trained on.
        number: of batches in the first epoch.

    Raises:
        MtfError: in the forward pass: a layer gets one value of each sample.
    """
    if number == ENDLESS or known_samples(batches, 0, number - 1) != 1:
        return
    first = known_samples(batches, 0, 0)
    handles: dict[nn.Module, RemovableHandle] = {}

    def check(name: str, norm: nn.Module, inputs: Any) -> None:
        handles.pop(norm).remove()
        given = inputs[0] if inputs else None
        if isinstance(given, torch.Tensor) and _is_one_value_each(given.shape, first):
            raise MtfError(
                "the last batch of an epoch has one sample, and BatchNorm cannot train on one"
                f" ({name or 'the model'} gets one value of it for each channel): choose another"
                " training.batch_size (or drop_last in a DataLoader of your own), or use GroupNorm"
                " or LayerNorm"
            )

    for name, norm in module.named_modules():
        if isinstance(norm, _BatchNorm) and (norm.training or norm.running_mean is None):
            handles[norm] = norm.register_forward_pre_hook(functools.partial(check, name))


def _is_one_value_each(shape: torch.Size, samples: int | None) -> bool:
    """Return True for [samples, channels] and [samples, channels, 1, ...]."""
    return len(shape) > 1 and shape[0] == samples and shape.numel() == shape[0] * shape[1]
