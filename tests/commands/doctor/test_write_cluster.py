"""`mtf doctor --write`: writing the facts of the cluster into mtf.yaml."""

from __future__ import annotations

import pytest

from mtf.commands.doctor.write_cluster import with_section
from mtf.spec.schema.settings import parse_settings

SECTION = {
    "name": "big",
    "partitions": {"low": {"nodes": [{"count": 2, "cpus": 4, "mem": "8000M"}]}},
}
WRITTEN = """\
cluster:{comment}
  name: big
  partitions:
    low:
      nodes: [{{count: 2, cpus: 4, mem: 8000M}}]
"""


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", WRITTEN.format(comment="")),
        ("# ours\n", "# ours\n" + WRITTEN.format(comment="")),
        (
            "# ours\nbranch: 'main'  # tracked\n\n# who runs it\ncluster: big  # the one\n"
            "slurm: {time: 00:10:00}\n# end\n",
            "# ours\nbranch: 'main'  # tracked\n\n# who runs it\n"
            + WRITTEN.format(comment="      # the one")
            + "slurm: {time: 00:10:00}\n# end\n",
        ),
    ],
)
def test_the_rest_of_the_file_stays_as_it_is(before: str, after: str) -> None:
    assert with_section(before, SECTION) == after
    assert with_section(after, SECTION) == after
    facts = parse_settings(after.encode()).cluster.facts()
    assert facts is not None
    assert facts.partitions[0].nodes[0].memory_mb == 8000
