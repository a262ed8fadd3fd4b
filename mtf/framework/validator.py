"""`ConfigValidator`: validates a configuration from Python as `mtf validate` does a spec."""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING, Concatenate, Generic, ParamSpec, TypeVar

from mtf.errors import CONFIGURATION, ConfigurationError, Problem
from mtf.framework.experiment_values import asked
from mtf.framework.given_values import as_plain
from mtf.project.cluster_check import infeasible, known_facts
from mtf.project.spec_tree import VALUE, SpecTree
from mtf.spec.lint.cluster_fit import distinct_resources, unmet
from mtf.spec.lint.plausibility import warnings
from mtf.spec.schema.experiment_config import ExperimentConfig
from mtf.spec.schema.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtf.core.vocabulary.jobs import Resources
    from mtf.framework.experiment_values import Config
    from mtf.spec.load import Loaded

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class ValidationResult:
    """The errors and warnings of a configuration."""

    errors: tuple[Problem, ...]
    warnings: tuple[Problem, ...]

    @property
    def is_valid(self) -> bool:
        """Return True if there is no error; a configuration with warnings can be run."""
        return not self.errors

    def __bool__(self) -> bool:
        """Return ``is_valid``."""
        return self.is_valid


@dataclass(frozen=True)
class ResourceCheck:
    """The resources that a configuration asks for, and those that the cluster cannot give.

    ``print(check)`` says "feasible", "not checked" or what cannot be had.
    """

    resources: tuple[Resources, ...]  # each combination that one of its runs asks for
    problems: tuple[Problem, ...]
    source: str | None  # where the cluster is described; None: unknown, so nothing was checked

    @property
    def is_checked(self) -> bool:
        """Return True if a cluster was there to ask, or mtf.yaml describes one."""
        return self.source is not None

    @property
    def is_feasible(self) -> bool | None:
        """Return True if the cluster can give the resources, None if nothing was checked."""
        if any(problem.is_error for problem in self.problems):
            return False
        return True if self.is_checked else None

    def __str__(self) -> str:
        """Return the outcome in words."""
        if self.is_feasible is None:
            return "not checked: SLURM does not answer here, and mtf.yaml describes no cluster"
        if self.is_feasible:
            return f"feasible ({self.source})"
        return "\n".join(problem.message for problem in self.problems)


class _OnClassOrObject(Generic[_P, _T]):
    """A method that may be called on the class as well, which then stands for ``Class()``."""

    def __init__(self, function: Callable[Concatenate[ConfigValidator, _P], _T]) -> None:
        self._function, self.__doc__ = function, function.__doc__

    def __get__(
        self, instance: ConfigValidator | None, owner: type[ConfigValidator]
    ) -> Callable[_P, _T]:
        return MethodType(self._function, owner() if instance is None else instance)


class ConfigValidator:
    """Validates configurations of experiments and grids as `mtf validate` does specs.

    Both methods are called on the class, or on a validator with the settings of a repository, which
    ``framework.config_manager.validate`` uses. Mistakes are returned, never raised.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Take the settings whose defaults and policies apply; by default mtf's own."""
        self._settings = settings or Settings()

    @_OnClassOrObject
    def validate_config(self, config: Config) -> ValidationResult:
        """Return all errors and warnings of a configuration: a dict or an ``ExperimentConfig``.

        What may depend on the repository that it will run in, such as a short name of a model, is
        a warning. Lines and columns of the problems mean nothing.
        """
        try:
            loaded = self._load(config)
        except ConfigurationError as e:
            return ValidationResult(tuple(e.problems), ())
        found = [*loaded.problems, *(p for spec in loaded.desired for p in warnings(spec))]
        experiments = [e.config for spec in loaded.desired for e in spec.experiments]
        if any(e["data"] is None and e["entrypoint"] is None for e in experiments):
            message = "data is missing. Before it runs, add data.dataset_name or an entrypoint"
            found.append(Problem(CONFIGURATION, 1, 1, message, "warning"))
        return ValidationResult(
            tuple(sorted(p for p in found if p.is_error)),
            tuple(sorted(p for p in found if not p.is_error)),
        )

    @_OnClassOrObject
    def check_resource_requirements(self, config: Config) -> ResourceCheck:
        """Compare the resources of a configuration with the cluster; ask SLURM if it answers."""
        try:
            specs = self._load(config).desired
        except ConfigurationError as e:
            return ResourceCheck((), tuple(e.problems), None)
        facts = known_facts(self._settings, live=True)
        found = [p for spec in specs for p in unmet(spec, facts)] if facts is not None else []
        if facts is not None and facts.is_live:
            found += infeasible(specs, self._settings)
        needs = tuple(needs for spec in specs for needs in distinct_resources(spec))
        return ResourceCheck(needs, tuple(sorted(found)), facts.source if facts else None)

    def _load(self, config: Config) -> Loaded:
        if isinstance(config, ExperimentConfig):
            value = asked(config).value
        else:
            plain = as_plain(config)
            value = {"kind": "grid" if "base" in plain else "experiment", **plain}
        return SpecTree.of_value(value, self._settings).load([VALUE])
