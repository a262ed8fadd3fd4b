"""One thread for torch in this process: children are forked from it."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Keep torch from making a pool of threads, which a fork would lose."""
    torch.set_num_threads(1)
