"""Drift: which records and branches are restored, and which runs are held back or replaced."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from mtf.core.planner.drift import Branches, Drift, contradiction, described, merged
from mtf.core.planner.plan import Policy, plan
from mtf.core.vocabulary.actions import Rebuild, Record, Repin, Restore
from mtf.core.vocabulary.ids import CommitId, JobId, RunId, RunKey, SubmissionId, Token
from mtf.core.vocabulary.records import Attempt, Checkpoint, RunRecord
from mtf.core.vocabulary.states import JobState, RunState
from tests.core.planner.worlds import (
    COMMIT,
    NOW,
    Cancel,
    Resume,
    Submit,
    desired,
    experiment,
    iso,
    job,
    kinds,
    record,
    world,
)

ALONE = experiment(seed=1)
RUN = record(ALONE, state=RunState.RUNNING)
ALIVE = (job(JobState.RUNNING),)
SAVED = Checkpoint("/runs/x.ckpt", 9, "f" * 64, 100, 3)


def pinned(of: RunRecord) -> RunRecord:
    return replace(of, branch=f"slurm-job/{of.submission}")


def test_a_lost_record_is_restored_unless_the_plan_writes_it_anyway() -> None:
    drift = Drift(records={RUN.run: "was removed"})
    quiet = plan(world(desired(ALONE), records=(RUN,), jobs=ALIVE, drift=drift), Policy(), NOW)
    assert kinds(quiet) == [Restore]
    ended = world(desired(ALONE), records=(RUN,), jobs=(job(JobState.CANCELLED),), drift=drift)
    (written,) = plan(ended, Policy(), NOW).actions
    assert isinstance(written, Record)
    assert written.record.run == RUN.run
    assert f"record {RUN.run} was removed: restored" in plan(ended, Policy(), NOW).notes


def test_a_moved_or_deleted_job_branch_is_restored_at_its_pin() -> None:
    run = pinned(RUN)
    ref = f"refs/heads/{run.branch}"

    def repins(
        branches: Branches, made_here: frozenset[SubmissionId] = frozenset()
    ) -> list[tuple[bool, object]]:
        drift = Drift(branches=branches, made_here=made_here)
        made = plan(world(desired(ALONE), records=(run,), jobs=ALIVE, drift=drift), Policy(), NOW)
        return [(a.on_remote, a.found) for a in made.actions if isinstance(a, Repin)]

    assert repins(Branches({ref: COMMIT}, {ref: COMMIT})) == []
    assert repins(Branches({}, {ref: COMMIT})) == []  # another clone's
    assert repins(Branches({}, {ref: COMMIT}), made_here=frozenset({run.submission})) == [
        (False, None)
    ]
    moved = CommitId("d" * 40)
    assert repins(Branches({ref: moved}, {})) == [(False, moved), (True, None)]
    assert repins(Branches({ref: COMMIT}, None)) == []  # the remote was not asked


def test_a_branch_without_a_record_stops_new_runs_of_its_spec_only() -> None:
    other = experiment("other", seed=2)
    stray = SubmissionId("alone/20260101T100000Z/cccccccc")
    drift = Drift(branches=Branches({f"refs/heads/slurm-job/{stray}": COMMIT}, {}))
    made = plan(world(desired(ALONE), desired(other), drift=drift), Policy(), NOW)
    assert [a.run.split("/")[0] for a in made.actions] == ["other"]
    assert f"the branch slurm-job/{stray} exists" in made.notes[0]
    assert made.unchanged == 0
    known = plan(world(desired(ALONE), drift=drift, known=frozenset({stray})), Policy(), NOW)
    assert kinds(known) == [Submit]
    damaged = Drift(unreadable={("alone", None): "its record is damaged"})
    assert plan(world(desired(ALONE), drift=damaged), Policy(), NOW).is_empty


def test_a_run_without_its_checkpoints_is_not_continued() -> None:
    waits = replace(RUN, state=RunState.PENDING, retry_at=iso(-1), checkpoint=SAVED)
    lost = Drift(folders=frozenset({RUN.run}))
    go_on = world(desired(ALONE), records=(waits,))
    assert kinds(plan(go_on, Policy(), NOW)) == [Resume]
    held = plan(replace(go_on, drift=lost), Policy(), NOW)
    assert held.is_empty
    assert f"mtf cancel {RUN.run}, then mtf retry {RUN.run}" in held.notes[0]
    fresh = replace(waits, checkpoint=None)  # it had no checkpoint to lose
    assert kinds(plan(world(desired(ALONE), records=(fresh,), drift=lost), Policy(), NOW)) == [
        Resume
    ]


def test_a_lost_checkout_is_restored_once_for_all_its_runs() -> None:
    two = [
        record(
            experiment(f"m{i}", "g", seed=i),
            run=f"g/20260101T110000Z/cccccccc/m{i}",
            run_dir=f"/runs/g/20260101T110000Z/cccccccc/m{i}",
            state=RunState.COMPLETED,
        )
        for i in range(2)
    ]
    drift = Drift(checkouts=frozenset(r.run for r in two))
    assert kinds(plan(world(records=tuple(two), drift=drift), Policy(), NOW)) == [Rebuild]


def test_a_changed_experiment_replaces_only_the_active_run_of_its_name() -> None:
    changed = replace(desired(experiment(seed=2)), on_change="cancel")
    made = plan(world(changed, records=(RUN,), jobs=ALIVE), Policy(), NOW)
    assert sorted(k.__name__ for k in kinds(made)) == ["Cancel", "Submit"]
    kept = plan(
        world(replace(changed, on_change="keep"), records=(RUN,), jobs=ALIVE), Policy(), NOW
    )
    assert Cancel not in kinds(kept)
    over = replace(RUN, state=RunState.COMPLETED)
    direct = replace(RUN, wanted=False)
    elsewhere = replace(RUN, cluster="far away")
    for left_alone in (over, direct, elsewhere):
        assert Cancel not in kinds(
            plan(world(changed, records=(left_alone,), jobs=ALIVE), Policy(), NOW)
        )


def test_changes_that_mtf_makes_to_a_record_are_no_drift() -> None:
    claim = replace(RUN, attempts=(replace(RUN.attempt, job_id=None),), state=RunState.CLAIMED)
    again = replace(RUN.attempt, token=Token("b" * 16))
    history = [
        claim,
        RUN,
        replace(RUN, state=RunState.TIMEOUT),
        replace(RUN, attempts=(RUN.attempt, again)),
    ]
    for old, new in pairwise(history):
        assert contradiction(old, new) is None
        assert contradiction(old, old) is None
    waits = replace(claim, state=RunState.PENDING, retry_at=iso(1))  # the next attempt replaces it
    assert contradiction(waits, replace(claim, attempts=(again,))) is None
    assert contradiction(RUN, claim) == "an attempt changed"
    assert contradiction(history[3], RUN) == "an attempt is gone"
    superseded = replace(RUN, superseded_by=RunId("alone/20260102T110000Z/dddddddd"))
    assert contradiction(RUN, superseded) is None
    assert contradiction(superseded, RUN) == "superseded_by changed"
    assert (
        contradiction(replace(RUN, state=RunState.LOST), RUN) is None
    )  # the job was found after all


def test_two_ledgers_with_different_jobs_for_one_attempt_merge_to_the_remotes_job() -> None:
    theirs = replace(RUN, attempts=(replace(RUN.attempt, job_id=JobId("78")),))
    assert merged(RUN, theirs) == (theirs, ())
    longer = replace(RUN, attempts=(*RUN.attempts, tried("b")))
    both = merged(longer, theirs)
    assert both is not None
    assert [(a.token[0], a.job_id) for a in both[0].attempts] == [("a", "78"), ("b", "77")]
    assert contradiction(theirs, both[0]) is None


def tried(name: str, **changes: object) -> Attempt:
    return replace(RUN.attempt, token=Token(name * 16), **changes)  # type: ignore[arg-type]


def test_a_run_continued_by_two_ledgers_keeps_all_attempts_and_only_one_goes_on() -> None:
    first = tried("a", ended_at=iso(-40), outcome="time-limit")
    ours = replace(RUN, attempts=(first, tried("b", job_id=JobId("5"))))
    theirs = replace(RUN, attempts=(first, tried("c", ended_at=iso(-30)), tried("d")), epoch=7)
    both = merged(ours, theirs)
    assert both is not None
    record, rivals = both
    assert [a.token[0] for a in record.attempts] == ["a", "c", "d", "b"]
    assert [a.token[0] for a in rivals] == ["d"]
    assert record.attempts[2].outcome == "cancelled"
    assert (record.job_id, record.epoch) == ("5", ours.epoch)
    for side in (theirs, record):  # valid on their side as well; merging again changes nothing
        assert contradiction(side, record) is None
        assert merged(side, record) == (record, ())
    assert merged(record, theirs) == (record, ())


def test_a_run_continued_by_one_ledger_gives_up_no_attempt() -> None:
    longer = replace(RUN, attempts=(RUN.attempt, tried("b")))
    assert merged(longer, RUN) == merged(RUN, longer) == (longer, ())
    assert merged(longer, replace(longer, key=RunKey("another"))) is None


def test_what_happened_to_many_runs_of_a_grid_is_one_note() -> None:
    submission = "many/20260101T110000Z/cccccccc"
    ids = [RunId(f"{submission}/seed={n}") for n in range(4)]
    members = {run: replace(RUN, run=run, grid="many") for run in ids}
    assert len(described(Drift(folders=frozenset(ids[:3])), members)) == 3
    assert described(Drift(folders=frozenset(ids)), members) == [
        f"the folders of 4 runs of {submission} that are not over are gone: restore them, or"
        f" mtf cancel {submission}"
    ]
    assert described(Drift(records=dict.fromkeys(ids, "was removed")), members) == [
        "many, 4 runs: its record was removed: mtf sync restores it"
    ]
