"""Errors of torch and of code written for other trainers, said in one sentence with the cure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mtf.errors import MtfError
from mtf.trainer.compute.compilation import MOST_KERNELS

if TYPE_CHECKING:
    from torch import nn

_SHOWN = 5


def in_words(error: BaseException, module: nn.Module) -> MtfError | None:
    """Return an error that says what to change, None for an error that is not known.

    Args:
        error: raised by a training.
        module: the module that is trained.
    """
    text = str(error)
    if isinstance(error, MtfError):
        return None
    if type(error).__name__ == "FailOnRecompileLimitHit":
        return MtfError(
            f"training.compile: more than {MOST_KERNELS} kernels of one function, one for each"
            " shape of a batch and each number that the step reads from an attribute: pad the"
            " batches to a few lengths, or set training.compile: false (TORCH_LOGS=recompiles"
            " names what changed)"
        )
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        line = text.strip().partition("\n")[0]
        return MtfError(
            f"training.compile: torch cannot compile the model ({type(error).__name__}: {line}):"
            " set training.compile: false, or leave a function out with @torch.compiler.disable"
        )
    if "finished reduction in the prior iteration" in text:
        return MtfError(
            f"{_unused(text, module)} no part in the loss of a batch, and the processes wait for"
            " the gradients of all: set training.find_unused_parameters: true, or leave"
            " these out of the model"
        )
    if re.search(r"does not support (sparse|dense) gradients", text):
        return MtfError(
            f"{text.partition(', please')[0].rstrip('.')}: let configure_optimizers return two"
            " optimizers by name, SparseAdam for the embeddings with sparse=True and another one"
            " for the rest"
        )
    if isinstance(error, AssertionError | RuntimeError | TypeError) and "closure" in text:
        return MtfError(
            f"the optimizer needs a closure that computes the loss again ({text}): of such"
            " optimizers only torch's LBFGS is supported. Use another one, or a training loop of"
            " your own (entrypoint)"
        )
    return None


def _unused(text: str, module: nn.Module) -> str:
    """Return the names of the parameters whose indices an error of DDP lists, and a verb."""
    found = re.search(r"did not receive grad for rank \d+: ([\d ]+)", text)
    names = [name for name, p in module.named_parameters() if p.requires_grad]
    indices = [int(number) for number in found[1].split()] if found else []
    unused = [names[i] for i in indices if i < len(names)]
    if not unused:
        return "some parameters take"
    more = f" and {len(unused) - _SHOWN} more" if len(unused) > _SHOWN else ""
    verb = "takes" if len(unused) == 1 else "take"
    return f"{', '.join(unused[:_SHOWN])}{more} {verb}"
