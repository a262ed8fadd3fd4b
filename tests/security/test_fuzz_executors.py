"""What executors answer may have any shape: one bad item is named, and the others go on."""

from __future__ import annotations

import re
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtf.core.vocabulary.ids import Token
from mtf.core.vocabulary.states import JobState
from mtf.errors import ExecutorUnavailableError
from mtf.executor.local.local_executor import LocalExecutor
from mtf.executor.local.queue import LocalQueue, WorkerQueue
from mtf.executor.local.queue_rows import QueuedJob
from mtf.executor.slurm import cluster_text, job_text, sbatch_answer
from tests.executor.contract import Bench

COLUMNS = (
    "state reason restarts queued host started began warned wish wished_at ended exit_code signal"
)
CELLS = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9)
    | st.sampled_from(
        ["pending", "running", "cancelled", "x\0y", 1e300, -5, "²", b"\xff", b"running"]
    )
)


def two_jobs(root: Path) -> tuple[Bench, LocalQueue]:
    """Return a queue with two waiting jobs, of requests of their own."""
    bench, queue = Bench(LocalExecutor(root, 1), root), LocalQueue(root)
    queue.make()
    for _ in range(2):
        queue.add(bench.request(), "/x/script", {}, None)
    return bench, queue


def spoil(queue: LocalQueue, column: str, cell: Any) -> bool:
    """Put a value into the first row; return False if the schema refuses it."""
    raw = cell.encode("utf-8", "surrogatepass") if isinstance(cell, str) else cell
    value = "CAST(? AS TEXT)" if isinstance(cell, str) else "?"
    with closing(sqlite3.connect(queue.folder / "queue.sqlite")) as db:
        try:
            db.execute(f"UPDATE jobs SET {column} = {value} WHERE id = 1", (raw,))
        except sqlite3.IntegrityError:
            return False
        db.commit()
    return True


@settings(max_examples=40)
@given(st.sampled_from([*COLUMNS.split(), "run_dir", "task"]), CELLS)
def test_one_row_of_the_local_queue_may_hold_anything(column: str, cell: Any) -> None:
    with tempfile.TemporaryDirectory() as where:
        bench, queue = two_jobs(Path(where))
        if not spoil(queue, column, cell):
            return
        bad, good = queue.by_tokens(bench.names)
        assert isinstance(good, QueuedJob)
        assert isinstance(bad, QueuedJob) or "row 1 of the queue is damaged" in bad.problem
        notes: list[str] = []
        with closing(WorkerQueue(Path(where), notes.append)) as worker:
            worker.running()
            assert worker.next_waiting([bad.token]) == good
            found = worker.next_waiting()
            assert found == good or isinstance(bad, QueuedJob)
            assert all("row 1 of the queue" in note for note in notes)
        queue.cancel([good.job_id])


def test_a_damaged_row_is_unknown_and_the_other_jobs_are_known(tmp_path: Path) -> None:
    bench, queue = two_jobs(tmp_path)
    with closing(sqlite3.connect(queue.folder / "queue.sqlite")) as db:
        db.execute("UPDATE jobs SET state = 'exploded', restarts = 'x' WHERE id = 1")
        db.execute("UPDATE jobs SET state = 'cancelled' WHERE id = 2")
        db.commit()
    bad, good = bench.executor.jobs(bench.names, bench.since)
    assert (bad.job_id, bad.index, bad.state) == ("local-1", None, JobState.UNKNOWN)
    assert "row 1 of the queue is damaged (restarts is 'x'). Correct it, or delete it" in bad.reason
    assert good.state is JobState.CANCELLED


def test_a_file_that_is_no_queue_is_named(tmp_path: Path) -> None:
    _, queue = two_jobs(tmp_path)
    (queue.folder / "queue.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    with pytest.raises(ExecutorUnavailableError, match=r"queue\.sqlite"):
        queue.by_tokens([Token("0" * 16)])


OURS, OTHER = "a+0123456789abcdef", "b+fedcba9876543210"
ODD = (
    "0 1 N/A Unknown (null) ² -1 8_[1- 8_[1,3,...] 8_[0-99999999] 8_1 8 RUNNING PENDING 0:0 1:x : %"
)
FIELDS = st.sampled_from(
    [*ODD.split(), "", "9" * 400, OURS, "\x85", "\u2028", "\0", "CANCELLED by x"]
)
TOKENS = {Token(name[2:]) for name in (OURS, OTHER)}


@settings(max_examples=200)
@given(st.lists(FIELDS | st.text(max_size=6), min_size=1, max_size=11), st.sampled_from(["", OURS]))
def test_one_line_of_squeue_and_sacct_may_hold_anything(fields: list[str], name: str) -> None:
    fields[1:2] = [name or field for field in fields[1:2]]
    bad = [field.replace("\n", " ") for field in fields]
    squeue = ["9", OTHER, "RUNNING", "0", "0", "n1", "1767268800", "N/A", "None"]
    sacct = ["9", OTHER, "RUNNING", "0:0", "n1", "1767268800", "Unknown", "None"]
    for parse, good in ((job_text.parse_squeue, squeue), (job_text.parse_sacct, sacct)):
        views = parse("\n".join(job_text.SEPARATOR.join(line) for line in (bad, good, bad)))
        others = [(v.job_id, v.state) for v in views if v.token == OTHER[2:]]
        assert others == [("9", JobState.RUNNING)]
        assert {view.token for view in views} <= TOKENS


KEYS = "JobId ArrayJobId ArrayTaskId JobName ExitCode Restarts StartTime JobState Reason"
PAIRS = st.tuples(st.sampled_from(KEYS.split()), FIELDS).map("=".join)


@settings(max_examples=100)
@given(st.lists(PAIRS, max_size=6))
def test_one_line_of_scontrol_may_hold_anything(pairs: list[str]) -> None:
    good = f"JobId=9 JobName={OTHER} JobState=RUNNING ExitCode=0:0"
    views = job_text.parse_scontrol("\n".join([" ".join([f"JobName={OURS}", *pairs]), good]))
    assert ("9", JobState.RUNNING) in {(view.job_id, view.state) for view in views}


@settings(max_examples=100)
@given(st.text(max_size=80), st.lists(st.lists(FIELDS, min_size=5, max_size=5), max_size=4))
def test_what_sbatch_and_the_cluster_print_may_be_anything(
    text: str, rows: list[list[str]]
) -> None:
    found = sbatch_answer.plain_submission(text)
    assert found is None or re.fullmatch("[0-9]{1,10}", found.number)
    sbatch_answer.named_clusters(text)
    job_text.submission_error(text)
    job_text.command_error(text)
    job_text.max_array_size(f"MaxArraySize = {text}\nSchedulerParameters = max_array_tasks={text}")
    nodes = "\n".join("|".join(row) for row in rows)
    keys = ("PartitionName", "MaxTime", "MaxNodes", "Default")
    partition = " ".join(f"{key}={text}" for key in keys)
    cluster_text.parse_facts({"MaxArraySize": text}, partition, nodes, nodes, nodes)
