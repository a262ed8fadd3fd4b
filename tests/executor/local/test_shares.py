"""What a workstation's queue gives to each job: GPUs, CPUs, memory, and several processes."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.core.vocabulary.states import JobState
from mtf.errors import SubmissionRefusedError
from mtf.executor.local.local_executor import LocalExecutor
from mtf.executor.local.machine_query import LocalLimits, gpus_of, parse_gpus
from mtf.executor.local.queue import LocalQueue
from mtf.executor.local.shares import Machine, Needs, excess, free_of, needs_of, waits_for
from tests.executor.contract import Bench, resources
from tests.executor.local.bench import end_all, folder_of, kill_worker, until
from tests.executor.local.nvidia_stand_in import install_stand_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mtf.core.vocabulary.jobs import JobRequest
    from tests.executor.local.bench import MakeBench

# Says which GPUs it sees, and runs until its file `go` is there.
SEES = """
echo "[$CUDA_VISIBLE_DEVICES]" > "$MTF_RUN_DIR/sees"
while [ ! -e "$MTF_RUN_DIR/go" ]; do sleep 0.02; done
"""


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three GPUs, said by a stand-in for nvidia-smi; their UUIDs."""
    return install_stand_in(tmp_path / "bin", monkeypatch, 3)


def submitted(bench: Bench, **needs: Any) -> JobRequest:
    request = bench.request(**needs)
    bench.submit(request)
    return request


def sees(bench: Bench, request: JobRequest) -> set[str]:
    names = bench.wait_file(request, "sees").strip().strip("[]")
    return set(names.split(",")) if names else set()


def go(request: JobRequest) -> None:
    (folder_of(request) / "go").touch()


def reason(bench: Bench, request: JobRequest, words: str) -> str:
    view = bench.wait(request, lambda found: words in found[0].reason)[0]
    assert view.state is JobState.PENDING
    return view.reason


# -- GPUs ------------------------------------------------------------------------------------------


def test_each_job_sees_the_gpus_that_it_asked_for_and_no_other_job_has_them(
    local: MakeBench, gpus: list[str]
) -> None:
    bench = local(SEES)
    two, one = submitted(bench, gpus_per_node=2), submitted(bench, gpus_per_node="a100:1")
    none = submitted(bench, gpus_per_node=0)
    assert len(sees(bench, two)) == 2
    assert sees(bench, two) | sees(bench, one) == {"0", "1", "2"}
    assert sees(bench, none) == set(), "a job that asked for none must not use another's"
    waiting = submitted(bench, gpus_per_node=2)
    assert reason(bench, waiting, "needs") == "needs 2 GPUs, 0 free"
    go(one)
    assert reason(bench, waiting, "1 free") == "needs 2 GPUs, 1 free"
    go(two)
    assert len(sees(bench, waiting)) == 2


def test_a_job_that_waits_for_gpus_is_overtaken_only_by_jobs_without(
    local: MakeBench, gpus: list[str]
) -> None:
    bench = local(SEES)
    first = submitted(bench, gpus_per_node=2)
    sees(bench, first)
    large, small = submitted(bench, gpus_per_node=3), submitted(bench, gpus_per_node=1)
    plain = submitted(bench)
    assert sees(bench, plain) == set()
    number = bench.views(large)[0].job_id
    words = f"queued behind {number}, which needs 3 GPUs, 1 free"
    assert reason(bench, small, "behind") == words
    go(first)
    assert len(sees(bench, large)) == 3
    assert bench.views(small)[0].state is JobState.PENDING


def test_a_killed_worker_leaves_its_jobs_their_gpus(local: MakeBench, gpus: list[str]) -> None:
    bench = local(SEES)
    first = submitted(bench, gpus_per_node=2)
    held = sees(bench, first)
    kill_worker(bench.root)
    second = submitted(bench, gpus_per_node=1)
    assert sees(bench, second) == {"0", "1", "2"} - held
    assert reason(bench, submitted(bench, gpus_per_node=1), "needs") == "needs 1 GPU, 0 free"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "other"
    until(lambda: not end_all(tmp_path / "other"), "all has ended")


def test_the_queues_of_two_projects_never_give_out_the_same_gpu(
    local: MakeBench, gpus: list[str], other: Path
) -> None:
    bench = local(SEES)
    text = f"#!/bin/bash\n{{% include 'environment.sh.j2' %}}\n: stands for mtf.trainer\n{SEES}"
    # this one knows the same GPUs by other names
    limits = LocalLimits(4, gpus=tuple(gpus))
    second = Bench(LocalExecutor(other, limits, {"local.sh.j2": text}, kill_wait_s=0.5), other)
    ours = submitted(bench, gpus_per_node=2)
    held = {gpus[int(name)] for name in sees(bench, ours)}
    theirs = submitted(second, gpus_per_node=1)
    assert sees(second, theirs).isdisjoint(held)
    waiting = submitted(second, gpus_per_node=2)
    words = "needs 2 GPUs, 0 free: other queues of this machine use 2"
    assert reason(second, waiting, "other queues") == words
    kill_worker(bench.root)  # the job itself holds its GPUs
    shutil.rmtree(LocalQueue(bench.root).folder)
    assert "other queues" in reason(second, waiting, "other queues")
    go(ours)
    assert sees(second, waiting) == held


