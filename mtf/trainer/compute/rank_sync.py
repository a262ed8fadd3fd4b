"""What any rank wishes, known to all of them at the same cut, without waiting for each other there.

A question asked at one meeting is answered at the next: the ranks' answers travel while they
compute. It goes between the hosts, so that no device is waited for either. How many cuts lie
between two meetings the ranks agree on in passing, so that fast steps are not held up by them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from mtf.errors import MtfError

if TYPE_CHECKING:
    from lightning.fabric import Fabric

EXCHANGE_EVERY_S = 0.03  # a stop is agreed within two of these: nothing beside a grace of seconds
_MOST = 1000


class RankSync:
    """The ranks' common word. With one rank, it is that one's own, at once.

    Attributes:
        is_alone: whether there is but one rank.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.is_alone = fabric.world_size == 1
        self._rank = fabric.global_rank
        self._group: Any = None if self.is_alone else distributed.new_group(backend="gloo")
        self._asked: tuple[Any, torch.Tensor] | None = None
        self._every = self._left = 1  # cuts between two meetings, and to the next one
        self._met_s = time.monotonic()

    def exchange(self, *wishes: int) -> list[int]:
        """Return the greatest wishes of any rank at the last meeting, and send this one's.

        A wish is a number, 0 for none.

        All ranks must call it at the same places of the training; most calls are no meeting, and
        nobody wishes anything there.
        """
        if self.is_alone:
            return list(wishes)
        self._left -= 1
        if self._left > 0:
            return [0] * len(wishes)
        heard = [0] * len(wishes) if self._asked is None else self.last_answer()
        mine = torch.tensor([*wishes, -self._cuts_in_time()], dtype=torch.int32)
        work = distributed.all_reduce(
            mine, op=distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        self._asked = (work, mine)
        self._left = self._every
        return heard

    def last_answer(self) -> list[int]:
        """Return the answer to the last question, and forget it."""
        if self._asked is None:
            return []
        work, answer = self._asked
        work.wait()
        self._asked = None
        *wishes, fewest = answer.tolist()
        self._every = -fewest
        return wishes

    def _cuts_in_time(self) -> int:
        """Return how many cuts this rank passes in the time between two meetings."""
        now = time.monotonic()
        a_cut_s, self._met_s = (now - self._met_s) / self._every, now
        return max(1, min(_MOST, int(EXCHANGE_EVERY_S / max(a_cut_s, 1e-9))))

    def minimum(self, number: int) -> int:
        """Return the least of the ranks' numbers."""
        if self.is_alone:
            return number
        value = torch.tensor(number)
        distributed.all_reduce(value, op=distributed.ReduceOp.MIN, group=self._group)
        return int(value)

    def require_same(self, number: int, what: str) -> int:
        """Return a number that all ranks must have.

        Raises:
            MtfError: they have not.
        """
        least, most = self.minimum(number), -self.minimum(-number)
        if least != most:
            raise MtfError(f"{what} differs between the ranks: from {least} to {most}")
        return number

    def gather(self, of_this_rank: Any) -> list[Any] | None:
        """Return the ranks' values in order on the first rank, None on the others."""
        if self.is_alone:
            return [of_this_rank]
        values: list[Any] | None = (
            [None] * distributed.get_world_size() if self._rank == 0 else None
        )
        distributed.gather_object(of_this_rank, values, dst=0, group=self._group)
        return values

    def broadcast(self, by_the_first: Any) -> Any:
        """Return the first rank's value on all of them."""
        if self.is_alone:
            return by_the_first
        value = [by_the_first]
        distributed.broadcast_object_list(value, src=0, group=self._group)
        return value[0]
