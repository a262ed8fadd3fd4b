"""The memory of Python's and numpy's global generators, which tells whether they have been used.

Taking and restoring their states by ``random.getstate``, ``np.random.get_state`` and ``set_state``
takes 9, 32 and 36 µs (measured on numpy 2), more than a small model's loss. A batch that is made in
the training's own process needs that once, so it is done only for a generator that has been used
since. Both are Mersenne Twisters: 624 words and a position. Where they lie in memory is found by
their content; if it is not found, as on another interpreter, the states are taken every time.
"""

from __future__ import annotations

import _random
import ctypes
import random
from array import array
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

_WORD = 4
_WORDS = 624 * _WORD
_SIZE = _WORDS + _WORD  # bytes of a generator's words and position

_State = tuple[bytes | None, Any]  # memory, and what is not in it; or None and the whole state


def _found(address: int, size: int, words: Sequence[int], position: int) -> int | None:
    """Return the address of words and position, next to each other in any order; None: not found.

    Args:
        address: where the generator's memory begins.
        size: number of bytes to search.
        words: its 624 words now.
        position: its position now.
    """
    content = ctypes.string_at(address, size)
    at = content.find(array("I", words).tobytes())
    number = array("I", [position]).tobytes()
    if at < 0:
        return None
    if content[at + _WORDS : at + _SIZE] == number:
        return address + at
    return address + at - _WORD if at >= _WORD and content[at - _WORD : at] == number else None


class PythonGenerator:
    """The generator behind the functions of ``random``."""

    def __init__(self) -> None:
        self._generator: Any = random.random.__self__  # type: ignore[attr-defined]
        words = random.getstate()[1]
        self._address = _found(
            id(self._generator), _random.Random.__basicsize__, words[:-1], words[-1]
        )

    def state(self) -> _State:
        """Return the state for ``put_back``."""
        if self._address is None:
            return None, random.getstate()
        memory = ctypes.string_at(self._address, _SIZE)
        return memory, self._generator.gauss_next

    def put_back(self, state: _State) -> None:
        """Return to a state."""
        memory, rest = state
        if memory is None:
            random.setstate(rest)
        else:
            assert self._address is not None
            ctypes.memmove(self._address, memory, _SIZE)
            self._generator.gauss_next = rest


class NumpyGenerator:
    """The generator behind the functions of ``np.random``."""

    def __init__(self) -> None:
        self._bits: Any = None
        self._address: int | None = None
        self._known: _State | None = None  # memory and state, without a kept normal

    def _locate(self) -> int | None:
        """Return the address of the generator's state, which another may have replaced."""
        bits = np.random.get_bit_generator() if hasattr(np.random, "get_bit_generator") else None
        if bits is not self._bits:
            self._bits, self._address, self._known = bits, None, None
            if isinstance(bits, np.random.MT19937):
                state = bits.state["state"]
                self._address = _found(
                    bits.ctypes.state_address, _SIZE, state["key"].tolist(), state["pos"]
                )
        return self._address

    def state(self) -> _State:
        """Return the state for ``put_back``."""
        address = self._locate()
        if address is None:
            return None, np.random.get_state()
        memory = ctypes.string_at(address, _SIZE)
        if self._known is not None and self._known[0] == memory:
            return self._known
        state: Any = np.random.get_state()
        if state[3]:  # keeps a normal number, which is taken without a change of the words
            self._known = None
            return None, state
        self._known = memory, state
        return self._known

    def put_back(self, state: _State) -> None:
        """Return to a state."""
        memory, whole = state
        if memory is None or (address := self._locate()) is None:
            np.random.set_state(whole)
            return
        np.random.seed(0)  # drops a normal number that is kept
        ctypes.memmove(address, memory, _SIZE)
