"""Signals during a training outside of a job: it saves, and the program then ends as usual."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from mtf.trainer.runtime import signals
from mtf.trainer.runtime.console import say
from mtf.trainer.runtime.signals import STOP, Stopped

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def stopping_at_signals() -> Iterator[None]:
    """Let signals request a stop for a block, and restore what they did before it.

    In another thread than the main one, Python cannot set handlers: signals then do what they did.

    Raises:
        KeyboardInterrupt: the training was stopped by Ctrl-C; its state is saved.
        SystemExit: it was stopped by another signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    signals.install()
    try:
        yield
    except Stopped as stopped:
        _end(stopped)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        STOP.clear()


def _end(stopped: Stopped) -> NoReturn:
    say(f"stopped by {stopped.signal.name}: the next start of this training continues it")
    if stopped.signal is signal.SIGINT:
        raise KeyboardInterrupt from None
    raise SystemExit(128 + stopped.signal) from None
