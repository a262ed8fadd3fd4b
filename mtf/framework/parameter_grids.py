"""`ParameterGrid`: values of keys, all combinations of which become runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class ParameterGrid:
    """A named grid over keys of a configuration, like a spec of ``kind: grid``."""

    def __init__(
        self, name: str, parameters: Mapping[str, Sequence[Any]] | None = None, **options: Any
    ) -> None:
        """Make a grid.

        Args:
            name: of the grid; its runs are called ``<name>/<timestamp>/<commit>/<member>``.
            parameters: dotted keys and their values; the grid is their cartesian product.
            options: further keys of a grid spec: linked, conditional, sample, exclude, naming...
        """
        self.name = name
        self.parameters = {k: list(v) for k, v in (parameters or {}).items()}
        self.options = options

    def add_parameter(self, path: str, values: Sequence[Any]) -> ParameterGrid:
        """Add a key with its values and return the grid."""
        self.parameters[path] = list(values)
        return self

    def as_spec(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Return the grid as a spec over a base configuration."""
        return {
            "kind": "grid",
            "name": self.name,
            "base": dict(base),
            "parameters": self.parameters,
            **self.options,
        }
