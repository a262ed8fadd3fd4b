"""Random numbers: seeds computed from a place in the training, and the generators' state.

The state consists of tensors, integers and floats, which ``torch.load(weights_only=True)`` reads.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mtf.trainer.compute.generator_memory import NumpyGenerator, PythonGenerator


def seed_at(*place: object) -> int:
    """Return the 63-bit seed of a place, such as ``(seed, epoch, batch)``."""
    text = ",".join(map(str, place)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def seed_all(seed: int) -> None:
    """Seed python, numpy, torch and every CUDA device."""
    seed_cpu(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)


def seed_cpu(seed: int) -> None:
    """Seed the generators that data sets draw from: python, numpy, torch's CPU generator.

    ``torch.manual_seed`` takes 164 µs, the generator's own method 1 µs.
    """
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    torch.default_generator.manual_seed(seed)


_PYTHON, _NUMPY = PythonGenerator(), NumpyGenerator()


class TemporarilySeeded:
    """Seed the CPU generators for a block, and restore them afterwards.

    It takes 13 µs, and 40 more for each generator that has been used since the last time.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __enter__(self) -> None:
        self._python, self._numpy = _PYTHON.state(), _NUMPY.state()
        self._cpu = torch.default_generator.get_state()
        seed_cpu(self._seed)

    def __exit__(self, *_: object) -> None:
        _PYTHON.put_back(self._python)
        _NUMPY.put_back(self._numpy)
        torch.default_generator.set_state(self._cpu)


@dataclass(frozen=True)
class RNGState:
    """The state of every global generator of one process."""

    python: torch.Tensor  # int64 [625]
    python_gauss: float | None
    python_version: int
    numpy: torch.Tensor  # int64 [624]
    numpy_position: int
    numpy_has_gauss: int
    numpy_gauss: float
    cpu: torch.Tensor  # uint8
    cuda: list[torch.Tensor]  # uint8, one for each device

    @classmethod
    def capture(cls) -> RNGState:
        """Return the generators' state. It takes 44 µs, so only a save calls it."""
        version, words, gauss = random.getstate()
        _, keys, position, has_gauss, numpy_gauss = np.random.get_state(legacy=True)
        keys = np.asarray(keys)
        on_cuda = torch.cuda.is_available()
        return cls(
            python=torch.tensor(words, dtype=torch.int64),
            python_gauss=gauss,
            python_version=version,
            numpy=torch.tensor(keys.tolist(), dtype=torch.int64),
            numpy_position=int(position),
            numpy_has_gauss=int(has_gauss),
            numpy_gauss=float(numpy_gauss),
            cpu=torch.get_rng_state(),
            cuda=torch.cuda.get_rng_state_all() if on_cuda else [],
        )

    def restore(self) -> None:
        """Set all generators to this state."""
        words = tuple(self.python.tolist())
        random.setstate((self.python_version, words, self.python_gauss))
        keys = np.array(self.numpy.tolist(), dtype=np.uint32)
        legacy = ("MT19937", keys, self.numpy_position, self.numpy_has_gauss, self.numpy_gauss)
        np.random.set_state(legacy)
        torch.set_rng_state(self.cpu)
        devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        for device, state in enumerate(self.cuda[:devices]):
            torch.cuda.set_rng_state(state, device)

    def plain(self) -> dict[str, Any]:
        """Return the state as containers of tensors and numbers."""
        return dict(vars(self))
