"""The built-in data sets, in memory, each with its ``input_shape`` and ``num_classes``."""

from __future__ import annotations

import functools
import gzip
import importlib.util
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

from mtf.errors import MtfError

SPLITS = ("train", "validation")
_SPLIT_SEED = 20_250_101  # not the run's seed, so that all runs validate on the same samples


class Classified(TensorDataset):
    """A data set of inputs, float32 [N, ...], and their classes, int64 [N]."""

    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor, num_classes: int) -> None:
        super().__init__(inputs, targets)
        self.input_shape = tuple(inputs.shape[1:])
        self.num_classes = num_classes


def digits(split: str) -> Classified:
    """Return a split of scikit-learn's 1,797 hand-written digits: images [1, 8, 8], 10 classes.

    The split is always the same: 80 % train, 20 % validation. Images are normalised by the mean
    and the standard deviation of the training part.

    Raises:
        MtfError: scikit-learn is not installed, or the split does not exist.
    """
    images, targets = _read_digits()
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    train = order[: len(order) * 4 // 5]
    images = (images - images[train].mean()) / images[train].std()
    chosen = _part(order, split)
    return Classified(images[chosen].reshape(-1, 1, 8, 8), targets[chosen], 10)


def synthetic(
    split: str,
    *,
    num_samples: int = 1000,
    num_features: int = 16,
    num_classes: int = 4,
    noise: float = 0.5,
    data_seed: int = 0,
) -> Classified:
    """Return a split of Gaussian clusters [num_features], one per class; ``noise`` is their width.

    Raises:
        MtfError: the split does not exist.
    """
    generator = torch.Generator().manual_seed(data_seed)
    centres = torch.randn(num_classes, num_features, generator=generator)
    targets = torch.randint(num_classes, (num_samples,), generator=generator)
    spread = torch.randn(num_samples, num_features, generator=generator)
    chosen = _part(torch.arange(num_samples), split)
    inputs = centres[targets] + noise * spread
    return Classified(inputs[chosen], targets[chosen], num_classes)


def _part(order: torch.Tensor, split: str) -> torch.Tensor:
    if split not in SPLITS:
        raise MtfError(
            f"split {split!r} does not exist in this data set: use {' or '.join(SPLITS)}"
        )
    num_train = len(order) * 4 // 5
    return order[:num_train] if split == "train" else order[num_train:]


@functools.cache  # both splits read it
def _read_digits() -> tuple[torch.Tensor, torch.Tensor]:
    """Return images [N, 64] and targets [N] from the file in scikit-learn's wheel.

    Importing scikit-learn for it would take 0.8 s.
    """
    found = importlib.util.find_spec("sklearn")
    if found is None or not found.submodule_search_locations:
        raise MtfError("the digits data set comes with scikit-learn: pip install scikit-learn")
    path = Path(found.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    numbers = gzip.decompress(path.read_bytes()).replace(b"\n", b",").rstrip(b",").split(b",")
    table = torch.frombuffer(bytearray(map(int, numbers)), dtype=torch.uint8).reshape(-1, 65)
    return table[:, :64].float(), table[:, 64].long()
