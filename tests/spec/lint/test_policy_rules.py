"""Policies: which specs break which rule, at which position, and exceptions by path."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.core.review.costs import Cost, cost_of, total_cost
from mtf.core.sbatch.section_options import section_demand
from mtf.errors import SpecError
from mtf.spec.lint.policy_rules import over_budget
from mtf.spec.schema.patterns import matches, matches_path
from mtf.spec.schema.policies import PullRequestLimits
from mtf.spec.schema.settings import parse_settings
from mtf.spec.schema.slurm_section import SLURMConfig
from tests.spec.samples import BASE, EXPERIMENT, load, problems

if TYPE_CHECKING:
    from mtf.core.vocabulary.jobs import Resources

GRID = "kind: grid\nname: g\nbase: base.yaml\nparameters: {training.seed: [1, 2, 3]}\n"
HOUR = 'slurm: {gpus_per_node: 2, cpus_per_task: 4, time: "01:00:00"}\n'


def broken(policies: str, *, base: str = BASE + HOUR, grid: str = GRID) -> list[str]:
    return problems(f"policies: {{{policies}}}\n", base=base, g=grid)


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ("max_gpu_hours: 6, max_cpu_hours: 12, max_runs: 3, max_parallel: 3, names: '[a-z]+'", []),
        ("max_gpu_hours: 5.5", ["base.yaml:4:51: g: up to 6 GPU-hours, at most 5.5 are allowed [max_gpu_hours]"]),
        ("max_cpu_hours: 11", ["base.yaml:4:51: g: up to 12 CPU-hours, at most 11 are allowed [max_cpu_hours]"]),
        ("max_runs: 2", ["g.yaml:2:7: g: 3 runs, at most 2 are allowed [max_runs]"]),
        ("max_parallel: 2", ["g.yaml:2:7: g: at most 2 of its runs may run at a time. Write max_parallel: 2 [max_parallel]"]),
        ("names: '[a-z]{2,}'", ["g.yaml:2:7: g: the name does not match the pattern [a-z]{2,} [names]"]),
        ("require: [owner, slurm.time]", ["g.yaml:2:7: g: owner is missing. Every spec must give it [require]"]),
        ("partitions: [low]", ["base.yaml:4:8: g: slurm.partition is missing. Allowed: low [partitions]"]),
        ("accounts: []", ["base.yaml:4:8: g: slurm.account is missing. Allowed: none [accounts]"]),
    ],
)  # fmt: skip
def test_a_broken_rule_is_reported_at_the_key_that_breaks_it(
    policies: str, expected: list[str]
) -> None:
    assert broken(policies) == expected


def test_a_broken_rule_is_reported_at_the_value_of_a_grid() -> None:
    linked = [
        "linked:\n- - {training.seed: 1, slurm.partition: low}",
        "  - {training.seed: 2, slurm.partition: gpu}",
        "  - {training.seed: 3, slurm.partition: 'low,big'}\n",
    ]
    grid = GRID.replace("parameters: {training.seed: [1, 2, 3]}\n", "\n".join(linked))
    assert broken("partitions: [low]", grid=grid) == [
        "g.yaml:6:41: g: slurm.partition: gpu is not allowed. Allowed: low [partitions]",
        "g.yaml:7:41: g: slurm.partition: low,big is not allowed. Allowed: low [partitions]",
    ]


def test_slurm_defaults_of_the_settings_are_checked_too() -> None:
    settings = "slurm: {partition: gpu}\npolicies: {partitions: [low]}\n"
    assert problems(settings, one=EXPERIMENT) == [
        "one.yaml:2:18: one: slurm.partition: gpu is not allowed. Allowed: low [partitions]"
    ]


def test_a_spec_that_breaks_a_rule_remains_desired() -> None:
    loaded = load("policies: {max_runs: 2}\n", base=BASE, g=GRID, one=EXPERIMENT)
    assert [one.name for one in loaded.desired] == ["g", "one"]
    assert list(loaded.refused) == ["g"]


def test_a_job_without_time_limit_breaks_every_budget() -> None:
    for slurm in ("slurm: {gpus_per_node: 1}\n", "slurm: {gpus_per_node: 1, time: UNLIMITED}\n"):
        [problem] = broken("max_gpu_hours: 100", base=BASE + slurm)
        assert "unlimited GPU-hours, at most 100 are allowed. Set slurm.time" in problem
    assert broken("max_gpu_hours: 0", base=BASE) == []  # no GPU at all


def test_the_last_matching_exception_that_gives_a_rule_counts() -> None:
    rules = (
        "policies:\n  max_runs: 1\n  require: [owner]\n  exceptions:\n"
        "  - {paths: [experiments/], max_runs: 2}\n"
        "  - {paths: ['**/g.yaml'], max_runs: 3}\n"
        "  - {paths: ['other/*'], max_runs: 1}\n"
        "  - {paths: ['experiments/*.yaml'], require: null}\n"
    )
    assert problems(rules, base=BASE, g=GRID) == []
    [problem] = problems(rules, base=BASE, h=GRID)
    assert problem.endswith("3 runs, at most 2 are allowed [max_runs]")


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("experiments/prod/**", "experiments/prod/a/b.yaml", True),
        ("experiments/prod", "experiments/prod/a.yaml", True),
        ("experiments/prod", "experiments/production.yaml", False),
        ("experiments/*.yaml", "experiments/a/b.yaml", False),
        ("experiments/**/b.yaml", "experiments/b.yaml", True),
        ("experiments/?.yaml", "experiments/ab.yaml", False),
        ("experiments/a.yaml", "experiments/axyaml", False),
    ],
)
def test_one_star_matches_within_a_folder_and_two_across_folders(
    pattern: str, path: str, *, matches: bool
) -> None:
    text = f"policies: {{max_runs: 1, exceptions: [{{paths: ['{pattern}'], max_runs: 2}}]}}\n"
    policies = parse_settings(text.encode()).policies
    assert policies.at(path).max_runs == (2 if matches else 1)


PATTERNS = ("experiments/a/**", "experiments/*.yaml", "**/b.yaml", "experiments/?.yaml", "other")
PATHS = ("experiments/a/x.yaml", "experiments/b.yaml", "experiments/long.yaml", "x/b.yaml")


@given(st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3), st.sampled_from(PATHS))
def test_an_exception_applies_if_any_of_its_patterns_matches(
    patterns: list[str], path: str
) -> None:
    text = f"policies: {{max_runs: 1, exceptions: [{{paths: {patterns}, max_runs: 2}}]}}\n"
    found = parse_settings(text.encode()).policies.at(path).max_runs
    assert found == (2 if any(matches_path(pattern, path) for pattern in patterns) else 1)


def test_errors_in_policies_are_reported() -> None:
    text = (
        "policies:\n  names: '['\n  max_gpu: 1\n  max_runs: 0\n"
        "  exceptions: [{paths: [], max_run: 1}, {paths: [/x]}]\n  require: [ownr]\n"
    )
    with pytest.raises(SpecError) as raised:
        parse_settings(text.encode())
    found = [str(p) for p in raised.value.problems]
    assert [p.split(" ", 1)[0] for p in found] == [
        f"mtf.yaml:{n}:" for n in ("2:10", "3:3", "4:13", "5:24", "5:28", "5:50", "6:13")
    ]
    assert "not a regular expression" in found[0]
    assert "Did you mean" in found[1]
    assert "Did you mean 'max_runs'?" in found[4]


def test_a_pattern_with_exponential_backtracking_is_matched_at_once() -> None:
    policies = parse_settings(b"policies: {names: '(a|a|aa)+b', exceptions: [{paths: ['" + b"**/a/" * 40 + b"b'], max_runs: 2}]}\n").policies  # fmt: skip
    assert not matches(policies.names or "", "a" * 100)
    assert policies.at("a/" * 60 + "c").max_runs is None
    with pytest.raises(SpecError, match="look-around"):
        parse_settings(b"policies: {names: '(?!x).*'}\n")


def cost(**slurm: object) -> Cost:
    section = SLURMConfig.model_validate(slurm).model_dump()
    return cost_of(section_demand(cast("Resources", section)))


def test_extra_sbatch_options_count_in_the_cost() -> None:
    assert cost(time="2:00:00", nodes=2, gpus_per_node=4, ntasks_per_node=2) == Cost(16.0, 8.0)
    assert cost(time="60", extra=["--gres=gpu:a100:2,gpu:1"]).gpu_hours == 3
    assert cost(time="60", extra=["--gres=gpu"]).gpu_hours == 1
    assert cost(time="60", ntasks_per_node=4, extra=["--gpus-per-task=h100:2"]).gpu_hours == 8
    assert cost(time="60", extra=["--exclusive"]) == Cost(None, None)  # all GPUs of the node
    assert cost(time="60", extra=["--exclus"]).cpu_hours is None
    assert cost(time="60", extra=["--hold", "--nice=5"]) == Cost(0, 1)
    assert cost() == Cost(0, None)
    assert total_cost([]) == Cost(0, 0)


def test_the_changes_of_a_pull_request_have_their_own_budgets() -> None:
    limits = PullRequestLimits(max_gpu_hours=10, max_runs=5)
    assert over_budget(Cost(10, None), 5, limits) == ()
    assert [rule for rule, _ in over_budget(Cost(None, 1), 6, limits)] == [
        "pull_request.max_gpu_hours", "pull_request.max_runs",
    ]  # fmt: skip
