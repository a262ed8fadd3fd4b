"""`mtf retry --set`: which keys may change, how values are read, and messages for errors."""

from __future__ import annotations

from typing import Any

import pytest

from mtf.errors import UsageError
from mtf.spec.schema.dotted_keys import SECTIONS
from mtf.spec.set_overrides import changed, difference, parse_changes

CONFIG: dict[str, Any] = {
    "model": {"type": "mlp"},
    **{name: SECTIONS[name]().model_dump(mode="json") for name in ("slurm", "logging", "checkpoint")},
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("slurm.mem=16G", "slurm.mem", "16G"),
        ("slurm.mem=16", "slurm.mem", "16"),
        ("slurm.time=01:30:00", "slurm.time", "01:30:00"),
        ("slurm.cpus_per_task=8", "slurm.cpus_per_task", 8),
        ("slurm.extra=[--exclude=n1]", "slurm.extra", ["--exclude=n1"]),
        ("slurm.variables.A=b=c", "slurm.variables.A", "b=c"),
        ("slurm.partition=", "slurm.partition", None),
        ("checkpoint.every_n_minutes=5", "checkpoint.every_n_minutes", 5),
        ("logging.csv=true", "logging.csv", True),
    ],
)
def test_a_value_is_read_as_in_a_spec(text: str, key: str, value: object) -> None:
    new = changed(CONFIG, parse_changes([text]))
    section, *inside = key.split(".")
    found = new[section]
    for part in inside:
        found = found[part]
    assert found == value
    assert {k: v for k, v in new.items() if k != section} == {
        k: v for k, v in CONFIG.items() if k != section
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("slurm.memm=16G", "Did you mean 'slurm.mem'?"),
        ("slurm.mem=16Q", 'expected an amount of memory like 2G or 800M, got "16Q"'),
        ("slurm.mem", "expected KEY=VALUE, like slurm.mem=16G"),
        ("slurm={}", "expected KEY=VALUE"),
        ("training.batch_size=8", "changing training makes another run"),
        ("slurm.nodes=two", "slurm.nodes: expected an integer"),
        ("slurm.extra=[--array=1-9]", "is set by mtf itself"),
        ("slurm.mem=1G\nslurm: {}", "--set"),
        ("slurm.partition=*x", "--set slurm.partition=*x"),
        ("nonsense=1", "--set nonsense=1"),
    ],
)
def test_an_error_is_reported_in_one_line(text: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        changed(CONFIG, parse_changes([text]))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value).replace(text, "")


@pytest.mark.parametrize(
    ("key", "old", "new"),
    [
        ("slurm.mem", None, "2G"),
        ("logging.csv", False, True),
        ("checkpoint.keep_last", 3, 5),
    ],
)
def test_what_a_spec_has_changed_since_is_found_once(key: str, old: object, new: object) -> None:
    wanted = changed(CONFIG, {key: new})
    assert difference(CONFIG, {}, CONFIG) == []
    assert difference(CONFIG, {}, wanted) == [(key, old, new)]
    assert difference(CONFIG, {key: new}, wanted) == []  # it was followed before
    assert difference(CONFIG, {key: new}, CONFIG) == [(key, new, old)]  # and taken back


def test_a_key_that_an_older_version_did_not_know_has_not_changed() -> None:
    older = {k: v for k, v in CONFIG["logging"].items() if k != "log_gradients"}
    assert difference({**CONFIG, "logging": older}, {}, CONFIG) == []
