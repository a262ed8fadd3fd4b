"""Finds the policies that a resolved spec breaks, at the position of the key that breaks them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from mtf.core.review.costs import total_cost
from mtf.core.sbatch.demand import UNBOUNDED, Demand, demand_of
from mtf.core.sbatch.option_rules import forbidden
from mtf.core.sbatch.read_script import ScriptOptionError
from mtf.core.sbatch.section_options import job_options
from mtf.core.vocabulary import json_text
from mtf.errors import Problem
from mtf.spec.lint.key_positions import position_of
from mtf.spec.schema.patterns import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mtf.core.review.costs import Cost
    from mtf.core.sbatch.read_script import JobOptions
    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.jobs import Resources
    from mtf.spec.schema.policies import Limits, Policies, PullRequestLimits

    OptionsOf = Callable[[Resources], JobOptions]

Finding = tuple[str, str, str]  # rule, key to report it at (key=JSON for a grid's value), message


def violations(desired: Desired, policies: Policies) -> tuple[Problem, ...]:
    """Return a problem for each rule that a spec breaks by what it asks for."""
    limits = policies.at(desired.path)
    findings = (*_of_spec(desired, limits), *_of_jobs(desired, limits, job_options))
    return tuple(
        Problem(*position_of(desired.places, key), f"{desired.name}: {message}", rule=rule)
        for rule, key, message in findings
    )


def script_violations(
    desired: Desired, policies: Policies, options_of: OptionsOf, script: str
) -> tuple[Problem, ...]:
    """Return a problem for each rule that the scripts of a spec's jobs break, unlike the spec.

    Args:
        desired: the spec.
        policies: the rules.
        options_of: returns the options in the script of a run with these resources.
        script: the path of the template, where the problems are reported.
    """
    limits = policies.at(desired.path)
    known = {(rule, message) for rule, _, message in _of_jobs(desired, limits, job_options)}
    return tuple(
        Problem(script, 1, 1, f"{desired.name}: {message}", rule=rule)
        for rule, _, message in _of_jobs(desired, limits, options_of)
        if (rule, message) not in known
    )


def _of_spec(desired: Desired, limits: Limits) -> Iterator[Finding]:
    if limits.names is not None and not matches(limits.names, desired.name):
        yield "names", "", f"the name does not match the pattern {limits.names}"
    for key in limits.require or ():
        if not all(_has_value(e.config, key) for e in desired.experiments):
            yield "require", key, f"{key} is missing. Every spec must give it"
    yield from _numbers_of_runs(desired, limits)


def _of_jobs(desired: Desired, limits: Limits, options_of: OptionsOf) -> Iterator[Finding]:
    """Yield the findings about the options of the spec's jobs."""
    distinct = {id(e.resources): e.resources for e in desired.experiments}.values()
    yield from _options_not_allowed(distinct, limits, options_of)

    def demand(needs: Resources) -> Demand:
        try:
            return demand_of(options_of(needs))
        except ScriptOptionError:
            return UNBOUNDED

    yield from _allowed_values("partition", map(demand, distinct), limits.partitions)
    yield from _allowed_values("account", map(demand, distinct), limits.accounts)
    if limits.max_gpu_hours is not None or limits.max_cpu_hours is not None:
        cost = total_cost((e.resources for e in desired.experiments), demand)
        yield from _budgets(cost, limits)


def _options_not_allowed(
    runs: Iterable[Resources], limits: Limits, options_of: OptionsOf
) -> Iterator[Finding]:
    found: dict[str, None] = {}
    for needs in runs:
        if options_of is job_options and not needs["extra"]:
            continue  # keys of the section are all allowed
        try:
            options = options_of(needs)
        except ScriptOptionError as e:
            found[str(e)] = None
        else:
            found |= dict.fromkeys(m for _, m in forbidden(options, limits.sbatch_options or ()))
    for message in found:
        yield "sbatch_options", "slurm.extra", message


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
            fix = "Set slurm.time (0 is no limit), and no option that takes whole nodes"
            message = f"unlimited {unit}, at most {most:,.6g} are allowed. {fix}"
            yield rule, "slurm.time", message
        elif hours > most:
            message = f"up to {hours:,.6g} {unit}, at most {most:,.6g} are allowed"
            yield rule, "slurm.time", message


def _allowed_values(
    field: Literal["partition", "account"], demands: Iterable[Demand], allowed: list[str] | None
) -> Iterator[Finding]:
    if allowed is None:
        return
    listed = ", ".join(allowed) or "none"
    for value in dict.fromkeys(getattr(demand, field) for demand in demands):
        if not value:
            yield f"{field}s", "slurm", f"slurm.{field} is missing. Allowed: {listed}"
        elif not set(value.split(",")) <= set(allowed):
            key = f"slurm.{field}={json_text.dumps(value)}"
            message = f"slurm.{field}: {value} is not allowed. Allowed: {listed}"
            yield f"{field}s", key, message


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
