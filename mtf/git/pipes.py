"""Pipes to a git that is running: each wait for the other side has a limit."""

from __future__ import annotations

import io
import os
import select
from typing import IO, TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

CAPACITY = 1 << 16  # bytes; of a pipe, and of the buffers here


class Answers(io.RawIOBase):
    """What a program prints.

    ``give_up`` is called when nothing comes for ``limit_s`` seconds, and raises an error.
    """

    def __init__(self, stream: IO[bytes], limit_s: float, give_up: Callable[[], NoReturn]) -> None:
        self._fd, self._limit_ms, self._give_up = stream.fileno(), limit_s * 1000, give_up
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read what there is, at least one byte unless the stream has ended."""
        if not self._poll.poll(self._limit_ms):
            self._give_up()
        return os.readv(self._fd, [buffer])


class Questions:
    """What a program reads.

    ``give_up`` is called when it reads nothing for ``limit_s`` seconds, and raises an error.
    """

    def __init__(self, stream: IO[bytes], limit_s: float, give_up: Callable[[], NoReturn]) -> None:
        self._fd, self._limit_ms, self._give_up = stream.fileno(), limit_s * 1000, give_up
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)
        os.set_blocking(self._fd, False)

    def write(self, data: memoryview) -> None:
        """Write everything.

        Raises:
            BrokenPipeError: the program has ended.
        """
        while data:
            if written := self.offer(data):
                data = data[written:]
            else:
                self.wait()

    def offer(self, data: memoryview) -> int:
        """Write what can be written without waiting; return the number of bytes.

        Raises:
            BrokenPipeError: the program has ended.
        """
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            return 0

    def wait(self) -> None:
        """Wait until something can be written."""
        if not self._poll.poll(self._limit_ms):
            self._give_up()
