"""The meter of a job: memory and CPU time of its process and of those that it starts."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

from mtf.trainer.runtime import resource_meter
from mtf.trainer.runtime.resource_meter import ResourceMeter, children

if TYPE_CHECKING:
    import pytest

# Takes 200 MiB, of which none is shared, burns CPU time, and says so.
WORKER = (
    "import sys, time\nkept = bytearray(b'x') * (200 << 20)\nend = time.process_time() + 0.5\n"
    "while time.process_time() < end: pass\nprint('up', flush=True)\nsys.stdin.read()"
)


def start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def test_processes_that_run_at_the_end_are_measured_with_their_parents() -> None:
    reports: list[dict[str, float]] = []
    with ResourceMeter(reports.append):
        before = time.process_time()
        worker = start()
        assert worker.stdout is not None
        worker.stdout.readline()
        assert worker.pid in children()
    worker.communicate("")
    (used,) = reports
    assert used["peak_memory_mb"] > 200 + 5
    assert used["cpu_s"] >= before + 0.4
    assert "gpu_percent" not in used


def test_processes_that_have_ended_count_with_their_cpu_time() -> None:
    before = ResourceMeter(lambda _: None).used()["cpu_s"]
    worker = start()
    worker.communicate("")
    assert worker.pid not in children()
    assert ResourceMeter(lambda _: None).used()["cpu_s"] >= before + 0.4


def test_a_job_that_may_be_killed_reports_while_it_grows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setter = monkeypatch.setattr
    setter(resource_meter, "_EVERY_S", 0.01)
    setter(resource_meter, "_FIRST_REPORT_S", 0.0)
    setter(resource_meter, "_SUM_S", 0.0)
    reports: list[dict[str, float]] = []
    with ResourceMeter(reports.append):
        worker = start()
        assert worker.stdout is not None
        worker.stdout.readline()
        end = time.monotonic() + 30
        while not any(report["peak_memory_mb"] > 200 for report in list(reports)):
            assert time.monotonic() < end
            time.sleep(0.01)
        seen = len(reports)
        time.sleep(0.3)
        assert len(reports) == seen, "what does not grow is not reported again at once"
    worker.communicate("")
