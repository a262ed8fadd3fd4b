"""`ParameterGrid` and `ParameterGridSearch`: values of keys whose combinations become runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mtf.errors import CONFIGURATION, ConfigurationError, Problem
from mtf.framework.experiment_values import as_config, as_grid, name_of
from mtf.project.spec_tree import VALUE, SpecTree
from mtf.spec.schema.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mtf.core.vocabulary.experiments import Desired
    from mtf.framework.experiment_values import Config
    from mtf.spec.schema.experiment_config import ExperimentConfig

# Sections that must name something, for values that are combined without a base.
_ANY_BASE = {"model": {"type": "any:Model"}, "scheduler": {"type": "any:Scheduler"}}


class ParameterGrid:
    """A named grid over keys of a configuration, like a spec of ``kind: grid``."""

    def __init__(
        self,
        name: str,
        description: str | Mapping[str, Iterable[Any]] | None = None,
        parameters: Mapping[str, Iterable[Any]] | None = None,
        **options: Any,
    ) -> None:
        """Make a grid.

        Args:
            name: of the grid; its runs are called ``<name>/<timestamp>/<commit>/<member>``.
            description: free text. The parameters may stand in its place.
            parameters: dotted keys and their values; the grid is their cartesian product.
            options: further keys of a grid spec: linked, conditional, sample, exclude, naming,
                max_parallel...
        """
        given = dict(parameters or {})
        if isinstance(description, Mapping):
            given, description = {**description, **given}, None
        self.name, self.description = name, description
        self.parameters: dict[str, list[Any]] = {}
        self.options = options
        for key, values in given.items():
            self.add_parameter(key, values)

    def add_parameter(self, path: str, values: Iterable[Any]) -> ParameterGrid:
        """Add a dotted key with its values and return the grid."""
        self.parameters[path] = _listed(path, values)
        return self

    def add_nested_parameter(self, path: str, values: Iterable[Any]) -> ParameterGrid:
        """Add a dotted key with its values and return the grid, as ``add_parameter`` does."""
        return self.add_parameter(path, values)

    @property
    def axes(self) -> dict[str, Any]:
        """Return the keys of the grid as a spec has them, without its name and base."""
        about = {} if self.description is None else {"description": self.description}
        return {"parameters": self.parameters, **about, **self.options}

    @property
    def keys(self) -> set[str]:
        """Return the dotted keys that the grid sets."""
        given = [self.parameters, self.options.get("sample") or {}]
        given += [values for group in self.options.get("linked") or () for values in group]
        given += [each.get("set") or {} for each in self.options.get("conditional") or ()]
        return {key for values in given for key in values}

    def as_spec(self, base: Config) -> dict[str, Any]:
        """Return the grid as a spec over a base configuration."""
        return as_grid(base, self.name, self.axes)

    def generate_permutations(self) -> list[dict[str, Any]]:
        """Return the values that each member sets, by dotted key.

        Raises:
            ConfigurationError: the grid contains mistakes.
        """
        return [dict(e.parameters) for e in _resolved(self.as_spec(_ANY_BASE)).experiments]

    def generate_configs(self, base: Config) -> list[ExperimentConfig]:
        """Return the configuration of each member, with mtf's own defaults.

        Raises:
            ConfigurationError: grid or base contain mistakes.
        """
        desired = _resolved(self.as_spec(base))
        return [as_config(desired, e, has_slurm=self._has_slurm(base)) for e in desired.experiments]

    def _has_slurm(self, base: Config) -> bool:
        given = base.get("slurm") if isinstance(base, Mapping) else base.slurm
        return given is not None or any(key.startswith("slurm.") for key in self.keys)

    def __repr__(self) -> str:
        return f"ParameterGrid({self.name!r}, {self.parameters!r})"


class ParameterGridSearch:
    """Several grids over one base configuration."""

    def __init__(self, base: Config) -> None:
        self.base = base
        self.grids: list[ParameterGrid] = []

    def add_grid(
        self, name: str, parameters: Mapping[str, Iterable[Any]], **options: Any
    ) -> ParameterGridSearch:
        """Add a grid, see ``ParameterGrid``, and return the search."""
        self.grids.append(ParameterGrid(name, None, parameters, **options))
        return self

    def generate_experiments(self) -> list[ExperimentConfig]:
        """Return the configuration of each member of each grid."""
        return [config for grid in self.grids for config in grid.generate_configs(self.base)]

    def get_experiment_name(self, config: Config) -> str:
        """Return the name of a member: ``grid/member``."""
        return name_of(config)

    def __iter__(self) -> Iterator[ParameterGrid]:
        """Yield the grids."""
        return iter(self.grids)


def _listed(path: str, values: Iterable[Any]) -> list[Any]:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        message = f"{path}: expected a list of values, got {values!r}. Write [{values!r}]"
        raise ConfigurationError([Problem(CONFIGURATION, 1, 1, message)])
    return list(values)


def _resolved(spec: Mapping[str, Any]) -> Desired:
    loaded = SpecTree.of_value(spec, Settings()).load([VALUE])
    if any(problem.is_error for problem in loaded.problems):
        raise ConfigurationError(list(loaded.problems))
    return loaded.desired[0]
