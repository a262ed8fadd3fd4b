"""Runs SLURM's programs, in an environment without secrets, and checks that they answer."""

from __future__ import annotations

import os
import shutil
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import proc
from mtf.errors import ExecutorUnavailableError, MtfError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ASK_S = 60.0  # slurmctld's own time-outs are 10 s a try
_QUICK_S = 3.0
# The variables that SLURM's programs inherit, and by sbatch the jobs: no secrets, and nothing like
# SBATCH_PARTITION, SQUEUE_USERS or SLURM_* of an outer job, which would change their answers.
_USER = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ")
_MODULES = ("MODULEPATH", "MODULESHOME", "LMOD_CMD", "LMOD_DIR", "LMOD_PKG")
_INHERITED = (*_USER, *_MODULES, "LD_LIBRARY_PATH", "SLURM_CONF", "BASH_ENV")


# Variables of users with which SLURM's programs would answer differently.
_UNUSED = ("SBATCH_", "SLURM_", "SQUEUE_", "SACCT_", "SINFO_", "SCONTROL_", "SCANCEL_", "SACCTMGR_")
# The keys of ``slurm`` that say what a variable of sbatch says. Source: sbatch(1).
_KEYS = {
    "SBATCH_ACCOUNT": "account",
    "SBATCH_CONSTRAINT": "constraint",
    "SBATCH_GPUS_PER_NODE": "gpus_per_node",
    "SBATCH_MEM_PER_NODE": "mem",
    "SBATCH_NO_REQUEUE": "requeue",
    "SBATCH_PARTITION": "partition",
    "SBATCH_QOS": "qos",
    "SBATCH_REQUEUE": "requeue",
    "SBATCH_RESERVATION": "reservation",
    "SBATCH_SIGNAL": "signal",
    "SBATCH_TIMELIMIT": "time",
}


def unused_variables() -> dict[str, str]:
    """Return the variables of SLURM's programs that are set and not passed on, and their keys.

    The key is that of the section ``slurm`` which says the same, "extra" for other options of
    sbatch, and empty where nothing is lost, as for the formats of tables. Inside a job, SLURM_*
    describe that job.
    """
    prefixes = [p for p in _UNUSED if p != "SLURM_" or "SLURM_JOB_ID" not in os.environ]
    names = sorted(n for n in os.environ if n.startswith(tuple(prefixes)) and n not in _INHERITED)
    return {n: _KEYS.get(n, "extra") if n.startswith("SBATCH_") else "" for n in names}


def unused_options() -> str:
    """Return a sentence on the options of sbatch that the environment sets in vain, or ""."""
    lost = {name: key for name, key in unused_variables().items() if key}
    if not lost:
        return ""
    keys = ", ".join(f"slurm.{key}" for key in dict.fromkeys(lost.values()))
    verb = "is" if len(lost) == 1 else "are"
    return (
        f"{', '.join(lost)} {verb} set here, and mtf passes no SBATCH_* on: set {keys} in mtf.yaml"
    )


def available() -> bool:
    """Return True if this host belongs to a cluster: sbatch exists and knows a controller.

    A controller that does not answer now still counts, so that jobs for a cluster never run
    locally.
    """
    answer = _ping(ASK_S)
    not_configured = ("configuration source", "No such file")
    if answer is None:
        return False
    return answer.code == 0 or not any(words in answer.stderr for words in not_configured)


def answers() -> bool:
    """Return True if the cluster answers within seconds, for callers that can work without it."""
    answer = _ping(_QUICK_S)
    return answer is not None and answer.code == 0


def _ping(timeout_s: float) -> proc.Output | None:
    config = os.environ.get("SLURM_CONF")
    if shutil.which("sbatch") is None or (config and not Path(config).exists()):
        return None
    try:
        return proc.run(("scontrol", "ping"), timeout_s=timeout_s, env=environment())
    except MtfError:
        return None


@dataclass
class _Patience:
    """How long a person waits for SLURM, and the programs that have exhausted that.

    Attributes:
        limit_s: for each program.
        exhausted: the messages of the programs that did not answer, by their names.
    """

    limit_s: float
    exhausted: dict[str, str] = field(default_factory=dict)


_patience: ContextVar[_Patience | None] = ContextVar("patience", default=None)


@contextmanager
def patience(limit_s: float) -> Iterator[None]:
    """Return a context whose programs have ``limit_s`` seconds each, and get no second chance."""
    before = _patience.set(_Patience(limit_s))
    try:
        yield
    finally:
        _patience.reset(before)


def run(
    command: Sequence[str], env: Mapping[str, str] | None = None, *, timeout_s: float = ASK_S
) -> proc.Output:
    """Run one of SLURM's programs that only asks or cancels; return its exit code and output.

    Raises:
        ProgramMissingError: the program does not exist.
        ProgramTimeoutError: it did not answer in time, and was ended.
    """
    patience = _patience.get()
    if patience is not None and (why := patience.exhausted.get(command[0])):
        raise proc.ProgramTimeoutError(why)
    limit_s = timeout_s if patience is None else min(timeout_s, patience.limit_s)
    try:
        return proc.run(command, timeout_s=limit_s, env=environment() if env is None else env)
    except proc.ProgramTimeoutError as e:
        if patience is not None:
            patience.exhausted[command[0]] = str(e)
        raise


def ask(*command: str) -> proc.Output:
    """Run one of SLURM's programs; return its exit code and output.

    Raises:
        ExecutorUnavailableError: the program does not exist or takes too long.
    """
    try:
        return run(command)
    except MtfError as e:
        raise ExecutorUnavailableError(str(e)) from e


def query(*command: str) -> str:
    """Run one of SLURM's programs; return what it prints.

    Raises:
        ExecutorUnavailableError: it fails or does not answer.
    """
    answer = ask(*command)
    if answer.code:
        raise ExecutorUnavailableError(answer.stderr.strip() or f"{' '.join(command)} failed")
    return answer.stdout


def configuration() -> dict[str, str]:
    """Return the cluster's configuration, as ``scontrol show config`` prints it.

    Raises:
        ExecutorUnavailableError: SLURM does not answer.
    """
    pairs = (line.partition("=") for line in query("scontrol", "show", "config").splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def environment() -> dict[str, str]:
    """Return the environment for SLURM's programs."""
    return {name: os.environ[name] for name in _INHERITED if name in os.environ}