def test_the_setting_says_which_gpus_jobs_may_have(local: MakeBench, gpus: list[str]) -> None:
    bench = local(SEES, limits=LocalLimits(4, gpus=("2",)))
    assert sees(bench, submitted(bench, gpus_per_node=1)) == {"2"}
    with pytest.raises(SubmissionRefusedError, match=r"asks for 2 GPUs, this machine has 1 GPU"):
        bench.submit(bench.request(gpus_per_node=2))


def test_nvidia_smi_is_read_with_divided_gpus() -> None:
    printed = (
        "GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-aa)\n"
        "  MIG 3g.20gb     Device  0: (UUID: MIG-b1)\n"
        "  MIG 3g.20gb     Device  1: (UUID: MIG-b2)\n"
        "GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-cc)\n"
    )
    assert parse_gpus(printed) == {"MIG-b1": "MIG-b1", "MIG-b2": "MIG-b2", "1": "GPU-cc"}
    assert parse_gpus("NVIDIA-SMI has failed\n") == {}


@pytest.mark.parametrize(
    ("chosen", "visible", "found"),
    [
        (None, None, ("0", "1", "2")),
        (None, "", ()),
        (None, "-1", ()),
        (None, "2,0", ("2", "0")),
        (None, "0,-1,1", ("0",)),
        (None, "GPU-ab", ("GPU-ab",)),
        (2, None, ("0", "1")),
        (2, "2,1,0", ("2", "1")),
        (0, "0", ()),
        (("5",), "0", ("5",)),
    ],
)
def test_the_gpus_are_those_of_the_setting_the_environment_or_the_machine(
    gpus: list[str], chosen: Any, visible: str | None, found: tuple[str, ...]
) -> None:
    env = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert gpus_of(chosen, env) == found


# -- CPUs and memory -------------------------------------------------------------------------------


def test_cpus_and_memory_are_counted_and_a_job_waits_for_them(local: MakeBench) -> None:
    bench = local(SEES, limits=LocalLimits(9, cpus=4, memory_mb=4096))
    first = submitted(bench, cpus_per_task=3, mem="3G")
    bench.wait_file(first, "sees")
    second, third = submitted(bench, cpus_per_task=2), submitted(bench, mem="2G")
    assert reason(bench, second, "needs") == "needs 2 CPUs, 1 free"
    assert reason(bench, third, "needs") == "needs 2G of memory, 1G free"
    go(first)
    bench.wait_file(second, "sees")
    bench.wait_file(third, "sees")
    whole = submitted(bench, mem="0")
    assert reason(bench, whole, "memory") == "needs 4G of memory, 2G free"


