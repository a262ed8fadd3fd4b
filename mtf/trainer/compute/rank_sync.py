"""Messages between the ranks: requests to stop or save, without waiting; broadcast, gather, checks.

An exchange is asynchronous: the answer to one is read at the next, so the ranks compute while it
travels. It goes between the hosts (gloo), so that no device is waited for. The ranks adapt the
number of cuts between two exchanges to their pace: fast steps are not slowed down.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from mtf.errors import MtfError
from mtf.trainer.runtime.console import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lightning.fabric import Fabric

EXCHANGE_EVERY_S = 0.03  # all ranks know of a stop within two of these: far below a grace period
_MOST_CUTS = 1000


class RankSync:
    """What the ranks of a training tell each other. A single rank answers itself at once.

    Attributes:
        rank: number of this rank.
        world_size: number of ranks.
        is_alone: whether this rank is the only one.
        is_first: whether this rank is the one that writes.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.rank, self.world_size = fabric.global_rank, fabric.world_size
        self.is_alone, self.is_first = fabric.world_size == 1, fabric.is_global_zero
        self._group: Any = None if self.is_alone else distributed.new_group(backend="gloo")
        self._pending: tuple[Any, torch.Tensor] | None = None  # the exchange under way
        self._names: list[str] = []  # of ``sums``, on all ranks
        self._cuts_between = self._cuts_left = 1  # of exchanges, and until the next one
        self._exchanged_s = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line to the job's log, once for all ranks."""
        if self.is_first:
            say(text)

    def exchange(self, *requests: int) -> list[int]:
        """Send this rank's requests; return the greatest of all ranks' at the last exchange.

        All ranks must call it at the same cuts. Most calls exchange nothing and return zeros.

        Args:
            requests: numbers; 0 stands for no request.
        """
        if self.is_alone:
            return list(requests)
        self._cuts_left -= 1
        if self._cuts_left > 0:
            return [0] * len(requests)
        answer = [0] * len(requests) if self._pending is None else self.last_answer()
        mine = torch.tensor([*requests, -self._cuts_in_time()], dtype=torch.int32)
        work = distributed.all_reduce(
            mine, op=distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        self._pending = (work, mine)
        self._cuts_left = self._cuts_between
        return answer

    def last_answer(self) -> list[int]:
        """Wait for the exchange under way and return its answer; an empty list if there is none."""
        if self._pending is None:
            return []
        work, answer = self._pending
        work.wait()
        self._pending = None
        *requests, negative_cuts = answer.tolist()
        self._cuts_between = -negative_cuts  # of the slowest rank
        return requests

    def _cuts_in_time(self) -> int:
        """Return the number of cuts that this rank passes in ``EXCHANGE_EVERY_S``."""
        now = time.monotonic()
        a_cut_s, self._exchanged_s = (now - self._exchanged_s) / self._cuts_between, now
        return max(1, min(_MOST_CUTS, int(EXCHANGE_EVERY_S / max(a_cut_s, 1e-9))))

    def minimum(self, number: int) -> int:
        """Return the least of the ranks' numbers."""
        if self.is_alone:
            return number
        value = torch.tensor(number)
        distributed.all_reduce(value, op=distributed.ReduceOp.MIN, group=self._group)
        return int(value)

    def total(self, number: Any) -> Any:
        """Return the sum of the ranks' numbers, or of their tensors of one shape."""
        if self.is_alone:
            return number
        is_tensor = isinstance(number, torch.Tensor)
        value = number.clone() if is_tensor else torch.tensor(number, dtype=torch.float64)
        distributed.all_reduce(value, group=self._group if value.is_cpu else None)
        return value if is_tensor else value.item()

    def sums(self, pairs: Mapping[str, tuple[Any, Any]]) -> dict[str, tuple[float, float]]:
        """Return sums and counts by name, added up over all ranks in their order.

        All ranks must call it; not all need to have the same names.
        """
        mine = {name: (float(total), float(count)) for name, (total, count) in pairs.items()}
        if self.is_alone:
            return mine
        row = [float(any(name not in self._names for name in mine))]
        for name in self._names:
            row += [float(name in mine), *mine.get(name, (0.0, 0.0))]
        rows = [torch.zeros(len(row), dtype=torch.float64) for _ in range(self.world_size)]
        distributed.all_gather(rows, torch.tensor(row, dtype=torch.float64), group=self._group)
        by_rank = [row.tolist() for row in rows]
        if any(of_rank[0] for of_rank in by_rank):  # seldom: a name is new
            of_ranks = self.broadcast(self.gather(list(mine)))
            names = dict.fromkeys(name for of_rank in of_ranks for name in of_rank)
            self._names += [name for name in names if name not in self._names]
            return self.sums(pairs)
        added: dict[str, tuple[float, float]] = {}
        for i, name in enumerate(self._names):
            parts = [of_rank[3 * i + 1 : 3 * i + 4] for of_rank in by_rank]
            if any(is_present for is_present, *_ in parts):
                added[name] = (sum(part[1] for part in parts), sum(part[2] for part in parts))
        return added

    def require_same(self, number: int, what: str) -> int:
        """Return a number that must be the same on all ranks.

        Raises:
            MtfError: the ranks' numbers differ.
        """
        least, most = self.minimum(number), -self.minimum(-number)
        if least != most:
            raise MtfError(
                f"{what} differs between the ranks: from {least} to {most}. Give all ranks"
                " equally many"
            )
        return number

    def gather(self, of_this_rank: Any) -> list[Any] | None:
        """Return the ranks' values in order on the first rank, None on the others."""
        if self.is_alone:
            return [of_this_rank]
        values: list[Any] | None = [None] * self.world_size if self.is_first else None
        distributed.gather_object(of_this_rank, values, dst=0, group=self._group)
        return values

    def broadcast(self, of_first_rank: Any) -> Any:
        """Return the first rank's value on all ranks."""
        if self.is_alone:
            return of_first_rank
        value = [of_first_rank]
        distributed.broadcast_object_list(value, src=0, group=self._group)
        return value[0]
