"""What sacct says that jobs have used: the right lines and units."""

from __future__ import annotations

from mtf.executor.slurm.job_text import SEPARATOR
from mtf.executor.slurm.usage_text import parse_usage

# JobID, TotalCPU, MaxRSS, NTasks, NNodes, TRESUsageInMax, TRESUsageInTot, TRESUsageInAve
JOB = """\
31_0|01:02.500|||1|||
31_0.batch|00:00.012|12348K|1|1|cpu=00:00:00,mem=12348K|cpu=00:00:00,mem=12348K|cpu=00:00:00,mem=12348K
31_0.extern|00:00:00|1M|1|1|mem=1M|mem=1M|mem=1M
31_0.0|01:00.000|320492K|1|1|cpu=00:00:00,mem=320492K|mem=320492K|mem=320492K
31_0.1|00:02.000|100M|1|1|mem=100M|mem=100M|mem=100M"""


def usage(text: str) -> dict[str, dict[str, float]]:
    return {j: dict(u) for j, u in parse_usage(text.replace("|", SEPARATOR)).items()}


def test_steps_beside_each_other_are_added_and_of_those_in_turn_the_greatest_counts() -> None:
    assert usage(JOB) == {"31_0": {"cpu_s": 62.5, "peak_memory_mb": 326.039}}


def test_the_tasks_of_a_step_on_one_node_are_added() -> None:
    four = "7|00:10|||2|||\n7.0|00:10|1G|4|2|mem=1G|mem=3.5G|mem=1G"
    assert usage(four)["7"]["peak_memory_mb"] == 2048
    uneven = "7.0|00:10|1G|4|1|mem=1G|mem=1.5G|mem=384M"
    assert usage(uneven)["7"]["peak_memory_mb"] == 1536
    untold = "7.0|00:10|1G|4|1|||"
    assert usage(untold)["7"]["peak_memory_mb"] == 4096


def test_gpus_are_read_from_the_resources_of_steps() -> None:
    line = "9.0|1-02:03:04|2G|1|1|gres/gpumem=11G,gres/gpuutil=97,mem=2G|mem=2G|gres/gpuutil=71"
    assert usage(f"9|1-02:03:04|||1|||\n{line}") == {
        "9": {
            "cpu_s": 93784,
            "peak_memory_mb": 2048,
            "peak_gpu_memory_mb": 11264,
            "gpu_percent": 71,
        }
    }


def test_memory_may_be_in_any_unit_or_missing() -> None:
    for text, mb in (("2097152", 2), ("2048K", 2), ("1.50M", 1.5), ("0.5G", 512), ("1T", 2**20)):
        assert usage(f"9.batch||{text}|1|1|||") == {"9": {"peak_memory_mb": mb}}
    assert usage("9.batch|||1|1|||") == {}
    assert usage("9|soon|||1|||") == {}
    assert usage("x|00:01|||1|||\n\n9|00:01") == {}
