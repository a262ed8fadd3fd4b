"""A real sbatch and mtf read the same options in a script."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from mtf.core.sbatch.demand import demand_of
from mtf.core.sbatch.option_table import OPTIONS
from mtf.core.sbatch.read_script import JobOptions, ScriptOptionError, read_script
from tests.slurm_cluster import ClusterError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm

# Each is followed by a command. Where sbatch reads one of these, it gives the job another partition,
# time limit, comment or number of tasks.
READ = [
    "#SBATCH --partition high",
    "#SBATCH -phigh",
    "#SBATCH --part=high",
    "#SBATCH-p high",
    "#SBATCH --partition\n#SBATCH high",
    "#SLURM -p high",
    " #SBATCH -p high",
    "##SBATCH -p high",
    "# SBATCH -p high",
    "#sbatch -p high",
    "true\n#SBATCH -p high",
    "#SBATCH -p high\ntrue\n#SBATCH -p low",
    "\n \t\n# note\n#SBATCH -p high",
    "\u00a0\n#SBATCH -p high",
    "\x0b#\n#SBATCH -p high",
    "#SBATCH -p low\n#SBATCH -p high",
    "#SBATCH -p high # -p low",
    "#SBATCH -p 'high'",
    "#SBATCH '-p' high",
    '#SBATCH "--partition=high"',
    '#SBATCH --comment="a b # c" -p high',
    "#SBATCH --comment=a'b \"c'd",
    "#SBATCH --comment=\u00fc\u2028#SBATCH",
    "#SBATCH --comment= -p high",
    "#SBATCH -p high\x0b--time=5\x0c",
    "#SBATCH -HN2 -phigh",
    "#SBATCH -k -p high --nice -v --time=7",
    "#SBATCH --nice=5 --tasks-per-node=2",
    "#SBATCH --tasks=3 --cpus-per-t 2",
    "#SBATCH -p high --",
    "#SBATCH --time=1-2:3 -n3 -c2",
    "#SBATCH --time=0",
    "#SBATCH -N2-3 --mincpus=2",
]
REFUSED_BY_BOTH = [
    "#SBATCHx -p high",
    "#SBATCH high",
    "#SBATCH -H-p high",
    "#SBATCH -- -p high",
    "#SBATCH --time",
    "#SBATCH --hold=1",
    "#SBATCH --ti 5",
    "#SBATCH --mem-per 100",
    "#SBATCH --comment='",
    "#SBATCH : -p high",
    "#SBATCH - -p high",
]
# sbatch reads these in ways that differ between versions, or that nobody expects.
REFUSED_BY_MTF = [
    "true\n#PBS -l walltime=9:00",
    "#SBATCH '' -p high",
    "#SBATCH -p low hetjob -p high",
]


def submitted(cluster: Cluster, folder: Path, directives: str) -> dict[str, str]:
    """Return facts that SLURM shows of a held job with these directives."""
    script = folder / "job.sh"
    script.write_text(f"#!/bin/bash\n{directives}\ntrue\n", newline="")
    answer = cluster.run("sbatch", "--hold", "--parsable", "--output=/dev/null", str(script))
    if not answer.strip():
        raise ClusterError("no job")
    text = cluster.run("scontrol", "--oneliner", "show", "job", answer.strip())
    names = r"Partition|TimeLimit|Comment|NumNodes|NumCPUs|NumTasks|CPUs/Task|Licenses"
    return dict(
        re.findall(rf"(?:^| )({names})=(.*?)(?= +[A-Z][A-Za-z/:]*=| *$)", text, re.MULTILINE)
    )


def as_words(options: JobOptions) -> str:
    """Return the options as words for one more script, written in the plainest way."""
    return "\n".join(
        f"#SBATCH --{o.name}" + ("" if o.value is None else f"='{o.value}'") for o in options.all
    )


@pytest.mark.parametrize("directives", READ)
def test_sbatch_and_mtf_read_the_same_options(
    cluster: Cluster, tmp_path: Path, directives: str
) -> None:
    seen = submitted(cluster, tmp_path, directives)
    options = read_script(f"#!/bin/bash\n{directives}\ntrue\n")
    assert submitted(cluster, tmp_path, as_words(options)) == seen
    demand = demand_of(options)
    assert (demand.partition or "low") == seen["Partition"]
    assert (options.values.get("comment") or "") == seen.get("Comment", "")
    assert (demand.hours is None) is (seen["TimeLimit"] == "UNLIMITED")
    assert demand.nodes is not None
    assert demand.nodes >= int(seen["NumNodes"].split("-")[0])
    assert demand.cpus is not None
    assert demand.cpus >= int(seen["NumCPUs"].split("-")[0])


@pytest.mark.parametrize("directives", REFUSED_BY_BOTH)
def test_sbatch_and_mtf_refuse_the_same_scripts(
    cluster: Cluster, tmp_path: Path, directives: str
) -> None:
    with pytest.raises(ClusterError):
        submitted(cluster, tmp_path, directives)
    with pytest.raises(ScriptOptionError):
        read_script(f"#!/bin/bash\n{directives}\ntrue\n")


@pytest.mark.parametrize("directives", REFUSED_BY_MTF)
def test_mtf_refuses_what_sbatch_reads_in_an_unexpected_way(
    cluster: Cluster, tmp_path: Path, directives: str
) -> None:
    plain = submitted(cluster, tmp_path, "#SBATCH -p high")
    assert submitted(cluster, tmp_path, directives) != plain
    with pytest.raises(ScriptOptionError):
        read_script(f"#!/bin/bash\n{directives}\ntrue\n")


def test_the_table_has_every_option_that_sbatch_lists(cluster: Cluster) -> None:
    usage = cluster.run("sbatch", "--help")
    listed = set(re.findall(r"--([a-z][a-z-]+[a-z])", usage))
    assert len(listed) > 60
    assert listed - OPTIONS.keys() == set()
