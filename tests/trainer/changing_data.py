"""Data whose epochs differ: in their number of batches, in their samples, in their order."""

from __future__ import annotations

import itertools
import os
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, Sampler, get_worker_info

from tests.trainer.hard_training import Augmented

if TYPE_CHECKING:
    from collections.abc import Iterator


class Buckets(Sampler[list[int]]):
    """Batches of differing sizes, another number of them in each epoch, by a generator of its own."""

    def __init__(self, size: int, *, counts_itself: bool = False) -> None:
        self.size, self.epoch, self.counts_itself = size, 0, counts_itself
        self.shuffler = np.random.default_rng()

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def _sizes(self) -> list[int]:
        """Return sizes from 2 on, whose sum is the number of samples."""
        cutter, sizes, left = random.Random(self.epoch), [], self.size
        while left > 6:
            sizes.append(cutter.randint(2, 5))
            left -= sizes[-1]
        return [*sizes, left]

    def __len__(self) -> int:
        return len(self._sizes())

    def __iter__(self) -> Iterator[list[int]]:
        order = self.shuffler.permutation(self.size).tolist()
        for size in self._sizes():
            yield [order.pop() for _ in range(size)]


class CountingItself(Buckets):
    """As many samplers are: its epoch is the number of its passes, which nobody tells it."""

    set_epoch: Any = None

    def __iter__(self) -> Iterator[list[int]]:
        yield from super().__iter__()
        self.epoch += 1


def buckets(split: str) -> Any:
    """Return a loader whose batch sampler is told the epoch."""
    data = Augmented(split)
    return DataLoader(data, batch_sampler=Buckets(len(data)))


def counting_itself(split: str) -> Any:
    """Return a loader whose batch sampler counts its epochs."""
    data = Augmented(split)
    return DataLoader(data, batch_sampler=CountingItself(len(data)))


class Growing(Augmented):
    """A curriculum: more and wilder samples in later epochs, with noise of its own."""

    def __init__(self, split: str) -> None:
        super().__init__(split)
        self.epoch = 0
        self.rng, self.noise = random.Random(), torch.Generator()

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        whole = super().__len__()
        return whole - 8 if self.epoch == 0 and self.noisy else whole

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        inputs, target = super().__getitem__(index)
        noise = torch.randn(6, generator=self.noise) * self.rng.random()
        return inputs * (1 + self.epoch) + noise, target


class Repeated(IterableDataset[tuple[torch.Tensor, int]]):
    """Shuffled samples, all of them in each data worker."""

    num_classes = 3

    def __init__(self, split: str) -> None:
        self.samples = torch.randn(36, 6, generator=torch.Generator().manual_seed(len(split)))
        self.rng = random.Random()

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        for index in self.rng.sample(range(36), 36):
            yield self.samples[index], index % 3


class ByRank(Repeated):
    """Shuffled samples, divided between the ranks and their data workers."""

    def __len__(self) -> int:
        return len(self.samples) // int(os.environ.get("SLURM_NTASKS", "1"))

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        rank, ranks = (int(os.environ[name]) for name in ("SLURM_PROCID", "SLURM_NTASKS"))
        yield from itertools.islice(
            super().__iter__(), rank * workers + number, None, ranks * workers
        )
