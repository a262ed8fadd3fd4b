"""Which runs conditions choose."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.states import RunState
from mtf.errors import UsageError
from mtf.ledger.store import Ledger
from mtf.project.run_lookup import choose
from tests.core.planner.worlds import experiment, iso, record

if TYPE_CHECKING:
    from mtf.core.vocabulary.ids import RunId


def ended(name: str, state: RunState, cause: str, *, at: str = "20260101T110000Z") -> tuple[RunId, object]:  # fmt: skip
    made = record(experiment(name), run=f"{name}/{at}/cccccccc", state=state)
    attempt = replace(made.attempt, outcome=cause, ended_at=iso())
    return made.run, replace(made, attempts=(attempt,))


RUNS = dict([
    ended("small", RunState.FAILED, "host-oom"),
    ended("large", RunState.FAILED, "cuda-oom"),
    ended("late", RunState.TIMEOUT, "time-limit"),
    ended("large", RunState.FAILED, "host-oom", at="20250101T110000Z"),  # of an older submission
])  # fmt: skip
LEDGER = Ledger(None, RUNS, frozenset())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (["cause=host-oom"], ["small"]),
        (["cause=host-oom,cuda-oom"], ["large", "small"]),
        (["state=failed", "name=l*"], ["large"]),
        (["state=failed,timeout", "cause=time-limit"], ["late"]),
        (["cause=lost"], []),
    ],
)
def test_all_conditions_hold_together_for_the_newest_run_of_each_name(
    where: list[str], names: list[str]
) -> None:
    assert [r.experiment for r in choose(LEDGER, [], where)] == names


def test_named_runs_are_narrowed() -> None:
    old = "large/20250101T110000Z/cccccccc"
    assert [r.run for r in choose(LEDGER, [old, "late"], ["cause=host-oom"])] == [old]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cause=host-om", "no cause 'host-om'. Did you mean 'host-oom'?"),
        ("state=failled", "no state 'failled'. Did you mean 'failed'?"),
        ("casue=host-oom", "write cause=..., state=... or name=GLOB"),
        ("cause=", "write cause=..."),
        ("host-oom", "write cause=..."),
    ],
)
def test_a_condition_that_means_nothing_is_told(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose(LEDGER, [], [text])
    assert said in str(caught.value)
