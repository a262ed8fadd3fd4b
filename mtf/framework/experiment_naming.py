"""`ExperimentNaming`: the names that mtf gives to the members of grids."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, get_args

from mtf.core.vocabulary.ids import timestamp
from mtf.errors import CONFIGURATION, ConfigurationError, Problem
from mtf.framework.given_values import as_plain
from mtf.spec.grid import naming
from mtf.spec.schema.text_types import name_problem

if TYPE_CHECKING:
    from collections.abc import Mapping


class NamingStrategy(Enum):
    """How a member of a grid gets its name: ``naming`` of a grid."""

    PARAMETER_BASED = "parameters"
    """From keys and values, which can be read back: ``optimizer.lr=0.001``."""
    HASH_BASED = "hash"
    """From a checksum of keys and values."""
    TIMESTAMP_BASED = "timestamp"
    """From the time and the member's number."""
    SEQUENTIAL = "sequential"
    """From the member's number."""


assert {s.value for s in NamingStrategy} == {*get_args(naming.Strategy)}


class ExperimentNaming:
    """Makes and reads names of experiments; both functions are called on the class."""

    @staticmethod
    def generate_name(
        base: str,
        parameters: Mapping[str, Any],
        strategy: NamingStrategy = NamingStrategy.PARAMETER_BASED,
        *,
        index: int = 0,
        count: int = 1,
    ) -> str:
        """Return ``base/member``, the name of a member of the grid ``base``.

        Such a name is the ``experiment_name`` of a configuration, and names the run on the command
        line: ``mtf show base/member``.

        Args:
            base: name of the grid.
            parameters: values by dotted key.
            strategy: how to make the member's name.
            index: of the member, from 0, for sequential and timestamp names.
            count: number of members, for sequential and timestamp names.

        Raises:
            ConfigurationError: the base is no valid name, or the values are too long for one.
        """
        if problem := name_problem(base):
            raise _error(f"base: {base!r} {problem}")
        plain = as_plain(parameters, "parameters")
        stamp = timestamp(datetime.now(UTC))
        try:
            name = naming.experiment_name(
                NamingStrategy(strategy).value, plain, index, max(count, index + 1), stamp
            )
        except ValueError as e:
            raise _error(str(e)) from None
        return f"{base}/{name}"

    @staticmethod
    def parse_experiment_name(name: str) -> dict[str, Any]:
        """Return the values that a name was made from by ``NamingStrategy.PARAMETER_BASED``.

        Raises:
            ConfigurationError: it was made by another strategy, which keeps no values.
        """
        try:
            return naming.parse_experiment_name(name.rpartition("/")[2])
        except ValueError as e:
            raise _error(str(e)) from None


def _error(message: str) -> ConfigurationError:
    return ConfigurationError([Problem(CONFIGURATION, 1, 1, message)])
