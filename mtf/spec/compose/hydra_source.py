"""The only module that imports hydra-core: composes a defaults list and config groups to one tree.

Hydra reads no files itself: it gets the values that mtf's YAML reader has read from the commit. Its
own configuration (logging, launchers) would take 50 ms a composition and is left out. This uses
internals of hydra-core 1.3 and 1.4, hence the upper bound in pyproject.toml.

Source: hydra.cc/docs/1.3/advanced/defaults_list
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from hydra import version
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import create_defaults_list
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mtf.spec.compose.config_groups import Groups

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # hydra-core 1.4 warns that 1.5 will drop this call
    version.setbase("1.3")
_SCHEME = "mtf"
PRIMARY = "(the spec)"  # not a possible name of a group's file


class _Source(ConfigSource):
    """The config groups of one commit and the spec, as a source for Hydra."""

    def __init__(self, groups: Groups, primary: Mapping[str, Any]) -> None:
        super().__init__(provider="main", path=f"{_SCHEME}://conf")
        self._groups = groups
        self._primary = primary

    @staticmethod
    def scheme() -> str:
        return _SCHEME

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        return self._groups.is_group(config_path)

    def is_config(self, config_path: str) -> bool:
        return config_path == PRIMARY or self._groups.is_option(config_path)

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        names = self._groups.options(config_path)
        return names if results_filter in (None, ObjectType.CONFIG) else []

    def load_config(self, config_path: str) -> ConfigResult:
        header: dict[str, str | None] = {"package": None}
        value = self._primary
        if config_path != PRIMARY:
            value, header = self._groups.value(config_path), self._groups.header(config_path)
        config = OmegaConf.create(dict(value))
        return ConfigResult(self.provider, config_path, config, header)


class _Repository(ConfigRepository):
    """Hydra's repository with one source and no search path."""

    def __init__(self, source: _Source) -> None:
        self.sources = [source]


class Tree:
    """A composed configuration whose interpolations are not resolved yet.

    ``parts``: the configurations that it is merged from, in order: the name (``PRIMARY`` or
    ``group/option``) and the package that it goes into.
    """

    def __init__(
        self, groups: Groups, primary: Mapping[str, Any], choices: Sequence[tuple[str, str]]
    ) -> None:
        """Compose the tree.

        Raises:
            HydraException, OmegaConfBaseException, ValueError: Hydra's own errors.
        """
        repository = _Repository(_Source(groups, primary))
        overrides = [f"{group}={option}" for group, option in choices]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            defaults = create_defaults_list(
                repo=repository,
                config_name=PRIMARY,
                overrides_list=OverridesParser.create().parse_overrides(overrides),
                prepend_hydra=False,
                skip_missing=False,
            )
        self.chosen = frozenset(defaults.overrides.known_choices)  # groups
        self.parts: list[tuple[str, tuple[str, ...]]] = []
        self._config = OmegaConf.create()
        for default in defaults.defaults:
            assert default.config_path is not None
            loaded = repository.load_config(default.config_path)
            assert loaded is not None
            package = default.package or ""
            embedded = ConfigLoaderImpl._embed_result_config(loaded, package)  # noqa: SLF001
            self._config.merge_with(embedded.config)
            self.parts.append((default.config_path, tuple(filter(None, package.split(".")))))

    def raw(self) -> dict[str, Any]:
        """Return the tree with its interpolations unresolved."""
        return _plain(self._config, resolve=False)

    def resolved(self, settings: Sequence[tuple[str, Any]] = ()) -> dict[str, Any]:
        """Return the tree with these values set by dotted keys, and all interpolations resolved.

        Raises:
            OmegaConfBaseException: an interpolation has no target; ``full_key`` says which.
        """
        config = self._config
        if settings:
            config = config.copy()
            for key, value in settings:
                OmegaConf.update(config, key, value, merge=False, force_add=True)
        return _plain(config, resolve=True)


def _plain(config: DictConfig, *, resolve: bool) -> dict[str, Any]:
    value: Any = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(value, dict)
    return value
