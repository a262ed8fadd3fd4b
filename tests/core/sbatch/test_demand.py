"""What a job may take by its options. tests/slurm compares it with what SLURM gives."""

from __future__ import annotations

import pytest

from mtf.core.review.costs import cost_of
from mtf.core.sbatch.demand import Demand, demand_of, gpu_count
from mtf.core.sbatch.read_script import read_script
from mtf.core.sbatch.section_options import section_demand
from tests.executor.contract import resources


def rows(table: str) -> list[tuple[str, float | None]]:
    """Return the rows of a table: options, and the amount that is expected."""
    pairs = (line.split(" => ") for line in table.strip().split("\n"))
    return [(words, None if amount == "None" else float(amount)) for words, amount in pairs]


def demand(words: str) -> Demand:
    return demand_of(read_script(f"#SBATCH {words}\n"))


GPUS = """
--hold => 0
--gres=gpu => 1
--gres=gpu:2 => 2
--gres=gres:gpu:2 => 2
--gres=gres/gpu:a100:2 => 2
--gres=gpu:+2 => 2
--gres=gpu:a100 => 1
--gres=gpu:a100:2,gpu:v100:1,nvme:4 => 3
--gres=gpu:2 -N3 => 6
--gres=gpu:1 -N2-4 => 4
--gres=nvme:2 => 0
--gres=none => 0
--gres=gpu:2(S:0-1) => 2
--gres=GPU:2 => 2
--gres=gpu:1k => 1024
--gres=shard:4 => 4
--gres=mps:400 => 1
--gpus=3 => 3
-G3 -N2 => 3
--gpus=+3 => 3
--gpus=a100:2,v100:1 => 3
--gpus-per-node=2 -N2 => 4
--gpus-per-node=2 --gres=gpu:2 => 2
--gpus-per-node=a:2 --gres=gpu:b:2 => 4
--gpus-per-task=2 -n4 => 8
--gpus-per-task=+2 --ntasks-per-node=2 -N2 => 8
--gpus-per-task=a100:1 -n2 => 2
--gpus-per-socket=2 --sockets-per-node=2 -N2 => 8
--tres-per-task=cpu:4,gres/gpu:2 -n3 => 6
--tres-per-task=gres/gpu:a100:2 => 2
--tres-per-task=gres/gpu=2 => 2
--gpus=0 => 0
--gpus-per-socket=2 => None
--gres=gpu:a:b:c => None
--gpus=many => None
--gres=xgres:gpu:2 => None
--exclusive => None
--core-spec=1 => None
--gres=gpu:1 -N1-0 => None
--gres=gpu:1 -w n[1-4] => None
--gpus-per-task=1 --ntasks=many => None
"""


@pytest.mark.parametrize(("words", "gpus"), rows(GPUS))
def test_gpus_are_counted_in_every_spelling(words: str, gpus: float | None) -> None:
    assert demand(words).gpus == gpus


CPUS = """
--hold => 1
-c4 => 4
-n8 -c2 => 16
-N2 --ntasks-per-node=3 -c2 => 12
-N2 --tasks-per-node=3 => 6
--mincpus=3 -N2 => 6
--cpus-per-gpu=4 --gpus=2 => 8
--tres-per-task=cpu:4 -n2 => 8
--ntasks-per-gpu=2 --gpus=3 => 6
--gpus=6 --gpus-per-task=2 -c2 => 12
-c +2 => 2
-w n1,n2 => 2
--exclusive => None
--exclusive=user => None
-B2:4 => None
--hint=nomultithread => None
--threads-per-core=1 => None
--ntasks-per-socket=1 => None
--ntasks-per-core=1 => None
-S1 => None
-n many => None
"""


@pytest.mark.parametrize(("words", "cpus"), rows(CPUS))
def test_cpus_are_counted_or_without_bound(words: str, cpus: float | None) -> None:
    assert demand(words).cpus == cpus


HOURS = """
-t60 => 1
--time=0:30 => 0.008333333333333333
--time=1:00:00 => 1
--time=1-0 => 24
--time=1-00:30 => 24.5
--time=0 => None
--time=00:00:00 => None
--time=0-0 => None
--time=UNLIMITED => None
--time=infinite => None
--time=-1 => None
--hold => None
--time=soon => None
--time=1073741824 => None
"""


@pytest.mark.parametrize(("words", "hours"), rows(HOURS))
def test_hours_are_the_time_limit_and_zero_is_none(words: str, hours: float | None) -> None:
    assert demand(words).hours == hours


MEMORY = """
--hold => None
--mem=2G => 2048
--mem=2gb => 2048
--mem=2000M => 2000
--mem=800 => 800
--mem=100k => 1
--mem=1T => 1048576
--mem=0 => None
--mem=lots => None
--mem-per-cpu=1G -n2 -c3 => 6144
--mem-per-gpu=8G --gpus-per-node=a100:2,h100:1 => 24576
--mem=2G --mem-per-cpu=4G => 4096
"""


@pytest.mark.parametrize(("words", "memory"), rows(MEMORY))
def test_memory_is_counted_in_mib_and_zero_is_all_of_the_node(
    words: str, memory: float | None
) -> None:
    assert demand(words).memory_mb == memory


@pytest.mark.parametrize(("asked", "number"), [(0, 0), (3, 3), ("a100:2", 2), ("a:1,b:2", 3)])
def test_gpus_are_counted_with_and_without_their_types(asked: int | str, number: int) -> None:
    assert gpu_count(asked) == number
    needs = resources(gpus_per_node=asked, time="1-0", nodes=2)
    assert section_demand(needs).gpus == 2 * number
    assert cost_of(section_demand(needs)).gpu_hours == 24 * 2 * number


NODES = """
--hold => 1
-N3 => 3
-N 1-4 => 4
-N 1,8,2-6:2 => 8
-n5 => 5
-w a,b,c => 3
-N1 -w a,b => 2
-N 2- => None
-N1-0 => None
-N0 => None
-N2k => None
"""


@pytest.mark.parametrize(("words", "nodes"), rows(NODES))
def test_nodes_are_at_most_the_greatest_number(words: str, nodes: float | None) -> None:
    assert demand(words).nodes == nodes


@pytest.mark.parametrize(
    "words",
    [
        "--gpus={} -t5",
        "-N{}",
        "-n{}",
        "-c{}",
        "--gres=gpu:{}",
        "--time={}",
        "--time={}-0",
        "--mincpus={}",
        "--tres-per-task=cpu:{}",
        "--gpus-per-task=1 -n{}",
    ],
)
def test_numbers_of_any_length_have_no_bound(words: str) -> None:
    found = demand(words.format("9" * 5000))
    assert None in (found.gpus, found.cpus, found.hours, found.nodes)
    assert None in (cost_of(found).cpu_hours, cost_of(found).gpu_hours)


def test_partition_and_account_are_those_that_count() -> None:
    found = demand("-p low -A a --part=high,low --account=b")
    assert (found.partition, found.account) == ("high,low", "b")
