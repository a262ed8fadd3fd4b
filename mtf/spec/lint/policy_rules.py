"""Which policies a resolved spec breaks, and where in its files that stands. Pure."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from mtf.core.review.costs import total_cost
from mtf.errors import Problem
from mtf.spec.lint.key_positions import position_of
from mtf.spec.schema.patterns import matches

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtf.core.review.costs import Cost
    from mtf.core.vocabulary.experiments import Desired
    from mtf.spec.schema.policies import Limits, Policies, PullRequestLimits

Finding = tuple[str, str, str]  # rule, the key whose place it is at (key=JSON of a value), message


def violations(desired: Desired, policies: Policies) -> tuple[Problem, ...]:
    """Return a problem for each rule that a spec breaks, at what breaks it."""
    limits = policies.at(desired.path)
    return tuple(
        Problem(*position_of(desired.places, key), f"{desired.name}: {message}", rule=rule)
        for rule, key, message in _findings(desired, limits)
    )


def _findings(desired: Desired, limits: Limits) -> Iterator[Finding]:
    if limits.names is not None and not matches(limits.names, desired.name):
        yield "names", "", f"the name does not match {limits.names}"
    for key in limits.require or ():
        if not all(_said(e.config, key) for e in desired.experiments):
            yield "require", key, f"{key} is missing, every spec must say it"
    yield from _one_of(desired, "partition", limits.partitions, "partitions")
    yield from _one_of(desired, "account", limits.accounts, "accounts")
    yield from _counts(desired, limits)
    if limits.max_gpu_hours is not None or limits.max_cpu_hours is not None:
        yield from _budgets(total_cost(e.resources for e in desired.experiments), limits)


def _counts(desired: Desired, limits: Limits) -> Iterator[Finding]:
    number, most = len(desired.experiments), limits.max_runs
    if most is not None and number > most:
        yield "max_runs", "", f"{number:,} runs, {most:,} are allowed"
    most = limits.max_parallel
    if most is not None and number > most and (desired.max_parallel or number) > most:
        yield "max_parallel", "max_parallel", f"write max_parallel: {most} (or less)"


def _budgets(cost: Cost, limits: Limits | PullRequestLimits) -> Iterator[Finding]:
    budgets = (
        ("max_gpu_hours", cost.gpu_hours, limits.max_gpu_hours, "GPU-hours"),
        ("max_cpu_hours", cost.cpu_hours, limits.max_cpu_hours, "CPU-hours"),
    )
    for rule, hours, most, unit in budgets:
        if most is None:
            continue
        if hours is None:
            why = "write slurm.time, and no slurm.extra that takes whole nodes"
            yield rule, "slurm.time", f"{unit} have no bound, {most:,.6g} are allowed: {why}"
        elif hours > most:
            yield rule, "slurm.time", f"at most {hours:,.6g} {unit}, {most:,.6g} are allowed"


def _one_of(
    desired: Desired, field: str, allowed: list[str] | None, rule: str
) -> Iterator[Finding]:
    if allowed is None:
        return
    listed = ", ".join(allowed) or "none"
    found = Counter(str(e.resources[field] or "") for e in desired.experiments)  # type: ignore[literal-required]
    for value in found:
        if not value:
            yield rule, "slurm", f"slurm.{field} must be said: {listed}"
        elif not set(value.split(",")) <= set(allowed):
            key = f"slurm.{field}={json.dumps(value)}"
            yield rule, key, f"{field} {value} is not allowed: {listed}"


def _said(config: Mapping[str, Any], key: str) -> bool:
    section, _, field = key.partition(".")
    value = config.get(section)
    return bool(value.get(field) if field and isinstance(value, dict) else value)


def over_budget(cost: Cost, runs: int, limits: PullRequestLimits) -> tuple[tuple[str, str], ...]:
    """Return rule and message for each limit that all changes of a pull request exceed together."""
    found = [(f"pull_request.{rule}", message) for rule, _, message in _budgets(cost, limits)]
    if limits.max_runs is not None and runs > limits.max_runs:
        message = f"{runs:,} runs, {limits.max_runs:,} are allowed"
        found.append(("pull_request.max_runs", message))
    return tuple(found)
