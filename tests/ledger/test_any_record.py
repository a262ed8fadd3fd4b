"""Records of any content that can be read: whatever mtf does with them, it does not fail."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mtf.core.planner.plan import Policy, plan
from mtf.core.planner.rows.run_rows import recorded_row
from mtf.core.planner.run_update import Retry
from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.states import JobState, RunState
from mtf.ledger.codec import decode_run, encode_run, run_as_dict
from mtf.ledger.overview import render_overview
from mtf.reconcile.executors import jobs_of
from mtf.reconcile.run_access import abandoned
from mtf.reconcile.summaries import results
from mtf.report.runs import run_page, status_table
from tests.core.planner.worlds import ALONE, NOW, SPEC, job, record, world

if TYPE_CHECKING:
    from mtf.core.vocabulary.records import RunRecord

TIMES = st.sampled_from(
    [None, "1971-01-01T00:00:00+00:00", "8999-12-31T23:59:59-14:00", NOW.isoformat()]
)
COUNTS = st.sampled_from([None, 0, 1, 7, 2**62])
TEXTS = st.sampled_from(["", "x", "cancel requested: ", "a\x1b[31m", "\u202e", "7" * 4000])
NUMBERS = st.sampled_from([0, 1.5, float("inf"), float("nan"), -(2**62)])
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(
        ("submitted_at", "started_at", "finished_at", "observed_at", "retry_at"), TIMES
    ),
    **dict.fromkeys(("epoch", "max_epochs", "step"), COUNTS),
    **dict.fromkeys(("reason", "packages"), TEXTS),
    **dict.fromkeys(("cancel_requested", "wanted"), st.booleans()),
    "state": st.sampled_from([*RunState]),
    "sync": st.sampled_from(["Synced", "OutOfSync", "Unknown"]),
    "executor": st.sampled_from(["slurm", "local", "other"]),
    "metrics": st.dictionaries(TEXTS.filter(bool), NUMBERS, max_size=2),
    "parameters": st.dictionaries(st.text(max_size=3), NUMBERS | st.lists(NUMBERS), max_size=2),
    "best": st.none()
    | st.fixed_dictionaries(
        {"name": TEXTS, "value": NUMBERS, "epoch": st.just(1), "step": st.just(2**62)}
    ),
}
ATTEMPT: dict[str, st.SearchStrategy[Any]] = {
    **dict.fromkeys(("claimed_at", "lease_until"), TIMES.filter(bool)),
    **dict.fromkeys(("submitted_at", "started_at", "ended_at"), TIMES),
    **dict.fromkeys(("index", "start_step", "put_off"), COUNTS.filter(lambda n: n is not None)),
    "end_step": COUNTS,
    **dict.fromkeys(("reason", "node"), TEXTS),
    "claimed_by": st.sampled_from(["", "x@y:1", "x@y:²", f"@{'9' * 400}", ":" + "9" * 400]),
    "job_id": st.sampled_from([None, "7", "7_3", "local-1", "7+1"]),
    "outcome": st.sampled_from([None, *Cause]),
    "exit_code": st.sampled_from([None, 0, -9, 2**40]),
    "changes": st.dictionaries(TEXTS.filter(bool), NUMBERS, max_size=2),
}
RUN = json.loads(encode_run(record(ALONE)))


@st.composite
def records(draw: st.DrawFn) -> RunRecord:
    """Draw a record with some fields changed."""
    value = {**RUN, **draw(st.fixed_dictionaries({}, optional=FIELDS))}
    attempts = draw(st.lists(st.fixed_dictionaries({}, optional=ATTEMPT), min_size=1, max_size=3))
    value["attempts"] = [{**RUN["attempts"][0], **changes} for changes in attempts]
    return decode_run(json.dumps(value).encode())


@settings(max_examples=300)
@given(records(), st.sampled_from([None, *JobState]), st.booleans())
def test_any_readable_record_can_be_planned_for_and_shown(
    found: RunRecord, state: JobState | None, gone: bool
) -> None:
    jobs = () if state is None else (job(state, index=found.attempt.index),)
    specs = () if gone else (SPEC,)
    policy = Policy(retry=Retry(), prune=gone)
    for now in (NOW, NOW + timedelta(days=400)):
        made = plan(world(*specs, records=(found,), jobs=jobs), policy, now)
        for action in made.actions:
            if (after := getattr(action, "record", None)) is not None:
                assert decode_run(encode_run(after)).run == found.run
    for wide in (True, False):
        status_table([found], NOW, wide=wide)
    run_page(recorded_row(found), "", [], None)
    json.dumps(run_as_dict(found))
    render_overview([found])
    results([found])
    jobs_of([found])
    abandoned([found])
