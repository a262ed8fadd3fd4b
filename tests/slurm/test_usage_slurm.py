"""What a real SLURM says that jobs have used."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf.executor.slurm.slurm_executor import SlurmExecutor
from tests.executor.contract import Bench

if TYPE_CHECKING:
    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm
SNIPPET = """
if [ "$MTF_INDEX" = 1 ]; then
  srun python3 -c 'kept = bytearray(b"x") * (150 << 20); import time; time.sleep(3)'
fi
"""


def test_the_accounting_tells_the_memory_of_each_task_of_an_array(
    cluster: Cluster, tmp_path: Path
) -> None:
    tmp_path.chmod(0o755)
    shipped = Path(__file__).parents[2] / "templates" / "job.sbatch.j2"
    head = shipped.read_text().split("srun", 1)[0].rsplit("\n\n", 1)[0]
    text = f"{head}\nif false; then srun {{{{ command }}}}; fi\n{SNIPPET}\n"
    bench = Bench(SlurmExecutor({"job.sbatch.j2": text}), tmp_path / "runs")
    request = bench.request((0, 1), extra=["--acctg-freq=task=1"])
    jobs = bench.submit(request)
    bench.wait_ended(request)
    end = time.monotonic() + 60
    small, large = dict[str, float](), dict[str, float]()
    while "peak_memory_mb" not in small or large.get("peak_memory_mb", 0) < 100:
        assert time.monotonic() < end, (small, large)
        time.sleep(0.3)
        used = bench.executor.used(list(jobs.values()), bench.since)
        small, large = dict(used.get(jobs[0], {})), dict(used.get(jobs[1], {}))
    assert 0 < small["peak_memory_mb"] < 100
    assert 150 < large["peak_memory_mb"] < 400
    assert large["cpu_s"] > 0
    assert bench.executor.used([], bench.since) == {}
