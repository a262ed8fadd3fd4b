"""Why SLURM does not start a job, in words for people, and what a person can do about it. Pure.

Source: squeue(1), JOB REASON CODES, and job_reasons of SLURM 22.05 to 25.11.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Why(NamedTuple):
    """A reason in words. ``cure`` is empty if the job will start without anybody's help."""

    words: str
    cure: str = ""


_RELEASE = "scontrol release {job}"
_CHANGE = "mtf cancel the run, then mtf retry --set slurm...."
_ASK = "ask the administrators of the cluster"

_REASONS: Mapping[str, Why] = {
    # it starts by itself
    "None": Why("queued"),
    "": Why("queued"),
    "Priority": Why("waits for jobs with a higher priority"),
    "Resources": Why("waits for free resources"),
    "BeginTime": Why("waits for its begin time"),
    "Dependency": Why("waits for a job that it depends on"),
    "JobArrayTaskLimit": Why("waits for other tasks of its array (max_parallel)"),
    "Licenses": Why("waits for licenses"),
    "Reservation": Why("waits for its reservation"),
    "Cleaning": Why("its earlier start is being cleaned up"),
    "Prolog": Why("its nodes are being prepared"),
    "SchedDefer": Why("queued"),
    "FrontEndDown": Why("waits for a front end"),
    "FedJobLock": Why("waits for the other clusters of its federation"),
    "BurstBufferResources": Why("waits for burst buffer space"),
    "BurstBufferStageIn": Why("waits for its data in the burst buffer"),
    "PowerNotAvail": Why("waits for power"),
    "PowerReserved": Why("waits for power"),
    "MaxPoweredUpNodes": Why("waits for a node that may be powered up"),
    "NodeDown": Why("waits for a node that is down"),
    "ReqNodeNotAvail": Why("waits for nodes that are down, drained or reserved"),
    "PartitionDown": Why("its partition is down", _ASK),
    "PartitionInactive": Why("its partition is inactive", _ASK),
    "ReservationMaintenance": Why("waits for the end of a maintenance"),
    # a person has to act
    "JobHeldUser": Why("held by its user", _RELEASE),
    "JobHeldAdmin": Why("held by an administrator", f"an administrator runs {_RELEASE}"),
    "JobHoldMaxRequeue": Why("held: requeued too often", _RELEASE),
    "SpecialExit": Why("held after a special exit", _RELEASE),
    "ReservationDeleted": Why("held: its reservation was deleted", _CHANGE),
    "DependencyNeverSatisfied": Why(
        "a job that it depends on has failed: it will never start",
        "mtf cancel the run, or scontrol update jobid={job} dependency=",
    ),
    "PartitionNodeLimit": Why("its partition allows no job with so many nodes", _CHANGE),
    "PartitionTimeLimit": Why("its partition allows no job with so long a time limit", _CHANGE),
    "PartitionConfig": Why("its partition does not allow it", _CHANGE),
    "BadConstraints": Why("no node can satisfy its constraints", _CHANGE),
    "AccountNotAllowed": Why("its partition does not allow its account", _CHANGE),
    "QOSNotAllowed": Why("its partition or account does not allow its QOS", _CHANGE),
    "InvalidAccount": Why("its account is not valid", _CHANGE),
    "InvalidQOS": Why("its QOS is not valid", _CHANGE),
    "ReservationInvalid": Why("its reservation is not valid", _CHANGE),
    "MaxMemPerLimit": Why("it asks for more memory than one job may have", _CHANGE),
    "NetworkNotAvail": Why("waits for its network", _ASK),
    "BurstBufferOperation": Why("an operation of its burst buffer failed", _ASK),
    "JobLaunchFailure": Why("it could not start", "check that the node can write to the run root"),
}
_LIMIT = re.compile(
    "(QOS|Association|Assoc)(Grp|Max|Min)?([A-Za-z]*?)(RunMinutes|Minutes)?"
    "(?:Per(Job|Node|User|Account|Acct))?(?:Limit|NotSatisfied)?"
)
_OWNERS = {"QOS": "its QOS", "Assoc": "its account", "Association": "its account"}
_THINGS = {
    "bb": "burst buffer",
    "billing": "billing units",
    "cpu": "CPUs",
    "energy": "energy",
    "gres": "GPUs",
    "job": "running jobs",
    "jobs": "running jobs",
    "license": "licenses",
    "mem": "memory",
    "memory": "memory",
    "node": "nodes",
    "resource": "resources",
    "submitjob": "jobs in the queue",
    "submitjobs": "jobs in the queue",
    "time": "time",
    "wall": "time",
    "wallduration": "time",
}


def explain(word: str, job: str) -> Why:
    """Return SLURM's reason for a job that waits in words, with SLURM's own word in brackets.

    Several reasons, which squeue prints for tasks that it lists together, are all explained.
    """
    why = _why(word)
    return Why(why.words, why.cure.format(job=job)) if why.cure else why


@lru_cache(maxsize=512)  # the tasks of an array share their reasons
def _why(word: str) -> Why:
    known = _REASONS.get(word) or _unavailable(word) or _limit(word) or _held(word)
    if known is None:
        return _several(word) or Why(word)
    return known if known.words == "queued" else Why(f"{known.words} ({word})", known.cure)


def _unavailable(word: str) -> Why | None:
    """Return the words for ``ReqNodeNotAvail, UnavailableNodes:n1`` and its like."""
    name = re.split("[,(]", word)[0].strip()
    return _REASONS.get(name) if name == "ReqNodeNotAvail" else None


def _several(word: str) -> Why | None:
    if not re.fullmatch("[A-Za-z]+(,[A-Za-z]+)+", word):
        return None
    whys = [_why(each) for each in word.split(",")]
    cures = dict.fromkeys(why.cure for why in whys if why.cure)
    return Why("; or ".join(why.words for why in whys), "; ".join(cures))


def _held(word: str) -> Why | None:
    if not re.search("held|hold", word, re.IGNORECASE) or "," in word:
        return None
    failed = "launch failed" in word
    return Why("held: SLURM could not start it" if failed else "held", _RELEASE)


def _limit(word: str) -> Why | None:
    """Return the words for a limit of a QOS or an association, such as ``QOSMaxCpuPerUserLimit``.

    What asks for more than one job may have never starts; any other limit is met when jobs end.
    """
    match = _LIMIT.fullmatch(word)
    if match is None:
        return None
    owner, kind, thing, minutes, each = match.groups()
    name = _THINGS.get(thing.lower(), thing or "jobs")
    what = f"{name.removesuffix('s')} minutes" if minutes else name
    per = {"Acct": " per account"}.get(each, f" per {each.lower()}") if each else ""
    limit = f"the limit of {_OWNERS[owner]} on {what}{per}"
    if kind == "Min":
        return Why(f"below {limit}: it will never start", _CHANGE)
    if each in ("Job", "Node") or (kind == "Max" and name == "time"):
        return Why(f"above {limit}: it will never start", _CHANGE)
    return Why(f"waits for {limit}")
