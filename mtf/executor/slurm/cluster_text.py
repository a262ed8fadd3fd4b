"""Parses the cluster's facts from the output of SLURM's programs. Pure."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING

from mtf.core.vocabulary.cluster import ClusterFacts, NodeShape, Partition
from mtf.core.vocabulary.times import time_limit_s
from mtf.executor.slurm.job_text import number_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SINFO_FORMAT = "%P|%D|%c|%m|%G"  # one line for all equal nodes of a partition
ASSOCIATION_FIELDS = ("Account", "QOS", "MaxSubmitJobs")
QOS_FIELDS = ("Name", "MaxSubmitJobsPU")
_GPUS = re.compile(r"\bgpu(?::[A-Za-z][^:,(]*)?:([0-9]{1,9})")


def parse_facts(
    config: Mapping[str, str], partitions: str, nodes: str, associations: str, qos: str
) -> ClusterFacts:
    """Return the facts of a cluster.

    Args:
        config: from ``scontrol show config``.
        partitions: output of ``scontrol --oneliner show partition``.
        nodes: output of ``sinfo`` with ``SINFO_FORMAT``.
        associations: output of ``sacctmgr`` for the user with ``ASSOCIATION_FIELDS``; empty if
            SLURM does not enforce associations.
        qos: output of ``sacctmgr`` for all QOS with ``QOS_FIELDS``; empty likewise.
    """
    shapes = _shapes(nodes)
    rows = _rows(associations, len(ASSOCIATION_FIELDS))
    allowed = {name for _, names, _ in rows for name in names.split(",") if name}
    limits = dict(_rows(qos, len(QOS_FIELDS)))
    numbers = [config.get("MaxJobCount", ""), *(most for *_, most in rows)]
    numbers += [limits.get(name, "") for name in allowed] if len(allowed) == 1 else []
    return ClusterFacts(
        partitions=tuple(_partitions(partitions, shapes)),
        accounts=frozenset(account for account, *_ in rows) if rows else None,
        qos=frozenset(allowed) if allowed else None,
        max_array_size=number_in(config.get("MaxArraySize", "")),
        max_submit_jobs=min((n for n in map(number_in, numbers) if n is not None), default=None),
        version=config.get("SLURM_VERSION", ""),
        is_live=True,
    )


def _shapes(printed: str) -> dict[str, list[NodeShape]]:
    shapes: dict[str, list[NodeShape]] = defaultdict(list)
    for name, count, cpus, memory, gres in _rows(printed, 5):
        gpus = sum(map(int, _GPUS.findall(gres)))
        shape = NodeShape(number_in(count) or 0, _at_least(cpus), _at_least(memory), gpus)
        if shape.count:
            shapes[name.rstrip("*")].append(shape)
    return shapes


def _partitions(printed: str, shapes: Mapping[str, list[NodeShape]]) -> Iterable[Partition]:
    for line in printed.splitlines():
        values = dict(re.findall(r"(\w+)=(\S*)", line))
        if "PartitionName" in values:
            name, limit = values["PartitionName"], values.get("MaxTime", "UNLIMITED")
            yield Partition(
                name=name,
                nodes=tuple(shapes.get(name, ())),
                is_default=values.get("Default") == "YES",
                max_time_s=_time_limit_s(limit),
                max_nodes=number_in(values.get("MaxNodes", "")),
                accounts=_names(values.get("AllowAccounts", "ALL")),
                qos=_names(values.get("AllowQos", "ALL")),
            )


def _rows(printed: str, width: int) -> list[list[str]]:
    rows = (line.split("|") for line in printed.splitlines())
    return [row for row in rows if len(row) == width]


def _names(text: str) -> frozenset[str] | None:
    return None if text in ("", "ALL", "N/A", "(null)") else frozenset(text.split(","))


def _time_limit_s(text: str) -> int | None:
    try:
        return time_limit_s(text) if text[:1].isdigit() else None
    except ValueError:
        return None


def _at_least(text: str) -> int:
    return number_in(re.sub(r"[^0-9].*", "", text)) or 0  # "8000+": the smallest of several nodes
