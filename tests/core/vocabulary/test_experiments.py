"""What belongs to a run's identity."""

from __future__ import annotations

from dataclasses import replace

from mtf.core.vocabulary.experiments import run_key
from tests.core.planner.worlds import experiment


def test_a_key_that_a_later_version_adds_unset_runs_nothing_anew() -> None:
    one = experiment("one")
    unset = {"compile": False, "max_grad_value": None}
    old = replace(one, config={**one.config, "training": {"max_epochs": 5}})
    new = replace(
        one, config={**one.config, "training": {"max_epochs": 5, **unset}, "callbacks": []}
    )
    assert run_key(new, {}) == run_key(old, {})
    for key, value in (("compile", True), ("max_grad_value", 0.0), ("max_grad_value", 0)):
        training = {"max_epochs": 5, **unset, key: value}
        assert run_key(replace(new, config={**new.config, "training": training}), {}) != run_key(
            old, {}
        )


def test_a_null_that_the_user_gives_to_a_constructor_is_a_value() -> None:
    one = experiment("one")
    plain = replace(one, config={"model": {"type": "m"}})
    assert run_key(replace(one, config={"model": {"type": "m", "head": None}}), {}) != run_key(
        plain, {}
    )
