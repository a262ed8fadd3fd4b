"""Folding a journal: the progress of a run, whatever its lines contain."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from mtf import rundir
from mtf.core.planner.journal_reader import Progress, fold, with_progress
from mtf.core.vocabulary.ids import Token
from mtf.ledger.codec import decode_run, encode_run
from tests.core.planner.worlds import experiment, iso, record

if TYPE_CHECKING:
    from pathlib import Path

STARTED = {
    "event": "started",
    "at": iso(1),
    "token": "a",
    "job_id": "7",
    "monitor": "val_accuracy",
    "mode": "max",
    "max_epochs": 5,
}


def metrics(epoch: int, value: float) -> dict[str, Any]:
    return {
        "event": "metrics",
        "epoch": epoch,
        "step": 10 * epoch,
        "metrics": {"val_accuracy": value},
    }


def test_a_journal_gives_the_best_value_and_the_newest_metrics() -> None:
    found = fold([STARTED, metrics(1, 0.5), metrics(2, 0.9), metrics(3, 0.7)], "/r")
    assert found.metrics == {"val_accuracy": 0.7}
    assert found.best is not None
    assert (found.best.value, found.best.epoch, found.best.mode) == (0.9, 2, "max")


def test_the_throughput_is_that_of_the_newest_start() -> None:
    going = {
        "event": "progress",
        "epoch": 1,
        "step": 5,
        "total_steps": 9,
        "steps_per_s": 2.5,
        "eta_s": 1.6,
    }
    found = fold([STARTED, going], "/r")
    assert (found.steps_per_s, found.eta_s) == (2.5, 1.6)
    again = fold([STARTED, going, STARTED], "/r")
    assert (again.step, again.steps_per_s, again.eta_s) == (5, None, None)


@given(
    st.sampled_from(["min", "max"]),
    st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=6),
)
def test_the_best_is_the_first_of_the_best_values_that_are_numbers(
    mode: str, values: list[float]
) -> None:
    start = {**STARTED, "mode": mode}
    found = fold([start, *(metrics(n, value) for n, value in enumerate(values))], "/r")
    numbers = [(n, value) for n, value in enumerate(values) if not math.isnan(value)]
    if not numbers:
        assert found.best is None
        return
    epoch, value = (max if mode == "max" else min)(numbers, key=lambda pair: pair[1])
    assert found.best is not None
    assert (found.best.epoch, found.best.value, found.best.mode) == (epoch, value, mode)


def test_a_start_that_names_no_monitor_keeps_the_one_before() -> None:
    resumed = {"event": "started", "at": iso(2), "token": "b"}
    found = fold([STARTED, metrics(1, 0.5), resumed, metrics(2, 0.9), metrics(3, 0.7)], "/r")
    assert found.best is not None
    assert (found.best.name, found.best.value, found.best.mode) == ("val_accuracy", 0.9, "max")


def test_a_new_start_clears_the_last_end_but_keeps_the_progress() -> None:
    checkpoint = {
        "event": "checkpoint",
        "path": "checkpoints/a.ckpt",
        "step": 3,
        "epoch": 1,
        "sha256": "s",
        "bytes": 9,
    }
    failed = {"event": "failed", "reason": "ValueError: x"}
    found = fold([STARTED, checkpoint, failed, {**STARTED, "at": iso(2), "token": "b"}], "/r")
    assert (found.failed, found.token, found.starts) == (None, "b", 2)
    assert (found.first_started_at, found.started_at) == (iso(1), iso(2))
    assert found.checkpoint is not None
    assert found.checkpoint.path == "/r/checkpoints/a.ckpt"


def test_a_failed_checkpoint_is_reported_until_one_succeeds() -> None:
    failed = {"event": "unsaved", "epoch": 1, "step": 2, "reason": "disk full"}
    saved = {"event": "checkpoint", "path": "c", "step": 4}
    assert fold([failed], "/r").unsaved == "disk full"
    assert fold([failed, saved], "/r").unsaved is None
    assert fold([failed, {"event": "started"}], "/r").unsaved is None


def test_events_of_a_later_version_are_ignored() -> None:
    assert fold([{"event": "danced", "at": iso()}], "/r") == Progress(last_at=iso())


_FACTS = st.dictionaries(
    st.sampled_from(
        ["at", "epoch", "step", "metrics", "token", "path", "bytes", "monitor", "reason"]
    )
    | st.sampled_from(["mode", "sha256", "max_epochs", "total_steps", "job_id", "packages_sha256"]),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([10**400, "../../x", "/etc/passwd", "checkpoints/a.ckpt", "a/./b"])
    | st.text()
    | st.lists(st.integers())
    | st.dictionaries(st.text(), st.text() | st.booleans() | st.integers() | st.floats()),
)
_EVENTS = st.sampled_from(
    ["started", "proof", "progress", "metrics", "checkpoint", "failed", "finished"]
)


@given(st.lists(st.builds(lambda event, fact: {**fact, "event": event}, _EVENTS, _FACTS)))
def test_the_record_of_any_journal_can_be_written_and_read_again(
    facts: list[dict[str, Any]],
) -> None:
    one = record(experiment())
    found = with_progress(one, fold(facts, one.run_dir))
    raw = encode_run(found)
    assert encode_run(decode_run(raw)) == raw


def test_a_time_without_a_zone_is_ignored() -> None:
    for wrong in ("yesterday", "2026-01-01T12:00:00", ""):
        found = fold([{**STARTED, "at": wrong}], "/r")
        assert (found.started_at, found.last_at, found.job_id) == (None, None, "7")


def test_a_torn_journal_line_affects_no_other(tmp_path: Path) -> None:
    rundir.append_journal(tmp_path, "progress", {"epoch": 1, "step": 5})
    with (tmp_path / rundir.JOURNAL).open("ab") as f:
        f.write(b'{"event": "progress", "st')
    rundir.append_journal(tmp_path, "progress", {"epoch": 2, "step": 9})
    found = fold(rundir.read_journal(tmp_path), "/r")
    assert (found.epoch, found.step) == (2, 9)
    assert len(rundir.read_journal(tmp_path)) == 2


@given(st.binary())
def test_a_line_is_read_whatever_bytes_stand_before_it(tmp_path_factory: Any, raw: bytes) -> None:
    folder = tmp_path_factory.mktemp("journal")
    (folder / rundir.JOURNAL).write_bytes(raw)
    rundir.append_journal(folder, "progress", {"epoch": 2, "step": 9})
    found = fold(rundir.read_journal(folder), "/r")
    assert (found.epoch, found.step) == (2, 9)


def test_a_claim_is_won_once_and_for_ever(tmp_path: Path) -> None:
    token = Token("0" * 16)
    assert rundir.claim(tmp_path, token, "7") == "7"
    assert rundir.claim(tmp_path, token, "7") == "7"  # the same job, requeued
    assert rundir.claim(tmp_path, token, "8") == "7"
    assert rundir.claim(tmp_path, token, rundir.FENCED) == "7"
    assert rundir.claim(tmp_path, Token("1" * 16), rundir.FENCED) == rundir.FENCED
    assert rundir.claim(tmp_path, Token("1" * 16), "9") == rundir.FENCED
    assert sorted(p.name for p in (tmp_path / rundir.CLAIMS).iterdir()) == ["0" * 16, "1" * 16]


def test_the_first_rank_that_fails_gives_the_reason() -> None:
    start = {"event": "started", "job_id": "1"}
    facts = [start, {"event": "failed", "reason": "no such file"}]
    lost = {"event": "failed", "reason": "Connection closed by peer"}
    assert fold([*facts, lost], "/r").failed == "no such file"
    assert fold([*facts, start, lost], "/r").failed == "Connection closed by peer"
