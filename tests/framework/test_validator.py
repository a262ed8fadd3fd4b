"""`ConfigValidator` as a script uses it."""

from __future__ import annotations

import json

from mtf.framework import ConfigValidator
from mtf.spec.schema.settings import parse_settings

CONFIG = {
    "experiment_name": "one",
    "model": {"type": "mlp"},
    "data": {"dataset_name": "digits", "num_workers": 4},
    "slurm": {"cpus_per_task": 2, "partition": "gpo"},
}
SETTINGS = b"cluster: {partitions: {gpu: {default: true, nodes: [{cpus: 8, mem: 8G}]}}}\n"


def test_errors_make_a_configuration_invalid_and_warnings_do_not() -> None:
    result = ConfigValidator().validate_config({**CONFIG, "trainign": {}})
    assert not result.is_valid
    assert "Did you mean 'training'?" in result.errors[0].message
    assert all(problem.is_error for problem in result.errors)
    assert not any(problem.is_error for problem in result.warnings)
    result = ConfigValidator().validate_config(CONFIG)
    assert result.is_valid
    assert [problem.message.split(":")[0] for problem in result.warnings] == ["data.num_workers"]


def test_resources_are_compared_with_the_partitions_in_the_settings() -> None:
    assert ConfigValidator().check_resource_requirements(CONFIG).source is None
    check = ConfigValidator(parse_settings(SETTINGS)).check_resource_requirements(CONFIG)
    assert not check.is_feasible
    assert "Did you mean 'gpu'?" in check.problems[0].message
    assert [needs["cpus_per_task"] for needs in check.resources] == [2]


def test_a_configuration_that_fits_the_cluster_is_feasible() -> None:
    fitting = {**CONFIG, "slurm": {"cpus_per_task": 8, "mem": "1G", "partition": "gpu"}}
    check = ConfigValidator(parse_settings(SETTINGS)).check_resource_requirements(fitting)
    assert check.is_feasible
    assert check.problems == ()
    assert check.source == "cluster: in mtf.yaml"


def test_a_configuration_with_a_base_is_checked_as_a_grid() -> None:
    base = {key: value for key, value in CONFIG.items() if key != "experiment_name"}
    grid = {
        "name": "cpus",
        "base": base,
        "linked": [
            [
                {"training.seed": 1, "slurm.cpus_per_task": 2},
                {"training.seed": 2, "slurm.cpus_per_task": 16},
            ]
        ],
    }
    assert ConfigValidator().validate_config(grid).is_valid
    check = ConfigValidator(parse_settings(SETTINGS)).check_resource_requirements(grid)
    assert sorted(needs["cpus_per_task"] for needs in check.resources) == [2, 16]
    result = ConfigValidator().validate_config({**grid, "parameters": {"slurm.cpu": [2]}})
    assert not result.is_valid
    assert "slurm.cpu" in result.errors[0].message


def test_the_policies_of_the_settings_apply() -> None:
    rules = parse_settings(b"policies: {require: [owner]}\n")
    (error,) = ConfigValidator(rules).validate_config(CONFIG).errors
    assert error.rule == "require"
    assert ConfigValidator(rules).validate_config({**CONFIG, "owner": "me"}).is_valid


def test_the_defaults_of_the_settings_apply() -> None:
    settings = parse_settings(b"slurm: {mem: 3G}\n")
    check = ConfigValidator(settings).check_resource_requirements(CONFIG)
    assert [needs["mem"] for needs in check.resources] == ["3G"]


def test_a_mistake_is_reported_at_its_line_of_the_configuration_as_json() -> None:
    (error,) = ConfigValidator().validate_config({**CONFIG, "seeed": 1}).errors
    assert error.path == "configuration"
    lines = json.dumps({"kind": "experiment", **CONFIG, "seeed": 1}, indent=1).splitlines()
    assert "seeed" in lines[error.line - 1]
