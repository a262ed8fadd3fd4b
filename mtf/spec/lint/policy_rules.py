"""Finds the policies that a resolved spec breaks, at the position of the key that breaks them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from mtf.core.review.costs import total_cost
from mtf.core.vocabulary import json_text
from mtf.errors import Problem
from mtf.spec.lint.key_positions import position_of
from mtf.spec.schema.patterns import matches

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtf.core.review.costs import Cost
    from mtf.core.vocabulary.experiments import Desired
    from mtf.spec.schema.policies import Limits, Policies, PullRequestLimits

Finding = tuple[str, str, str]  # rule, key to report it at (key=JSON for a grid's value), message


def violations(desired: Desired, policies: Policies) -> tuple[Problem, ...]:
    """Return a problem for each rule that a spec breaks."""
    limits = policies.at(desired.path)
    return tuple(
        Problem(*position_of(desired.places, key), f"{desired.name}: {message}", rule=rule)
        for rule, key, message in _findings(desired, limits)
    )


def _findings(desired: Desired, limits: Limits) -> Iterator[Finding]:
    if limits.names is not None and not matches(limits.names, desired.name):
        yield "names", "", f"the name does not match the pattern {limits.names}"
    for key in limits.require or ():
        if not all(_has_value(e.config, key) for e in desired.experiments):
            yield "require", key, f"{key} is missing. Every spec must give it"
    yield from _allowed_values(desired, "partition", limits.partitions, "partitions")
    yield from _allowed_values(desired, "account", limits.accounts, "accounts")
    yield from _numbers_of_runs(desired, limits)
    if limits.max_gpu_hours is not None or limits.max_cpu_hours is not None:
        yield from _budgets(total_cost(e.resources for e in desired.experiments), limits)


def _numbers_of_runs(desired: Desired, limits: Limits) -> Iterator[Finding]:
    number, most = len(desired.experiments), limits.max_runs
    if most is not None and number > most:
        yield "max_runs", "", f"{number:,} runs, at most {most:,} are allowed"
    most = limits.max_parallel
    if most is not None and number > most and (desired.max_parallel or number) > most:
        message = f"at most {most} of its runs may run at a time. Write max_parallel: {most}"
        yield "max_parallel", "max_parallel", message


def _budgets(cost: Cost, limits: Limits | PullRequestLimits) -> Iterator[Finding]:
    budgets = (
        ("max_gpu_hours", cost.gpu_hours, limits.max_gpu_hours, "GPU-hours"),
        ("max_cpu_hours", cost.cpu_hours, limits.max_cpu_hours, "CPU-hours"),
    )
    for rule, hours, most, unit in budgets:
        if most is None:
            continue
        if hours is None:
            fix = "Set slurm.time, and no slurm.extra that takes whole nodes"
            message = f"unlimited {unit}, at most {most:,.6g} are allowed. {fix}"
            yield rule, "slurm.time", message
        elif hours > most:
            message = f"up to {hours:,.6g} {unit}, at most {most:,.6g} are allowed"
            yield rule, "slurm.time", message


def _allowed_values(
    desired: Desired, field: str, allowed: list[str] | None, rule: str
) -> Iterator[Finding]:
    if allowed is None:
        return
    listed = ", ".join(allowed) or "none"
    given = (dict(e.resources)[field] for e in desired.experiments)
    for value in Counter(str(value or "") for value in given):
        if not value:
            yield rule, "slurm", f"slurm.{field} is missing. Allowed: {listed}"
        elif not set(value.split(",")) <= set(allowed):
            key = f"slurm.{field}={json_text.dumps(value)}"
            yield rule, key, f"slurm.{field}: {value} is not allowed. Allowed: {listed}"


def _has_value(config: Mapping[str, Any], key: str) -> bool:
    section, _, field = key.partition(".")
    value = config.get(section)
    return bool(value.get(field) if field and isinstance(value, dict) else value)


def over_budget(cost: Cost, runs: int, limits: PullRequestLimits) -> tuple[tuple[str, str], ...]:
    """Return rule and message of each limit that a pull request's changes exceed together."""
    found = [(f"pull_request.{rule}", message) for rule, _, message in _budgets(cost, limits)]
    if limits.max_runs is not None and runs > limits.max_runs:
        message = f"{runs:,} runs, at most {limits.max_runs:,} are allowed"
        found.append(("pull_request.max_runs", message))
    return tuple(found)
