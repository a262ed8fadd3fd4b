"""A warning is given early if a save does not fit between the stop signal and the time limit."""

from __future__ import annotations

import pytest

from mtf.trainer.storage.stop_budget import (
    StopBudget,
    needed_lead_s,
    short_lead_warning,
    should_finish_write,
)


def test_there_is_no_warning_of_a_save_that_fits() -> None:
    assert short_lead_warning(80, 10, 10**9, 90) is None


def test_the_warning_of_a_save_that_does_not_fit_names_the_setting() -> None:
    warning = short_lead_warning(120, 7, 1_200_000_000, 90)
    assert warning is not None
    assert "1.2 GB takes about 120 s" in warning
    assert "micro-batch of 7 s" in warning
    assert "only 90 s before the time limit" in warning
    assert warning.endswith("Set slurm.signal_lead: 159")
    assert short_lead_warning(120, 7, 1_200_000_000, needed_lead_s(120, 7)) is None


def test_the_warning_is_given_once_and_again_when_it_gets_worse(
    capsys: pytest.CaptureFixture[str],
) -> None:
    budget = StopBudget(90)
    for save_s in (50, 100, 101, 99, 200):
        budget.check(save_s, 10**9)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[-1] for line in lines] == ["125", "250"]


@pytest.mark.parametrize(
    ("left", "whole", "grace", "is_best", "first"),
    [
        (10, 30, 60, False, True),  # both fit
        (40, 30, 60, False, False),  # only the newer one, if it begins at once
        (40, 90, 60, False, True),  # only the one under way
        (70, 90, 60, True, False),  # none
        (10, 30, None, False, True),  # nearly done
        (20, 30, None, False, False),
        (20, 30, None, True, True),  # one of the best
    ],
)
def test_a_write_under_way_is_finished_if_a_checkpoint_more_is_gained(
    left: float, whole: float, grace: float | None, is_best: bool, first: bool
) -> None:
    assert should_finish_write(left, whole, grace, is_best=is_best) is first
