"""The Python face of validation."""

from __future__ import annotations

from mtf.framework import ConfigValidator
from mtf.spec.schema.settings import parse_settings

CONFIG = {
    "experiment_name": "one",
    "model": {"type": "mlp"},
    "data": {"dataset_name": "digits", "num_workers": 4},
    "slurm": {"cpus_per_task": 2, "partition": "gpo"},
}
SETTINGS = b"cluster: {partitions: {gpu: {default: true, nodes: [{cpus: 8, mem: 8G}]}}}\n"


def test_errors_and_warnings_are_told_apart() -> None:
    result = ConfigValidator().validate_config({**CONFIG, "trainign": {}})
    assert not result.is_valid
    assert "Did you mean 'training'?" in result.errors[0].message
    result = ConfigValidator().validate_config(CONFIG)
    assert result.is_valid
    assert [problem.message.split(":")[0] for problem in result.warnings] == ["data.num_workers"]


def test_resources_are_held_against_what_is_known_of_the_cluster() -> None:
    assert ConfigValidator().check_resource_requirements(CONFIG).source is None
    check = ConfigValidator(parse_settings(SETTINGS)).check_resource_requirements(CONFIG)
    assert not check.is_feasible
    assert "Did you mean 'gpu'?" in check.problems[0].message
    assert [needs["cpus_per_task"] for needs in check.resources] == [2]
