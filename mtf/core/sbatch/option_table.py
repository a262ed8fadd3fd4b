"""The options of sbatch: a closed table with what mtf makes of each.

It holds the options of sbatch in SLURM 22.05 to 26.05. An option that is not in it, such as one
that a site's plugin adds, is refused unless the policies allow it by name.

Source: ``src/common/slurm_opt.c`` of SLURM, and sbatch(1).
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping


class Kind(Enum):
    """What mtf makes of an option in a job script."""

    OURS = "set by mtf"  # must have the value that mtf gives it
    COUNTED = "counted"  # says what the job takes: policies look at it
    HARMLESS = "harmless"  # changes neither what the job takes nor whose it is
    BY_PERMISSION = "needs permission"  # refused unless the policies allow it by name
    REFUSED = "refused"  # would take the job out of mtf's hands, or read the submitter's files


class Argument(Enum):
    """Whether an option takes an argument."""

    NONE = "none"
    OPTIONAL = "optional"  # --name=value, or --name alone
    REQUIRED = "required"


class SbatchOption(NamedTuple):
    """One option of sbatch; its long name without the hyphens."""

    name: str
    short: str | None
    argument: Argument
    kind: Kind


def _options(kind: Kind, text: str) -> dict[str, SbatchOption]:
    """Return options from words like ``name``, ``name=``, ``name=?`` or ``name=/n`` (short)."""
    found = {}
    for word in text.split():
        long, _, short = word.partition("/")
        name, equals, mark = long.partition("=")
        argument = Argument.OPTIONAL if mark else Argument.REQUIRED if equals else Argument.NONE
        found[name] = SbatchOption(name, short or None, argument, kind)
    return found


OPTIONS: Mapping[str, SbatchOption] = {
    **_options(
        Kind.OURS,
        """
        array=/a comment= error=/e job-name=/J no-requeue open-mode= output=/o requeue=? signal=
        """,
    ),
    **_options(
        Kind.COUNTED,
        """
        account=/A core-spec=/S cores-per-socket= cpus-per-gpu= cpus-per-task=/c exclusive=?
        extra-node-info=/B gpus=/G gpus-per-node= gpus-per-socket= gpus-per-task= gres= hint= mem=
        mem-per-cpu= mem-per-gpu= mincpus= nodelist=/w nodes=/N ntasks=/n ntasks-per-core=
        ntasks-per-gpu= ntasks-per-node= ntasks-per-socket= ntasks-per-tres= partition=/p
        sockets-per-node= tasks-per-node= thread-spec= threads-per-core= time=/t tres-per-task=
        """,
    ),
    **_options(
        Kind.HARMLESS,
        """
        acctg-freq= begin=/b consolidate-segments constraint=/C contiguous cpu-freq= deadline=
        delay-boot= distribution=/m exclude=/x gpu-bind= gpu-freq= gres-flags= hold/H licenses=/L
        mail-type= mail-user= mem-bind= nice=? no-kill=?/k oom-kill-step=? overcommit/O
        oversubscribe/s prefer= profile= propagate=? qos=/q quiet/Q reservation= resv-ports=?
        segment= spread-job spread-segments stepmgr switches= time-min= tmp= tres-bind=
        use-min-nodes verbose/v wait-all-nodes= wckey=
        """,
    ),
    **_options(
        Kind.BY_PERMISSION,
        """
        batch= bb= container= container-id= container-type= context= extra= mcs-label= mem-update=
        network= power= priority= reboot resources=
        """,
    ),
    **_options(
        Kind.REFUSED,
        """
        autocomplete= bbf= chdir=/D cluster= cluster-constraint= clusters=/M dependency=/d export=
        export-file= external get-user-env=? gid= help/h ignore-pbs input=/i kill-on-invalid-dep=
        nodefile=/F parsable test-only uid= usage version/V wait/W wrap=
        """,
    ),
}
# Other names of the same option.
ALIASES: Mapping[str, str] = {"tasks-per-node": "ntasks-per-node", "cluster": "clusters"}
BY_SHORT: Mapping[str, SbatchOption] = {o.short: o for o in OPTIONS.values() if o.short}


def candidates(name: str) -> tuple[str, ...]:
    """Return the long options that a name may mean: itself, or all that begin with it.

    getopt_long accepts any beginning that fits one option only. Which ones fit depends on the
    version of SLURM: a beginning that is unambiguous among all options here is so in each version.
    """
    if name in OPTIONS:
        return (name,)
    return tuple(option for option in OPTIONS if option.startswith(name))
