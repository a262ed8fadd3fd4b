"""Run keys: which values are part of a run's identity."""

from __future__ import annotations

from dataclasses import replace

from mtf.core.vocabulary.experiments import former_run_key, run_key
from tests.core.planner.worlds import experiment


def test_an_unset_key_added_by_a_later_version_changes_no_run_key() -> None:
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


def test_a_null_passed_to_a_constructor_is_part_of_the_key() -> None:
    one = experiment("one")
    plain = replace(one, config={"model": {"type": "m"}})
    assert run_key(replace(one, config={"model": {"type": "m", "head": None}}), {}) != run_key(
        plain, {}
    )


def test_a_run_of_an_earlier_version_keeps_its_key() -> None:
    one = experiment("one")
    filled = {"hidden_size": 512, "num_layers": 6, "dropout": 0.1, "activation": "relu"}
    recorded = replace(one, config={**one.config, "model": {"type": "lab:Net", **filled}})
    now = replace(one, config={**one.config, "model": {"type": "lab:Net"}})
    assert run_key(now, {}) != run_key(recorded, {})
    assert former_run_key(now, {}) == run_key(recorded, {})
