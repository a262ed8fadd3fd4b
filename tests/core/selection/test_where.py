"""The language of `--where`: what a condition selects, and the message for each mistake in one."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.core.selection.run_conditions import where
from mtf.core.selection.where_syntax import WhereError
from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.ids import CommitId
from mtf.core.vocabulary.records import Best, RunRecord
from mtf.core.vocabulary.states import RunState
from tests.core.planner.worlds import experiment, iso, record

AT = "20260101T110000Z/cccccccc"


def run(name: str, state: RunState, cause: Cause | None, lr: Any, **metrics: float) -> RunRecord:
    member = experiment(name, "search", **{"optimizer.lr": lr})
    ended = {"outcome": cause, "ended_at": iso()} if cause else {}
    best = Best("val_accuracy", metrics["val_accuracy"], 1, 1, "max") if metrics else None
    return record(
        member,
        f"search/{AT}/{name}",
        state=state,
        metrics=metrics,
        best=best,
        attempt=ended,
        parameters=member.parameters,
    )


RUNS = (
    run("lr=0.1,seed=1", RunState.FAILED, Cause.HOST_OOM, 0.1),
    run("lr=0.01,seed=1", RunState.COMPLETED, Cause.COMPLETED, 0.01, val_accuracy=0.95, step=7.0),
    run("lr=0.001,seed=1", RunState.COMPLETED, Cause.COMPLETED, 1e-3, val_accuracy=float("nan")),
    run("lr=auto,seed=1", RunState.RUNNING, None, "auto", val_accuracy=0.5),
    record(experiment(), f"alone/{AT}", commit=CommitId("ab" * 20)),
)
FIRST, SECOND, THIRD, FOURTH, ALONE = range(5)


def selected(text: str) -> list[int]:
    holds = where(text, RUNS)
    return [number for number, one in enumerate(RUNS) if holds(one)]


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("state=failed", [FIRST]),
        ("state==failed", [FIRST]),
        ("state=failed,running", [FIRST, FOURTH]),
        ("state=failed, running", [FIRST, FOURTH]),
        ("state != completed", [FIRST, FOURTH, ALONE]),
        ("state!=completed,failed", [FOURTH, ALONE]),
        ("cause=*-oom", [FIRST]),
        ("cause!=host-oom", [SECOND, THIRD, FOURTH, ALONE]),
        ("name=search/lr=0.01,seed=1", [SECOND]),
        ("name=lr=0.*,seed=1", [FIRST, SECOND, THIRD]),
        ("name=77", [FIRST, SECOND, THIRD, FOURTH, ALONE]),  # a job id
        ("run=alone/*", [ALONE]),
        ("grid=search", [FIRST, SECOND, THIRD, FOURTH]),
        ("grid!=search", [ALONE]),
        ("experiment='alone'", [ALONE]),
        ("commit=abababab", [ALONE]),
        ("sync=OutOfSync", []),
        ("attempts>1", []),
        ("attempts=1,2", [FIRST, SECOND, THIRD, FOURTH, ALONE]),
        ("val_accuracy>0.9", [SECOND]),
        ("val_accuracy >= 5e-1", [SECOND, FOURTH]),
        ("val_accuracy<0.9", [FOURTH]),
        ("val_accuracy=nan", [THIRD]),
        ("val_accuracy!=0.95", [FIRST, THIRD, FOURTH, ALONE]),
        ("best<=0.5", [FOURTH]),
        ("metrics.step=7", [SECOND]),
        ("step=7", []),
        ("optimizer.lr=1e-2", [SECOND]),
        ("lr=1e-2,auto", [SECOND, FOURTH]),
        ("lr<0.1", [SECOND, THIRD]),
        ("parameters.optimizer.lr>=0.1", [FIRST]),
        ("lr!=auto", [FIRST, SECOND, THIRD, ALONE]),
        ("state=failed or val_accuracy>0.9", [FIRST, SECOND]),
        ("grid=search and not state=completed", [FIRST, FOURTH]),
        ("not (state=completed or state=failed)", [FOURTH, ALONE]),
        ("state=failed OR state=completed AND val_accuracy>0.9", [FIRST, SECOND]),
        ("(state=failed or state=completed) and lr>0.05", [FIRST]),
        ("not not state=failed", [FIRST]),
    ],
)
def test_a_condition_selects_the_runs_for_which_it_holds(text: str, runs: list[int]) -> None:
    assert selected(text) == runs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "column 1: expected a condition like state=failed"),
        ("state", "column 6: expected =, !=, <, <=, > or >= after 'state'"),
        ("state=", "column 7: a value is missing here"),
        ("state=failed,", "column 14: a value is missing here"),
        ("state=failed,,lost", "column 14: a value is missing here"),
        ("state=faild", "column 7: no state 'faild'. Did you mean 'failed'?"),
        ("state=failed,los", "column 14: no state 'los'. Did you mean 'lost'?"),
        ("state=failed && lr=1", "column 14: expected \"and\" or \"or\" before '&&': write 'and'"),
        ("state=failed lr=1", 'column 14: expected "and" or "or" before \'lr=1\''),
        ("!state=failed", "column 1: expected a condition like state=failed, got '!state=failed'"),
        ("state<failed", "column 1: state is text: compare it with = or !="),
        ("val_acuracy>0.9", "column 1: no run has a metric or parameter 'val_acuracy'."),
        ("state=failed and val_acuracy>1", "column 18: no run has a metric or parameter"),
        ("val_acuracy>0.9", "Did you mean 'val_accuracy'?"),
        ("stat=failed", "Did you mean 'state'?"),
        ("zzzzzzzzz=1", "Known: name, run, "),
        ("val_accuracy>high", "column 14: expected a number, got 'high'"),
        ("val_accuracy>0.1,0.2", "> takes one number"),
        ("(state=failed", "column 1: this parenthesis is not closed"),
        ("state=failed)", "column 13: this parenthesis was not opened"),
        ("name='a", "column 6: this quote is not closed"),
        ("(" * 60 + "state=failed" + ")" * 60, "nested more than 50 levels deep"),
        ("not " * 9999 + "a=1", "longer than 10000 characters"),
        ("__import__('os')", "column 11: expected =, !=, <, <=, > or >= after '__import__'"),
    ],
)
def test_a_mistake_is_named_with_its_column_and_what_to_write(text: str, message: str) -> None:
    with pytest.raises(WhereError) as found:
        where(text, RUNS)
    assert message in str(found.value)
    assert found.value.exit_code == 64


def test_a_last_part_that_several_parameters_have_is_ambiguous() -> None:
    both = experiment("x", "g", **{"optimizer.lr": 1, "head.lr": 2})
    one = record(both, f"g/{AT}/x", parameters=both.parameters)
    with pytest.raises(WhereError, match=r"several parameters: head\.lr, optimizer\.lr"):
        where("lr=1", [one])
    assert where("head.lr=2", [one])(one)


@given(st.text(max_size=30) | st.text("()=!<>,'\" andorstelr0.1&|", max_size=40))
def test_any_text_is_a_condition_or_a_mistake(text: str) -> None:
    with suppress(WhereError):
        holds = where(text, RUNS)
        assert all(holds(one) in (True, False) for one in RUNS)
