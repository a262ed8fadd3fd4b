"""Upper bounds of what a job takes, from its options: nodes, GPUs, CPUs and hours. Pure.

Sources: sbatch(1), and the functions ``arg_set_*`` in ``src/common/slurm_opt.c`` of SLURM.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from mtf.core.vocabulary.times import time_limit_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mtf.core.sbatch.read_script import JobOptions

_NUMBER = re.compile(r"\+?([0-9]{1,12})")
_SPAN = re.compile(r"(?:[0-9]{1,12}-)?([0-9]{1,12})")  # of nodes
_MULTIPLES = {"k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4, "p": 1024**5}
_COUNT = re.compile(r"\+?([0-9]{1,12})([kmgtp]?)", re.IGNORECASE)
_GRES = re.compile(r"(?:gres[:/])?(gpu|shard|mps)(?:[:=](.*))?", re.IGNORECASE)
_CPU = re.compile(r"cpu[:=](.*)", re.IGNORECASE)
_MIB_OF = {"K": 1 / 1024, "M": 1, "G": 1024, "T": 1024**2}
_MEMORY = re.compile(r"\+?([0-9]{1,12})(?:([KMGT])B?)?", re.IGNORECASE)
_LONGEST_S = 2**31  # sbatch counts seconds in 32 bits
_WHOLE_NODES = frozenset({"core-spec", "exclusive", "thread-spec"})  # with all of their GPUs
# Options by which a job gets more CPUs than it names: whole nodes, sockets or cores.
_MORE_CPUS = _WHOLE_NODES | frozenset(
    {
        "cores-per-socket",
        "extra-node-info",
        "hint",
        "ntasks-per-core",
        "ntasks-per-socket",
        "sockets-per-node",
        "threads-per-core",
    }
)


class _UnboundedError(ValueError):
    """An amount has no bound that is known here."""


class Demand(NamedTuple):
    """Upper bounds of what one attempt of one run takes. None: no bound is known."""

    partition: str  # "" if none is named; may be several, separated by commas
    account: str
    time: str  # the limit as it is written
    hours: float | None
    nodes: int | None
    gpus: int | None
    cpus: int | None
    memory_mb: int | None = None  # on each node


UNBOUNDED = Demand("", "", "", None, None, None, None)


def demand_of(options: JobOptions) -> Demand:
    """Return the upper bounds of a job with these options."""
    return _demand(tuple(options.values.items()))


@lru_cache(maxsize=4096)
def _demand(items: tuple[tuple[str, str | None], ...]) -> Demand:
    given = {name: value or "" for name, value in items}
    amounts = _Amounts(given)
    return Demand(
        partition=given.get("partition", ""),
        account=given.get("account", ""),
        time=given.get("time", ""),
        hours=hours_of(given.get("time")),
        nodes=_or_none(amounts.nodes),
        gpus=_or_none(amounts.gpus),
        cpus=_or_none(amounts.cpus),
        memory_mb=_or_none(amounts.memory_mb),
    )


def _or_none(amount: Callable[[], int]) -> int | None:
    try:
        return amount()
    except _UnboundedError:
        return None


@lru_cache(maxsize=4096)
def hours_of(text: str | None) -> float | None:
    """Return a time limit in hours, None if there is none. 0 is no limit, as for sbatch."""
    try:
        seconds = time_limit_s(text or "")
    except ValueError:  # missing, UNLIMITED, or unreadable
        return None
    return seconds / 3600 if 0 < seconds < _LONGEST_S else None


class _Amounts(NamedTuple):
    """The amounts of a job, from the values of its options by long name."""

    given: Mapping[str, str]

    def nodes(self) -> int:
        listed = self.given.get("nodelist")
        named = _hosts(listed) if listed is not None else 0
        if "nodes" in self.given:
            return max(named, _nodes(self.given["nodes"]))
        # as many as there are tasks, or GPUs, if each node gets one
        gpus = _gpus(self.given["gpus"]).total() if "gpus" in self.given else 0
        return max(named, self._number("ntasks", 1), gpus, 1)

    def gpus(self) -> int:
        """Return the number of GPUs. The spellings ask for the same ones, types for different."""
        if not _WHOLE_NODES.isdisjoint(self.given):
            raise _UnboundedError
        most = Counter[str]()
        for times, kinds in self._gpus_asked():
            most |= Counter({kind: times() * number for kind, number in kinds.items()})
        return most.total()

    def _gpus_asked(self) -> Iterator[tuple[Callable[[], int], Counter[str]]]:
        """Yield a factor for each spelling, and the GPUs by type that it asks for."""
        given = self.given
        for name, times in (
            ("gpus", lambda: 1),
            ("gpus-per-node", self.nodes),
            ("gpus-per-socket", lambda: self.nodes() * self._number("sockets-per-node", None)),
            ("gpus-per-task", self._named_tasks),
        ):
            if name in given:
                yield times, _gpus(given[name])
        yield self.nodes, _listed_gpus(given.get("gres", ""))
        yield self._named_tasks, _listed_gpus(given.get("tres-per-task", ""))

    def cpus(self) -> int:
        if not _MORE_CPUS.isdisjoint(self.given):
            raise _UnboundedError
        task = max(self._number("cpus-per-task", 1), self._cpus_of_tres())
        found = self.tasks() * task
        if "mincpus" in self.given:
            found = max(found, self.nodes() * self._number("mincpus", None))
        if "cpus-per-gpu" in self.given:
            found = max(found, self.gpus() * self._number("cpus-per-gpu", None))
        return found

    def memory_mb(self) -> int:
        """Return the memory on each node, in MiB, whichever of its options gives the most."""
        units: tuple[tuple[str, Callable[[], int]], ...] = (
            ("mem", lambda: 1),
            ("mem-per-cpu", self.cpus),
            ("mem-per-gpu", self.gpus),
        )
        asked = [(memory_mb(self.given[name]), n) for name, n in units if name in self.given]
        if not asked or 0 in dict(asked):  # the cluster's default, or all of the node
            raise _UnboundedError
        return max(amount * number() for amount, number in asked)

    def tasks(self) -> int:
        """Return the number of tasks, with those that follow from GPUs."""
        found = self._named_tasks()
        for name in ("ntasks-per-gpu", "ntasks-per-tres"):
            if name in self.given:
                found = max(found, self.gpus() * self._number(name, None))
        if "gpus-per-task" in self.given and "gpus" in self.given:
            found = max(found, _gpus(self.given["gpus"]).total())
        return found

    def _named_tasks(self) -> int:
        by_node = self.nodes() * self._number("ntasks-per-node", 1)
        return max(self._number("ntasks", 1), by_node)

    def _cpus_of_tres(self) -> int:
        parts = self.given.get("tres-per-task", "").split(",")
        return max((_count(m[1]) for m in map(_CPU.fullmatch, parts) if m), default=0)

    def _number(self, name: str, default: int | None) -> int:
        text = self.given.get(name)
        if text is None and default is not None:
            return default
        found = _NUMBER.fullmatch(text or "")
        if found is None:
            raise _UnboundedError
        return int(found[1])


def _nodes(text: str) -> int:
    """Return the greatest number of nodes: ``4``, ``2-4`` or, since 23.02, ``1,2,4-8:2``."""
    spans = [_SPAN.fullmatch(part.partition(":")[0]) for part in text.split(",")]
    most = max((int(span[1]) if span else 0 for span in spans), default=0)
    if None in spans or most == 0:  # `2-0` is 2 or more
        raise _UnboundedError
    return most


def _hosts(text: str) -> int:
    """Return the number of nodes in a plain list of names.

    The nodes in brackets (``node[1-4]``) and in files are not counted here.
    """
    if re.fullmatch(r"[A-Za-z0-9._-]+(,[A-Za-z0-9._-]+)*", text) is None:
        raise _UnboundedError
    return text.count(",") + 1


def _gpus(text: str) -> Counter[str]:
    """Return the GPUs by type in ``2``, ``+2``, ``a100:2`` or ``a100:2,v100:1``."""
    found = Counter[str]()
    for part in text.split(","):
        kind, _, number = part.rpartition(":")
        found[kind] += _count(number)
    return found


def gpu_count(asked: int | str) -> int:
    """Return the number of GPUs in ``slurm.gpus_per_node``: ``2``, or types like ``a100:2``."""
    return asked if isinstance(asked, int) else _gpus(asked).total()


def _listed_gpus(text: str) -> Counter[str]:
    """Return the GPUs by type in a list like ``gpu:2``, ``gres/gpu:a100:2,nvme:1``.

    A shard is a part of one GPU, and all mps of a node are on one GPU.
    """
    found = Counter[str]()
    for part in text.split(","):
        match = _GRES.fullmatch(part.strip().partition("(")[0])
        if match is not None:
            kind, number = _kind_and_number(match[1].lower(), match[2])
            found[kind] += number
        elif re.search("gpu|shard|mps", part, re.IGNORECASE):
            raise _UnboundedError
    return found


def _kind_and_number(name: str, rest: str | None) -> tuple[str, int]:
    if name == "mps" or rest is None:
        return ("" if name == "gpu" else name), 1
    kind, _, last = rest.replace("=", ":").rpartition(":")
    if not re.match(r"[+0-9-]", last):  # a type alone means one
        if kind:
            raise _UnboundedError
        kind, last = rest, "1"
    return (kind if name == "gpu" else name), _count(last)


def memory_mb(text: str) -> int:
    """Return an amount of memory like ``2G`` or ``800`` in whole MiB, rounded up as by sbatch.

    Raises:
        ValueError: the text is none.
    """
    found = _MEMORY.fullmatch(text)
    if found is None:
        raise _UnboundedError(text)
    return ceil(int(found[1]) * _MIB_OF[(found[2] or "M").upper()])


def _count(text: str) -> int:
    found = _COUNT.fullmatch(text)
    if found is None:
        raise _UnboundedError
    return int(found[1]) * _MULTIPLES.get(found[2].lower(), 1)
