"""Errors of torch and of code written for other trainers, said in one sentence with the cure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mtf.errors import MtfError
from mtf.trainer.compute.compilation import MOST_KERNELS
from mtf.trainer.runtime.pinned_frames import passes, place_of

if TYPE_CHECKING:
    from torch import nn

_SHOWN = 5
_COLLATE = "torch/utils/data/_utils/collate.py"
# texts of torch, and what they mean to who wrote the spec; {0} is the first group of the pattern
_KNOWN = (
    (
        r"Expected more than 1 value per channel when training",
        "BatchNorm cannot train on a batch of one sample: choose a training.batch_size that leaves"
        " more for the last batch of an epoch, or use GroupNorm or LayerNorm",
    ),
    (
        r"dtype, but got:? ([\w ]+?)(?: and | != )([\w ]+)",
        "the model's layers compute in {1} and get {0}: return such values from the data set"
        " (tensor.float(), or array.astype('float32'))",
    ),
    (
        r"Input type \(([\w. ]+)\) and (?:weight|bias) type \(([\w. ]+)\)",
        "the model's layers compute in {1} and get {0}: return such values from the data set"
        " (tensor.float(), or array.astype('float32'))",
    ),
    (
        r"expected input(\[.+?\]) to have (\d+) channels, but got (\d+)",
        "a convolution takes {1} channels and gets {2} (inputs {0}): build the model for them (mtf"
        " passes input_shape; timm takes in_chans), or convert the images in the data set",
    ),
    (
        r"mat1 and mat2 shapes cannot be multiplied \((\d+)x(\d+) and (\d+)x(\d+)\)",
        "a layer takes {2} features and gets {1}: build the model for them (mtf passes"
        " input_shape), or correct the layer before it",
    ),
    (
        r"^index out of range in self",
        "an embedding gets an index that is not in its table: raise its num_embeddings, or correct"
        " the indices that the data set returns",
    ),
    (
        r"device-side assert triggered",
        "an index is out of range on the GPU, such as a target that is no class of the model, or an"
        " index of an embedding: train on a CPU to see which one",
    ),
    (
        r"backward through the graph a second time",
        "the loss depends on what an earlier batch has computed: detach what the model keeps from"
        " batch to batch (self.state = state.detach()), and leave backward() to the trainer",
    ),
    (
        r"Module \[(\w+)\] is missing the required \"forward\" function",
        "{0} has no forward: define forward(inputs), which returns logits, or training_step(batch),"
        " which returns the loss",
    ),
    (
        r"unscale FP16 gradients",
        "the weights of the model are 16-bit floats: leave them at 32 bits (without half()), which"
        " training.use_amp needs, or set training.use_amp: false",
    ),
)


def in_words(error: BaseException, module: nn.Module) -> MtfError | None:
    """Return an error that says what to change, None for an error that is not known.

    Args:
        error: raised by a training.
        module: the module that is trained.
    """
    if isinstance(error, MtfError):
        return None
    text = str(error)
    words = _of_compilation(error, text) or _of_optimization(error, text, module)
    if words is not None:
        return MtfError(words)
    if passes(error, _COLLATE) or _COLLATE in text:
        line = text.strip().splitlines()[-1]
        return MtfError(
            f"samples cannot be made a batch ({line}): let the data set return tensors, arrays,"
            " numbers or texts, with the same shapes and keys in each sample, or give it a"
            " collate_fn"
        )
    for pattern, known in _KNOWN:
        if found := re.search(pattern, text):
            return MtfError(known.format(*found.groups()) + place_of(error))
    return None


def _of_compilation(error: BaseException, text: str) -> str | None:
    if type(error).__name__ == "FailOnRecompileLimitHit":
        return (
            f"training.compile: more than {MOST_KERNELS} kernels of one function, one for each"
            " shape of a batch and each number that the step reads from an attribute: pad the"
            " batches to a few lengths, or set training.compile: false (TORCH_LOGS=recompiles"
            " names what changed)"
        )
    if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
        line = text.strip().partition("\n")[0]
        return (
            f"training.compile: torch cannot compile the model ({type(error).__name__}: {line}):"
            " set training.compile: false, or leave a function out with @torch.compiler.disable"
        )
    return None


def _of_optimization(error: BaseException, text: str, module: nn.Module) -> str | None:
    if "finished reduction in the prior iteration" in text:
        return (
            f"{_unused(text, module)} no part in the loss of a batch, and the processes wait for"
            " the gradients of all: set training.find_unused_parameters: true, or leave"
            " these out of the model"
        )
    if re.search(r"does not support (sparse|dense) gradients", text):
        return (
            f"{text.partition(', please')[0].rstrip('.')}: let configure_optimizers return two"
            " optimizers by name, SparseAdam for the embeddings with sparse=True and another one"
            " for the rest"
        )
    if isinstance(error, AssertionError | RuntimeError | TypeError) and "closure" in text:
        return (
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