@pytest.mark.parametrize(
    ("needs", "words"),
    [
        ({"cpus_per_task": 3, "ntasks_per_node": 2}, "asks for 6 CPUs, this machine has 4 CPUs"),
        ({"mem": "1T"}, "asks for 1024G of memory, this machine has 4G of memory (local.mem)"),
        ({"extra": ["--gres=gpu:1"]}, "asks for 1 GPU, this machine has 0 GPUs (local.gpus)"),
        ({"nodes": 2}, "slurm.nodes: 2, and the local executor has this machine alone"),
    ],
)
def test_a_job_that_can_never_run_here_is_refused(
    local: MakeBench, monkeypatch: pytest.MonkeyPatch, needs: dict[str, Any], words: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    bench = local(SEES, limits=LocalLimits(9, cpus=4, memory_mb=4096))
    with pytest.raises(SubmissionRefusedError) as e:
        bench.submit(bench.request(**needs))
    assert words in str(e.value)


def test_a_job_beyond_max_parallel_says_so(local: MakeBench) -> None:
    bench = local(SEES, max_parallel=1)
    bench.wait_file(submitted(bench), "sees")
    assert reason(bench, submitted(bench), "time") == "1 at a time (local.max_parallel)"


NEEDS = st.builds(Needs, st.integers(0, 3), st.integers(1, 4), st.integers(0, 9))


@given(st.lists(NEEDS, max_size=6))
def test_what_fits_is_there_and_what_waits_is_not_overtaken_in_what_it_lacks(
    jobs: list[Needs],
) -> None:
    machine = Machine(("0", "1", "2"), 4, 9)
    free, running = machine, list[tuple[Needs, tuple[str, ...]]]()
    for needs in jobs:
        if free.has(needs):
            given = free.gpus[: needs.gpus]
            running.append((needs, given))
            free = free.without(needs, given)
        else:
            assert waits_for(needs, free)
            kept = free.reserved_for(needs)
            lacking = needs.gpus > len(free.gpus)
            assert not lacking or not kept.has(Needs(1, 1, 0))
            free = kept
    given_out = [name for _, names in running for name in names]
    assert len(given_out) == len(set(given_out))
    left = free_of(machine, running)
    assert left.cpus >= 0
    assert left.memory_mb >= 0


def test_needs_are_read_from_all_spellings() -> None:
    assert needs_of(resources(), 1000) == Needs(0, 1, 0)
    assert needs_of(resources(gpus_per_node="a:1,b:2", mem="2G"), 1000) == Needs(3, 1, 2048)
    assert needs_of(resources(mem="0"), 1000).memory_mb == 1000
    assert needs_of(resources(extra=["--exclusive"], cpus_per_task=4), 1000).cpus == 4
    assert excess(Needs(), 1, Machine((), 1, 1)) == ""


# -- several processes -----------------------------------------------------------------------------

RANK = """
import os, signal, sys, time
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
rank, folder = os.environ["RANK"], sys.argv[1]
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
with open(f"{folder}/rank{rank}", "w") as file:
    file.write(" ".join(os.environ[name] for name in names) + "\\n")
while not os.path.exists(f"{folder}/go"):
    time.sleep(0.02)
if os.environ["HOW"] == "fails" and rank == "1":
    sys.exit(7)
time.sleep(0 if os.environ["HOW"] == "ends" else 1000)
"""


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[Bench]:
    """The shipped template, with a small program instead of the trainer."""
    root = tmp_path / "runs"
    bench = Bench(LocalExecutor(root, LocalLimits(4), kill_wait_s=0.5), root)
    package = root / ".code" / "c" / "mtf"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "trainer.py").write_text(RANK)
    yield bench
    until(lambda: not end_all(root), "all has ended")


@pytest.mark.parametrize(("how", "code"), [("ends", 0), ("fails", 7)])
def test_a_run_gets_its_processes_and_they_end_together(
    ranks: Bench, monkeypatch: pytest.MonkeyPatch, how: str, code: int
) -> None:
    request = submitted(ranks, ntasks_per_node=3, variables={"HOW": how})
    seen = [ranks.wait_file(request, f"rank{rank}").split() for rank in range(3)]
    assert [each[:4] for each in seen] == [[str(n), str(n), "3", "127.0.0.1"] for n in range(3)]
    assert len({each[4] for each in seen}) == 1
    go(request)
    view = ranks.wait_ended(request)[0]
    assert view.exit_code == code


def test_all_processes_of_a_run_are_asked_to_stop(ranks: Bench) -> None:
    request = submitted(ranks, ntasks_per_node=2, variables={"HOW": "waits"})
    for rank in range(2):
        ranks.wait_file(request, f"rank{rank}")
    ranks.cancel(*(view.job_id for view in ranks.views(request).values()))
    assert ranks.wait_ended(request)[0].state is JobState.CANCELLED


# -- formats and signals ---------------------------------------------------------------------------


def test_a_queue_of_the_first_format_is_taken_over(local: MakeBench) -> None:
    bench = local("exit 0")
    done = submitted(bench)
    bench.wait_ended(done)
    kill_worker(bench.root)
    with closing(sqlite3.connect(LocalQueue(bench.root).folder / "queue.sqlite")) as db:
        for table, columns in {
            "settings": ("gpus", "cpus", "memory_mb"),
            "submissions": ("warning", "gpus", "cpus", "memory_mb"),
            "jobs": ("devices",),
        }.items():
            for column in columns:
                db.execute(f"ALTER TABLE {table} DROP COLUMN {column}")
        db.execute("DROP TABLE machine")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    assert bench.views(done)[0].state is JobState.COMPLETED
    assert bench.wait_ended(submitted(bench))[0].state is JobState.COMPLETED


def test_the_warning_may_be_another_signal(local: MakeBench) -> None:
    bench = local(
        'for s in USR1 USR2; do trap "echo $s >> $MTF_RUN_DIR/heard" $s; done\n'
        "while :; do sleep 0.05; done"
    )
    request = submitted(bench, time="00:00:04", signal_lead=3, signal="USR2")
    assert bench.wait_file(request, "heard") == "USR2\n"
    bench.cancel(*(view.job_id for view in bench.views(request).values()))


def test_this_machine_has_what_the_system_says() -> None:
    from mtf.executor.local.machine_query import this_machine

    machine = this_machine(LocalLimits(1), {"CUDA_VISIBLE_DEVICES": ""})
    assert machine.gpus == ()
    assert machine.cpus == len(os.sched_getaffinity(0))
    assert machine.memory_mb > 64
    assert this_machine(LocalLimits(99), {}, with_gpus=False).cpus >= 99
