"""Parsing the facts of a cluster from the output of SLURM's programs."""

from __future__ import annotations

from mtf.core.vocabulary.cluster import ClusterFacts, NodeShape, Partition
from mtf.executor.slurm.cluster_text import parse_facts

PARTITIONS = (
    "PartitionName=low AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=YES MaxNodes=UNLIMITED"
    " MaxTime=1-00:00:00 Nodes=n[1-4] State=UP\n"
    "PartitionName=gpu AllowAccounts=lab,class AllowQos=high Default=NO MaxNodes=2 MaxTime=UNLIMITED\n"
)
NODES = (
    "low*|3|4|8000|(null)\nlow*|1|16|64000+|(null)\n"
    "gpu|2|32|256000|gpu:a100:4(S:0-1),nvme:1\ngpu|1|32|256000|gpu:2\ngpu|0|1|1|\n"
)
CONFIG = {"MaxArraySize": "1001", "MaxJobCount": "10000"}


def test_partitions_are_read_with_their_nodes_and_users() -> None:
    assert parse_facts(CONFIG, PARTITIONS, NODES, "", "") == ClusterFacts(
        partitions=(
            Partition("low", (NodeShape(3, 4, 8000), NodeShape(1, 16, 64_000)), True, 86400),
            Partition("gpu", (NodeShape(2, 32, 256_000, 4), NodeShape(1, 32, 256_000, 2)),
                      max_nodes=2, accounts=frozenset({"lab", "class"}), qos=frozenset({"high"})),
        ),
        max_array_size=1001,
        max_submit_jobs=10_000,
        is_live=True,
    )  # fmt: skip


def test_a_users_associations_limit_accounts_qos_and_jobs() -> None:
    facts = parse_facts(
        CONFIG, PARTITIONS, NODES, "lab|normal|500\nclass|normal|\n", "normal|200\nhigh|\n"
    )
    assert (facts.accounts, facts.qos) == (frozenset({"lab", "class"}), frozenset({"normal"}))
    assert facts.max_submit_jobs == 200
