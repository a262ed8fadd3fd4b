"""The controller's log: every fact once, failures and recoveries."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mtf.core.vocabulary.actions import Action, Adopt, Cancel, Plan, Record
from mtf.core.vocabulary.ids import JobId
from mtf.errors import Problem
from mtf.report.controller_log import ControllerLog, changes
from tests.core.planner.worlds import experiment, record

MEMBERS = [
    record(experiment(f"seed={n}", "search"), f"search/20260101T110000Z/cccccccc/seed={n}")
    for n in (1, 2)
]
ALONE = record(experiment())


@dataclass
class Report:
    """The part of a sync's report that the log reads."""

    actions: tuple[Action, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    is_usable: bool = True
    commit: str = "c" * 40

    @property
    def plan(self) -> Plan:
        return Plan(self.actions, 0, self.notes)


def log_of(*reports: Report) -> list[str]:
    lines: list[str] = []
    log = ControllerLog(lines.append)
    for report in reports:
        log.report(report)
    return lines


def test_runs_of_a_spec_that_change_alike_share_a_line() -> None:
    actions = [Record(r.run, r, "pending -> running") for r in (ALONE, *MEMBERS)]
    assert changes(actions) == [
        "record   alone: pending -> running",
        "record   2 runs of search: pending -> running",
    ]


def test_different_actions_and_reasons_have_lines_of_their_own() -> None:
    one, two = MEMBERS
    lines = changes(
        [
            Cancel(one.run, one, "its spec is gone"),
            Adopt(two.run, two, JobId("7"), "job 7 was found"),
            Record(ALONE.run, ALONE, "running -> completed"),
        ]
    )
    assert lines == [
        "cancel   search/seed=1: its spec is gone",
        "adopt    search/seed=2: job 7 was found",
        "record   alone: running -> completed",
    ]


def test_mere_progress_is_not_logged() -> None:
    assert changes([Record(ALONE.run, ALONE, "progress")]) == []


def test_a_note_is_logged_once_and_again_after_it_was_gone() -> None:
    drift = Report(notes=("drift",))
    assert log_of(drift, drift, Report(), drift) == ["note: drift"] * 2


def test_a_mistake_is_logged_once_with_its_effect_and_so_is_its_fix() -> None:
    broken = Report(problems=(Problem("a.yaml", 1, 2, "bad"),))
    assert log_of(broken, broken, Report(), Report()) == [
        "error: a.yaml:1:2: bad",
        "error: specs with errors are skipped until the errors are fixed; everything else is synced",
        "fixed: committed specs are valid again (cccccccc)",
    ]


def test_the_effect_of_mistakes_is_logged_again_if_it_changes() -> None:
    broken = Report(problems=(Problem("mtf.yaml", 1, 2, "bad"),))
    (_, _, third) = log_of(broken, replace(broken, is_usable=False))
    assert (
        third
        == "error: nothing new is submitted until the errors are fixed; everything else is synced"
    )


def test_a_failure_is_logged_once_for_each_reason_and_ends_with_a_recovery() -> None:
    lines: list[str] = []
    log = ControllerLog(lines.append)
    log.works_again()
    for why in ("no remote", "no remote", "no disk"):
        log.fails(why)
    log.works_again()
    log.works_again()
    retry = "error: the sync failed and will be retried until it succeeds"
    assert lines[:4] == ["error: no remote", retry, "error: no disk", retry]
    assert [line.partition(" after ")[0] for line in lines[4:]] == ["recovered"]


def test_the_same_failure_is_logged_again_after_a_recovery() -> None:
    lines: list[str] = []
    log = ControllerLog(lines.append)
    for _ in range(2):
        log.fails("no remote", "line 1\n\nline 2")
        log.works_again()
    assert lines.count("error: no remote") == lines.count("error: line 2") == 2
