"""Fixtures of the comparisons with a plain loop."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from mtf.trainer.runtime.signals import SIGNALS

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def restored_signal_handlers() -> Iterator[None]:
    """Restore the test runner's signal handlers."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)
