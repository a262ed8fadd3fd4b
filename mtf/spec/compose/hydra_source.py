"""The only module that imports hydra-core: expands a defaults list to the configurations it names.

Hydra gets no values, reads no files and resolves no interpolation of a value: it is given the
defaults lists alone, which mtf has read and checked, and returns names with their packages. Its own
configuration (logging, launchers) would take 50 ms a composition and is left out. This uses
internals of hydra-core 1.3 and 1.4, hence the upper bound in pyproject.toml.

Source: hydra.cc/docs/1.3/advanced/defaults_list
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from hydra import version
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override, OverrideType, ValueType
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

if TYPE_CHECKING:
    from collections.abc import Sequence

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # hydra-core 1.4 warns that 1.5 will drop this call
    version.setbase("1.3")
_SCHEME = "mtf"
PRIMARY = "(the spec)"  # not a possible name of a group's file
MAX_CONFIGURATIONS = 100  # in one composition: lists that name lists can grow exponentially
_READS = 2  # of each configuration, by Hydra


class ListError(ValueError):
    """The defaults list cannot be expanded; ``missing`` is the configuration that lacks, if any."""

    def __init__(self, message: str, missing: str | None = None) -> None:
        super().__init__(message)
        self.missing = missing


class Lists(Protocol):
    """The defaults lists of one commit's configurations, ``PRIMARY`` among them."""

    def is_group(self, name: str) -> bool:
        """Return True if there is a configuration below ``name``."""
        ...

    def is_option(self, name: str) -> bool:
        """Return True if the configuration exists."""
        ...

    def options(self, group: str) -> list[str]:
        """Return the options of a group."""
        ...

    def defaults(self, name: str) -> list[Any]:
        """Return the defaults list of a configuration, checked."""
        ...

    def package(self, name: str) -> str | None:
        """Return the package that a configuration's file asks for, checked."""
        ...


class Part(NamedTuple):
    """A configuration that a list names, and the keys that its values go below."""

    name: str  # ``PRIMARY`` or ``group/option``
    package: tuple[str, ...]


class Expanded(NamedTuple):
    """A defaults list, expanded."""

    parts: list[Part]  # in the order in which they are merged
    groups: frozenset[str]  # that have an option in the list


def expand_list(lists: Lists, choices: Sequence[tuple[str, str]]) -> Expanded:
    """Return the configurations that the primary one's defaults list names.

    Args:
        lists: the defaults lists.
        choices: groups with the options to take instead of those in the list; a group with ``+`` is
            added to the list.

    Raises:
        ListError: the list contradicts itself, or names a configuration that does not exist.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = create_defaults_list(
                repo=_Repository(_Source(lists)),
                config_name=PRIMARY,
                overrides_list=[_choice(group, option) for group, option in choices],
                prepend_hydra=False,
                skip_missing=False,
            )
    except MissingConfigException as e:
        raise ListError(str(e), str(e.missing_cfg_file or "").strip("/")) from None
    except ListError:
        raise
    except (HydraException, OmegaConfBaseException, AssertionError, ValueError) as e:
        text = " ".join(str(e).split()).replace(f"'{PRIMARY}'", PRIMARY)
        text = text.replace(PRIMARY, "this file")
        raise ListError(text or "a list that Hydra cannot read") from None
    parts = [
        Part(str(default.config_path), tuple(filter(None, (default.package or "").split("."))))
        for default in found.defaults
    ]
    return Expanded(parts, frozenset(found.overrides.known_choices))


def _choice(group: str, option: str) -> Override:
    """Return a choice as Hydra's command line gives it, without its grammar of functions."""
    kind = OverrideType.ADD if group.startswith("+") else OverrideType.CHANGE
    name = group.removeprefix("+")
    return Override(kind, name, ValueType.ELEMENT, option, input_line=f"{group}={option}")


class _Source(ConfigSource):
    """The defaults lists as a source for Hydra: configurations with no other content."""

    def __init__(self, lists: Lists) -> None:
        super().__init__(provider="main", path=f"{_SCHEME}://conf")
        self._lists = lists

    @staticmethod
    def scheme() -> str:
        return _SCHEME

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return self._lists.is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        return config_path == PRIMARY or self._lists.is_option(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        names = self._lists.options(config_path)
        return names if results_filter in (None, ObjectType.CONFIG) else []

    def load_config(self, config_path: str) -> ConfigResult:
        config = OmegaConf.create({"defaults": self._lists.defaults(config_path)})
        header = {"package": self._lists.package(config_path)}
        return ConfigResult(self.provider, config_path, config, header)


class _Repository(ConfigRepository):
    """Hydra's repository with one source and no search path, and a bound on what it reads."""

    def __init__(self, source: _Source) -> None:
        self.sources = [source]
        self._left = _READS * MAX_CONFIGURATIONS

    def load_config(self, config_path: str) -> ConfigResult | None:
        if not self._left:
            raise ListError(f"more than {MAX_CONFIGURATIONS} configurations in all")
        self._left -= 1
        return super().load_config(config_path)
