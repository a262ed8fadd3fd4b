"""The ``slurm`` section: resources and environment of a job.

The types are so strict that no value can add anything to the job script.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from mtf.core.sbatch.option_table import OPTIONS, Kind, candidates
from mtf.core.sbatch.read_script import ScriptOptionError, parse_words
from mtf.spec.schema.error_messages import shown
from mtf.spec.schema.slurm_values import Gpus, Memory, Requeue, Time
from mtf.spec.schema.strict import Strict
from mtf.spec.schema.text_types import Image, Prefix, Variables, Word, matching

_OPTION = re.compile(r"--([a-z][a-z0-9-]*)(=[A-Za-z0-9_.@:/+,=%*&|()\[\]-]+)?")
_HAVE_KEYS = (
    "partition",
    "account",
    "qos",
    "nodes",
    "ntasks-per-node",
    "gpus-per-node",
    "cpus-per-task",
    "mem",
    "time",
    "constraint",
    "reservation",
)


# options by which SLURM starts another number of processes than the keys of the section say
_OF_PROCESSES = ("ntasks", "ntasks-per-gpu", "ntasks-per-tres")


def _option(text: str) -> str:
    match = _OPTION.fullmatch(text)
    if not match:
        raise ValueError(
            f"expected one sbatch option like --exclusive or --gres=gpu:1, got {shown(text)}"
        )
    names = candidates(match[1])
    if own := [name for name in names if name in _HAVE_KEYS]:
        raise ValueError(
            f"{shown(text)} has a key of its own. Write slurm.{own[0].replace('-', '_')}"
        )
    if any(name in _OF_PROCESSES for name in names):
        raise ValueError(
            f"{shown(text)} sets the number of processes. Write slurm.nodes and"
            " slurm.ntasks_per_node"
        )
    if any(OPTIONS[name].kind is Kind.OURS for name in names):
        raise ValueError(f"{shown(text)} is set by mtf itself. Remove it")
    if any(OPTIONS[name].kind is Kind.REFUSED for name in names):
        raise ValueError(f"{shown(text)} is not allowed in jobs of mtf. Remove it")
    try:
        parse_words([(text, 0)])
    except ScriptOptionError as e:
        raise ValueError(str(e)) from None
    return text


Constraint = Annotated[
    str,
    matching(r"[A-Za-z0-9_(\[][A-Za-z0-9_.:/+,=&|*()\[\]-]*", "a node constraint like a100&nvlink"),
]
Option = Annotated[str, AfterValidator(_option)]


class Environment(Strict):
    """The environment of a job."""

    modules: list[Word] = Field(default_factory=list)
    """Environment modules that jobs load."""
    venv: Prefix | None = None
    """Virtual environment that jobs activate."""
    conda: Prefix | None = None
    """Conda environment, name or path, that jobs activate."""
    container: Image | None = None
    """Container image that jobs run in."""
    variables: Variables = Field(default_factory=dict)
    """Environment variables of jobs."""

    @model_validator(mode="after")
    def _one_environment(self) -> Self:
        if self.venv and self.conda:
            raise ValueError("venv and conda cannot be combined. Keep one of them")
        return self


class SLURMConfig(Environment):
    """Resources, settings and environment of a run's job. Null: the cluster's default."""

    partition: Word | None = None
    """Partition, or several separated by commas."""
    account: Word | None = None
    """Account to charge."""
    qos: Word | None = None
    """Quality of service."""
    nodes: int = Field(default=1, ge=1)
    """Number of nodes."""
    ntasks_per_node: int = Field(default=1, ge=1)
    """Processes on each node, one for each rank of the training."""
    gpus_per_node: Gpus = 0
    """GPUs on each node: a number, or their types like "a100:2"."""
    cpus_per_task: int = Field(default=1, ge=1)
    """CPU cores for each process."""
    mem: Memory | None = None
    """Memory on each node, like 2G; a bare number means MiB, and 0 all of the node's."""
    time: Time | None = None
    """Time limit: minutes, or as SLURM writes it ("00:10:00", "1-12:00:00", "UNLIMITED")."""
    constraint: Constraint | None = None
    """Features that the nodes must have."""
    reservation: Word | None = None
    """Reservation to use."""
    signal_lead: int = Field(default=90, ge=1, le=65535)
    """Seconds before the time limit at which the training is asked to save and stop."""
    signal: Literal["USR1", "USR2"] = "USR1"
    """Signal that asks the training to save and stop ahead of the time limit."""
    requeue: Requeue = True
    """True: the job is requeued after a preemption and shortly before its time limit. Expedite:
    after the failure of a node, SLURM 25.11 and later also start it ahead of other jobs."""
    extra: list[Option] = Field(default_factory=list)
    """Further sbatch options, each like "--exclusive"."""
