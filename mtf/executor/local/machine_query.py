"""Asks this machine for its GPUs, CPUs and memory, within what the settings allow."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import proc
from mtf.errors import MtfError
from mtf.executor.local.shares import Machine

if TYPE_CHECKING:
    from collections.abc import Mapping

_ASK_S = 30.0
_GPU = re.compile(r"GPU ([0-9]+): .*\(UUID: (GPU-[^)\s]+)\)")
_MIG = re.compile(r"\s+MIG .*\(UUID: (MIG-[^)\s]+)\)")
_MEMORY_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class LocalLimits:
    """The share of the machine for runs (``local`` in mtf.yaml). None: all of it."""

    max_parallel: int  # runs at a time
    gpus: int | tuple[str, ...] | None = None  # how many, or which, as CUDA_VISIBLE_DEVICES
    cpus: int | None = None
    memory_mb: int | None = None


def this_machine(limits: LocalLimits, env: Mapping[str, str], *, with_gpus: bool = True) -> Machine:
    """Return the share of this machine that jobs may use.

    Its CPUs are at least ``max_parallel`` if the settings do not give them.

    Args:
        limits: of the settings.
        env: may restrict the GPUs by CUDA_VISIBLE_DEVICES.
        with_gpus: False does not look for GPUs.
    """
    gpus = gpus_of(limits.gpus, env) if with_gpus else ()
    cpus = limits.cpus or max(len(os.sched_getaffinity(0)), limits.max_parallel)
    return Machine(gpus, cpus, limits.memory_mb or _memory_mb())


def gpus_of(chosen: int | tuple[str, ...] | None, env: Mapping[str, str]) -> tuple[str, ...]:
    """Return the GPUs for jobs: those that are listed, else those of the environment, else all."""
    if isinstance(chosen, tuple):
        return chosen
    if chosen == 0:
        return ()
    found = _visible(env["CUDA_VISIBLE_DEVICES"]) if "CUDA_VISIBLE_DEVICES" in env else None
    if found is None:
        found = tuple(listed_gpus())
    if chosen is None:
        return found
    return found[:chosen] or tuple(map(str, range(chosen)))  # they are there, unknown to nvidia-smi


def _visible(text: str) -> tuple[str, ...]:
    """Return the GPUs in CUDA_VISIBLE_DEVICES: those before the first that is invalid."""
    names: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        if not re.fullmatch(r"[0-9]+|(GPU|MIG)-[0-9A-Za-z/-]+", name) or name in names:
            break
        names.append(name)
    return tuple(names)


def listed_gpus() -> dict[str, str]:
    """Return the GPUs that nvidia-smi lists: names for CUDA_VISIBLE_DEVICES -> UUIDs.

    The parts of a divided GPU (MIG) take its place. Empty where there is no nvidia-smi.
    """
    return _listed_gpus(os.environ.get("PATH", ""))


@cache
def _listed_gpus(path: str) -> dict[str, str]:
    try:
        answer = proc.run(("nvidia-smi", "-L"), timeout_s=_ASK_S, env={**os.environ, "PATH": path})
    except MtfError:
        return {}
    return parse_gpus(answer.stdout) if answer.code == 0 else {}


def parse_gpus(printed: str) -> dict[str, str]:
    """Return the GPUs in the output of ``nvidia-smi -L``; see ``listed_gpus``."""
    found: dict[str, str] = {}
    index = ""
    for line in printed.splitlines():
        if gpu := _GPU.match(line):
            index = gpu[1]
            found[index] = gpu[2]
        elif part := _MIG.match(line):
            found.pop(index, None)
            found[part[1]] = part[1]
    return found


def _memory_mb() -> int:
    """Return the memory in MiB: the machine's, or the limit of the container if that is lower."""
    text = Path("/proc/meminfo").read_text()
    total = int(re.findall(r"MemTotal:\s+([0-9]+) kB", text)[0]) // 1024
    for name in _MEMORY_FILES:
        with suppress(OSError, ValueError):  # "max" is no number: no limit
            return min(total, int(Path(name).read_text()) >> 20)
    return total


def uuids_of(names: tuple[str, ...]) -> dict[str, str]:
    """Return the UUIDs of GPUs by these names, the names themselves where nothing tells."""
    listed = listed_gpus() if names else {}
    found = {}
    for name in names:
        whole = (uuid for uuid in listed.values() if uuid.startswith(name))
        found[name] = listed.get(name) or next(whole, name)
    return found
