"""SLURM's programs: whether they are here, what they get of our environment, what they answer."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mtf import proc
from mtf.errors import ExecutorUnavailableError, MtfError

ASK_S = 60.0  # slurmctld's own time-outs are 10 s a try
_AT_ONCE_S = 3.0
# What SLURM's programs, and by sbatch the jobs, get of our environment: no secrets, and nothing
# like SBATCH_PARTITION, SQUEUE_USERS or an outer job's SLURM_*, which would change their answers.
_KEPT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH",
         "SLURM_CONF", "MODULEPATH", "MODULESHOME", "LMOD_CMD", "LMOD_DIR", "LMOD_PKG",
         "BASH_ENV")  # fmt: skip


def available() -> bool:
    """Return whether this host belongs to a cluster: sbatch is there, and knows a controller.

    A controller that does not answer now still counts: jobs of a cluster do not become local ones.
    """
    answer = _ping(ASK_S)
    lacking = ("configuration source", "No such file")
    if answer is None:
        return False
    return answer.code == 0 or not any(words in answer.stderr for words in lacking)


def answers() -> bool:
    """Return whether this host's cluster answers now, and at once: for what can do without."""
    answer = _ping(_AT_ONCE_S)
    return answer is not None and answer.code == 0


def _ping(timeout_s: float) -> proc.Output | None:
    named = os.environ.get("SLURM_CONF")
    if shutil.which("sbatch") is None or (named and not Path(named).exists()):
        return None
    try:
        return proc.run(("scontrol", "ping"), timeout_s=timeout_s, env=environment())
    except MtfError:
        return None


def ask(*command: str) -> proc.Output:
    """Return what one of SLURM's programs answers, whatever that is.

    Raises:
        ExecutorUnavailableError: it is not there, or takes too long.
    """
    try:
        return proc.run(command, timeout_s=ASK_S, env=environment())
    except MtfError as e:
        raise ExecutorUnavailableError(str(e)) from e


def query(*command: str) -> str:
    """Return what one of SLURM's programs prints.

    Raises:
        ExecutorUnavailableError: it does not answer.
    """
    answer = ask(*command)
    if answer.code:
        raise ExecutorUnavailableError(answer.stderr.strip() or f"{' '.join(command)} failed")
    return answer.stdout


def configuration() -> dict[str, str]:
    """Return the cluster's configuration, as ``scontrol show config`` prints it.

    Raises:
        ExecutorUnavailableError: it does not answer.
    """
    pairs = (line.partition("=") for line in query("scontrol", "show", "config").splitlines())
    return {name.strip(): value.strip() for name, equals, value in pairs if equals}


def environment() -> dict[str, str]:
    """Return what SLURM's programs get of our environment."""
    return {name: os.environ[name] for name in _KEPT if name in os.environ}
