"""Which policies a resolved spec breaks, and where in its files that stands. Pure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from mtf.core.review.costs import total_cost
from mtf.errors import Problem
from mtf.spec.schema.explain import located
from mtf.spec.schema.patterns import matches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mtf.core.review.costs import Cost
    from mtf.core.vocabulary.experiments import Desired, Spot
    from mtf.spec.grid.axes import Parts
    from mtf.spec.resolve import Base
    from mtf.spec.schema.policies import Limits, Policies, PullRequestLimits
    from mtf.spec.yaml.marks import Loc, Marks

Finding = tuple[str, str, str]  # rule, the key whose place it is at (key=JSON of a value), message
# whose places are kept: what policies and checks may be about, and the sections around it
_FIELDS = {
    "slurm": (
        "partition", "account", "qos", "time", "nodes", "ntasks_per_node", "gpus_per_node",
        "cpus_per_task", "mem",
    ),
    "data": ("num_workers",),
    "training": ("batch_size",),
    "scheduler": ("warmup_epochs", "warmup_steps", "num_warmup_steps", "total_iters"),
    "checkpoint": ("every_n_minutes", "every_n_epochs"),
    "callbacks": ("early_stopping",),
    "logging": ("use_wandb",),
}  # fmt: skip
_SAID = ("owner", "description", "max_parallel")


def violations(desired: Desired, policies: Policies) -> tuple[Problem, ...]:
    """Return a problem for each rule that a spec breaks, at what breaks it."""
    limits = policies.at(desired.path)
    return tuple(
        Problem(*spot(desired.places, key), f"{desired.name}: {message}", rule=rule)
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


# -- where it stands -------------------------------------------------------------------------------


def spot(places: Mapping[str, Spot], key: str) -> Spot:
    """Return the place of a key, of the section around it, or that of the spec's name."""
    for wish in (key, key.partition("=")[0], key.partition(".")[0], ""):
        if wish in places:
            return places[wish]
    return "", 1, 1


class Places(Mapping[str, "Spot"]):
    """Places that are looked up when the first is asked for: most specs break no rule."""

    def __init__(self, look: Callable[[], dict[str, Spot]]) -> None:
        """Take what looks all of them up."""
        self._look = look

    @cached_property
    def _found(self) -> dict[str, Spot]:
        return self._look()

    def __getitem__(self, key: str) -> Spot:
        """Return the place of a key."""
        return self._found[key]

    def __iter__(self) -> Iterator[str]:
        """Return the keys that stand somewhere."""
        return iter(self._found)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._found)


def places_of(marks: Callable[[], Marks]) -> Places:
    """Return where an experiment's file says what policies may be about; "" is its name."""
    return Places(lambda: _in_file(marks(), "experiment_name"))


def places_in_grid(base: Base, parts: Parts, marks: Marks) -> Places:
    """Return the same for a grid: its own keys and values before those of its base."""
    return Places(lambda: _in_grid(base, parts, marks))


def _in_file(marks: Marks, name_key: str) -> dict[str, Spot]:
    return {"": (marks.path, *marks.value((name_key,))), **_places(marks, ())}


def _in_grid(base: Base, parts: Parts, marks: Marks) -> dict[str, Spot]:
    found = _places(base.marks, base.prefix) | _in_file(marks, "name")
    for setting in parts.settings():
        if setting.path[0] not in _FIELDS:
            continue
        inside = setting.value.items() if isinstance(setting.value, dict) else ()
        for key, value, loc in [
            (setting.key, setting.value, setting.loc),
            *((f"{setting.key}.{field}", value, (*setting.loc, field)) for field, value in inside),
        ]:
            found[f"{key}={json.dumps(value)}"] = (marks.path, *marks.value(loc))
    return found


def _places(marks: Marks, prefix: Loc) -> dict[str, Spot]:
    found = {key: marks.find((*prefix, key)) for key in _SAID}
    for section, fields in _FIELDS.items():
        here = located((*prefix, section), marks)
        found[section] = marks.find(here)
        if found[section] is not None:
            found |= {f"{section}.{field}": marks.find((*here, field)) for field in fields}
    return {key: (marks.path_of(at), *at) for key, at in found.items() if at is not None}
