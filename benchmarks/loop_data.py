"""Data for the loops that ``benchmarks.loops`` compares; it notes when each block begins."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

if TYPE_CHECKING:
    from collections.abc import Iterator

WARM_UP, BLOCK = 300, 100  # steps


class TimedData(Dataset[Any]):
    """Data in memory; notes the CPU time at which the first part of each block is asked for."""

    num_classes, input_shape = 10, (64,)
    parts_of_a_step = 1

    def __init__(self, steps: int) -> None:
        self._length = (WARM_UP + steps) * self.parts_of_a_step
        self._block = BLOCK * self.parts_of_a_step
        self._before = WARM_UP * self.parts_of_a_step
        self._asked, self._times_s = 0, list[float]()

    def __len__(self) -> int:
        return self._length

    def _note(self) -> None:
        if self._asked >= self._before and self._asked % self._block == 0:
            self._times_s.append(time.process_time())
        self._asked += 1

    def loader(self) -> DataLoader[Any]:
        """Return a loader of this data, which all loops read."""
        raise NotImplementedError

    def steps_us(self) -> list[float]:
        """Return the mean time of a step in each block, in microseconds."""
        pairs = itertools.pairwise(self._times_s)
        return [(after - before) / BLOCK * 1e6 for before, after in pairs]


class PreparedBatches(TimedData):
    """Whole batches, so that loading costs next to nothing."""

    def __init__(self, steps: int) -> None:
        super().__init__(steps)
        generator = torch.Generator().manual_seed(0)
        self._batches = [
            (torch.randn(32, 64, generator=generator), torch.arange(32) % 10) for _ in range(64)
        ]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self._note()
        return self._batches[index % 64]

    def loader(self) -> DataLoader[Any]:
        return DataLoader(self, batch_size=None)


class Samples(TimedData):
    """Samples that the loader shuffles and collates, as most users' loaders do."""

    parts_of_a_step = 32

    def __init__(self, steps: int) -> None:
        super().__init__(steps)
        self._inputs = torch.randn(2048, 64, generator=torch.Generator().manual_seed(0))
        self._targets = torch.arange(2048) % 10

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self._note()
        return self._inputs[index % 2048], self._targets[index % 2048]

    def loader(self) -> DataLoader[Any]:
        return DataLoader(self, batch_size=32, shuffle=True)


class Tensors(TimedData):
    """A TensorDataset that the loader shuffles and collates; all steps are one block."""

    def loader(self) -> DataLoader[Any]:
        inputs = torch.randn(2048, 64, generator=torch.Generator().manual_seed(0))
        indices = torch.arange(self._length * 32) % 2048
        data = TensorDataset(inputs[indices], indices % 10)
        self._began_s = time.process_time()
        return DataLoader(data, batch_size=32, shuffle=True)

    def steps_us(self) -> list[float]:
        return [(time.process_time() - self._began_s) / self._length * 1e6]


class Batches:
    """Prepared batches for mtf's loop, through the same loader as for the other loops."""

    def __init__(self, data: TimedData) -> None:
        self._ready = data

    def __len__(self) -> int:
        return len(self._ready)

    def num_samples(self, _epoch: int, _batch: int) -> int:
        """Return the number of samples in a batch, as mtf's own data does."""
        return 32

    def batches(self, _epoch: int, start: int) -> Iterator[Any]:
        assert start == 0
        return iter(self._ready.loader())
