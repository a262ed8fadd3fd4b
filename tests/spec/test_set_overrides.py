"""`--set`: which keys may change, which values they take, and what is said of others."""

from __future__ import annotations

from typing import Any

import pytest

from mtf.errors import UsageError
from mtf.spec.schema.dotted_keys import SECTIONS
from mtf.spec.set_overrides import changed, parse_changes

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
    ("text", "said"),
    [
        ("slurm.memm=16G", "Did you mean 'slurm.mem'?"),
        ("slurm.mem=16Q", "'16Q' is not an amount of memory"),
        ("slurm.mem", "write KEY=VALUE, like slurm.mem=16G"),
        ("slurm={}", "write KEY=VALUE"),
        ("training.batch_size=8", "with another training it is another run"),
        ("slurm.nodes=two", "slurm.nodes: must be a valid integer"),
        ("slurm.extra=[--array=1-9]", "mtf sets this option itself"),
        ("slurm.mem=1G\nslurm: {}", "--set"),
        ("slurm.partition=*x", "--set slurm.partition=*x"),
        ("nonsense=1", "--set nonsense=1"),
    ],
)
def test_a_mistake_is_told_with_what_was_meant(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        changed(CONFIG, parse_changes([text]))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value).replace(text, "")
