"""`ConfigValidator`: validates a configuration from Python as `mtf validate` does a spec."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtf.project.cluster_check import infeasible, known_facts
from mtf.project.spec_tree import VALUE, SpecTree
from mtf.spec.lint.cluster_fit import distinct_resources, unmet
from mtf.spec.lint.plausibility import warnings
from mtf.spec.schema.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.core.vocabulary.jobs import Resources
    from mtf.errors import Problem
    from mtf.spec.load import Loaded


@dataclass(frozen=True)
class ValidationResult:
    """The errors and warnings of a configuration."""

    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]

    @property
    def is_valid(self) -> bool:
        """Return True if there is no error; a configuration with warnings can be run."""
        return not self.errors


@dataclass(frozen=True)
class ResourceCheck:
    """The resources that a configuration asks for, and those that the cluster cannot give."""

    resources: tuple[Resources, ...]  # each combination that one of its runs asks for
    problems: tuple[Problem, ...]
    source: str | None  # where the cluster is described; None: unknown, so nothing was checked

    @property
    def is_feasible(self) -> bool:
        """Return True if no problem is an error."""
        return not any(problem.is_error for problem in self.problems)


class ConfigValidator:
    """Validates configurations of experiments and grids as `mtf validate` does specs."""

    def __init__(self, settings: Settings | None = None) -> None:
        """Take the settings whose defaults and policies apply; by default mtf's own."""
        self._settings = settings or Settings()

    def validate_config(self, config: Mapping[str, Any]) -> ValidationResult:
        """Return all errors and warnings; their lines are those of the configuration as JSON."""
        loaded = self._load(config)
        found = [*loaded.problems, *(p for spec in loaded.desired for p in warnings(spec))]
        return ValidationResult(
            tuple(sorted(p for p in found if p.is_error)),
            tuple(sorted(p for p in found if not p.is_error)),
        )

    def check_resource_requirements(self, config: Mapping[str, Any]) -> ResourceCheck:
        """Compare the resources of a configuration with the cluster; ask SLURM if it answers."""
        specs = self._load(config).desired
        facts = known_facts(self._settings, live=True)
        found = [p for spec in specs for p in unmet(spec, facts)] if facts is not None else []
        if facts is not None and facts.is_live:
            found += infeasible(specs, self._settings)
        needs = tuple(needs for spec in specs for needs in distinct_resources(spec))
        return ResourceCheck(needs, tuple(sorted(found)), facts.source if facts else None)

    def _load(self, config: Mapping[str, Any]) -> Loaded:
        value = {"kind": "grid" if "base" in config else "experiment", **config}
        return SpecTree.of_value(value, self._settings).load([VALUE])
