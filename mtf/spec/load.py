"""All specs of a commit at once: files in, experiments and every mistake out."""

from __future__ import annotations

import itertools
import posixpath
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from mtf.core.planner.init_from_names import circles
from mtf.core.vocabulary.experiments import Desired
from mtf.core.vocabulary.spelling import did_you_mean
from mtf.errors import Problem, SpecError
from mtf.spec.compose.config_groups import NO_GROUPS
from mtf.spec.grid.definition import chooses_nothing, key_problems, read_grid
from mtf.spec.grid.expand import expand
from mtf.spec.init_from_refs import init_from_in_experiment, init_from_in_grid
from mtf.spec.lint.key_positions import positions_in_experiment, positions_in_grid
from mtf.spec.lint.policy_rules import violations
from mtf.spec.resolve import Resolver, experiment
from mtf.spec.schema.dotted_keys import SECTIONS, key_problem
from mtf.spec.schema.error_messages import shown
from mtf.spec.schema.settings import merged_slurm
from mtf.spec.schema.specs import ExperimentSpec, GridSpec
from mtf.spec.schema.text_types import name_problem
from mtf.spec.spec_file import NAME_KEYS, as_base, inline_base, read_spec, validated

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mtf.spec.compose.config_groups import Groups
    from mtf.spec.grid.definition import GridDefinition
    from mtf.spec.resolve import Base
    from mtf.spec.schema.settings import Settings
    from mtf.spec.spec_file import SpecFile
    from mtf.spec.yaml.positions import Position

ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True)
class Loaded:
    """What a commit asks for. A spec with a mistake is in ``problems`` and not in ``desired``.

    One that breaks a policy is in both: it stays asked for, and must not be submitted.
    """

    desired: tuple[Desired, ...]
    problems: tuple[Problem, ...]
    names: frozenset[str]  # of all specs that were looked at, those with mistakes too
    refused: Mapping[str, tuple[Problem, ...]]  # by name of the spec: the policies it breaks
    unread: frozenset[str]  # paths of files with mistakes of which not even the name is known


def load_specs(
    files: Mapping[str, bytes], settings: Settings, stamp: str, groups: Groups = NO_GROUPS
) -> Loaded:
    """Resolve all specs; never raises for what stands in them.

    Args:
        files: every file under the folder of specs at one commit, by path. Only ``.yaml`` and
            ``.yml`` are specs.
        settings: of the same commit.
        stamp: the submission's time, for grids with ``naming: timestamp``.
        groups: what the defaults lists of specs may name, of the same commit.
    """
    loader = _Loader(files, settings, stamp, groups)
    desired = [one for path in sorted(files) if is_spec(path) for one in loader.load(path)]
    taken = loader.names_taken_twice() | loader.names_alike()
    good = tuple(one for one in desired if one.name not in taken)
    loader.problems += circles(good)
    return loader.loaded(good)


def load_some(
    paths: Collection[str],
    files: Mapping[str, bytes],
    settings: Settings,
    stamp: str,
    *,
    groups: Groups = NO_GROUPS,
) -> Loaded:
    """Resolve these of the ``files``, whose bases may be any of them; the others are not read."""
    loader = _Loader(files, settings, stamp, groups)
    desired = [one for path in sorted(paths) for one in loader.load(path)]
    taken = loader.names_taken_twice() | loader.names_alike()
    return loader.loaded(tuple(one for one in desired if one.name not in taken))


def is_spec(path: str) -> bool:
    """Return whether a file in the folder of specs is one."""
    return path.endswith(ENDINGS)


class _Loader:
    """Reads each file once, however many grids build on it, and collects all problems."""

    def __init__(
        self, files: Mapping[str, bytes], settings: Settings, stamp: str, groups: Groups
    ) -> None:
        self._files = files
        self._groups = groups
        self._policies = settings.policies
        self._settings = settings
        self._slurm_of: dict[str, dict[str, Any]] = {}  # defaults, by cluster
        self._stamp = stamp
        self._bases: dict[str, SpecFile] = {}  # those that grids build on
        self._names: dict[str, dict[str, Position]] = {}  # name -> where it is given, by path
        self._unread: set[str] = set()
        self.problems: list[Problem] = []

    def load(self, path: str) -> list[Desired]:
        """Return what a file asks for: one, or nothing where it is a base or has mistakes."""
        self._unread.add(path)
        try:
            file = self._file(path)
            self._note_name(file)
            self._unread.discard(path)
            self._note_cluster(file)
            if file.kind == "grid":
                return [self._grid(file)]
            if file.kind == "base":
                self._base_file(file)
                return []
            return [self._single(file)]
        except SpecError as e:
            self.problems += e.problems
            return []

    def loaded(self, desired: tuple[Desired, ...]) -> Loaded:
        """Return what was found, held against the policies."""
        broken = {one.name: violations(one, self._policies) for one in desired}
        problems = {*self.problems, *itertools.chain.from_iterable(broken.values())}
        refused = {name: found for name, found in broken.items() if found}
        names, unread = frozenset(self._names), frozenset(self._unread)
        return Loaded(desired, tuple(sorted(problems)), names, refused, unread)

    def names_taken_twice(self) -> set[str]:
        """Return the names that several specs have, each use noted as a problem."""
        taken = {name: uses for name, uses in self._names.items() if len(uses) > 1}
        for name, uses in taken.items():
            for path, position in uses.items():
                others = ", ".join(sorted(set(uses) - {path}))
                message = f"the name {name!r} is taken: {others} has it too. Rename one"
                self.problems.append(Problem(path, *position, message))
        return set(taken)

    def names_alike(self) -> set[str]:
        """Return the names that differ in their case alone, each noted: some disks hold one."""
        alike: dict[str, list[str]] = {}
        for name in self._names:
            alike.setdefault(name.casefold(), []).append(name)
        several = [names for names in alike.values() if len(names) > 1]
        for name, other in ((n, o) for names in several for n in names for o in names if o != n):
            for path, position in self._names[name].items():
                message = f"the name {name!r} differs from {other!r} in its case alone. Rename one"
                self.problems.append(Problem(path, *position, message))
        return {name for names in several for name in names}

    def _note_name(self, file: SpecFile) -> None:
        key = NAME_KEYS.get(file.kind, "")
        name = file.value.get(key)
        if isinstance(name, str):
            self._names.setdefault(name, {})[file.path] = file.positions.value((key,))

    def _note_cluster(self, file: SpecFile) -> None:
        name, known = file.value.get("cluster"), self._settings.known_clusters
        if isinstance(name, str) and known is not None and name not in known:
            message = f"cluster: mtf.yaml knows no {name!r}. {did_you_mean(name, known)}"
            position = file.positions.value(("cluster",))
            self.problems.append(file.positions.problem(position, message.rstrip()))

    def _slurm_defaults(self, cluster: object) -> dict[str, Any]:
        name = self._settings.cluster.name
        if isinstance(cluster, str) and name_problem(cluster) is None:  # else it is told elsewhere
            name = cluster
        if name not in self._slurm_of:
            self._slurm_of[name] = self._settings.serving(name).slurm_defaults()
        return self._slurm_of[name]

    def _file(self, path: str) -> SpecFile:
        """Read a file. Those that are read for themselves alone are not kept: memory is time."""
        return self._bases.get(path) or read_spec(self._files[path], path, self._groups)

    def _single(self, file: SpecFile) -> Desired:
        path = file.path
        spec = self._experiment(file)
        sections = {name: getattr(spec, name) for name in SECTIONS}
        resolved = {k: v and v.model_dump(mode="json") for k, v in sections.items()}
        return Desired(
            name=spec.experiment_name,
            path=path,
            experiments=(experiment(spec.experiment_name, None, resolved, dict(spec), {}),),
            max_parallel=None,
            cluster=spec.cluster,
            on_change=spec.on_change,
            named_at=init_from_in_experiment(file.value.get("init_from"), file.positions),
            # Reads the file again when a finding needs its positions: keeping the positions of a
            # thousand files takes longer than reading the few that have findings.
            places=positions_in_experiment(lambda: self._file(path).positions),
        )

    def _experiment(self, file: SpecFile) -> ExperimentSpec:
        slurm = file.value.get("slurm", {})
        if isinstance(slurm, dict):
            slurm = merged_slurm(self._slurm_defaults(file.value.get("cluster")), slurm)
        return validated(ExperimentSpec, {**file.value, "slurm": slurm}, file)

    def _grid(self, file: SpecFile) -> Desired:
        problems = key_problems(file.value, file.positions)
        base = spec = None
        try:
            base = self._base(file)
        except SpecError as e:
            problems += e.problems
        is_whole = True
        try:
            spec = validated(GridSpec, file.value, file)
        except SpecError as e:
            problems += e.problems
            is_whole, spec = False, _without_unknown_keys(file.value)
        if spec is None:
            raise SpecError(problems)
        chooses = base.composition.chooses if base and base.composition else chooses_nothing
        parts = read_grid(spec, file.positions, chooses)
        problems += parts.problems if is_whole else []  # a misspelt key may be what it lacks
        if base is None:
            raise SpecError(problems)
        cluster = spec.cluster or base.value.get("cluster")
        resolver = Resolver(base, self._slurm_defaults(cluster), file.positions)
        if problems:
            raise SpecError([*problems, *_wrong_values(parts, resolver)])
        return Desired(
            name=spec.name,
            path=file.path,
            experiments=expand(spec, parts, resolver, self._stamp),
            max_parallel=spec.max_parallel,
            cluster=cluster,
            on_change=spec.on_change,
            named_at=init_from_in_grid(base, parts, file.positions),
            places=positions_in_grid(base, parts, file.positions),
        )

    def _base(self, file: SpecFile) -> Base:
        """Return what a grid builds on.

        Raises:
            SpecError: it is not there, or has mistakes of its own.
        """
        position, base = file.positions.value(("base",)), file.value.get("base")
        if "base" not in file.value:
            raise SpecError([])  # told as a missing key
        if isinstance(base, dict):
            return inline_base(base, file.positions, ("base",), self._groups)
        if not isinstance(base, str):
            message = f"base: must be a path or an experiment, got {shown(base)}"
            raise SpecError([file.positions.problem(position, message)])
        path = posixpath.normpath(posixpath.join(posixpath.dirname(file.path), base))
        if path not in self._files:
            raise SpecError(
                [file.positions.problem(position, self._missing_base(file, base, path))]
            )
        try:
            other = self._bases.setdefault(path, self._file(path))
            if other.kind != "grid":
                return self._base_file(other)
        except SpecError as e:
            own = file.positions.problem(position, f"base: {path} has mistakes of its own")
            raise SpecError([*e.problems, own]) from None
        raise SpecError(
            [file.positions.problem(position, f"base: {path} is a grid, not an experiment")]
        )

    def _base_file(self, file: SpecFile) -> Base:
        if file.kind == "experiment":
            self._experiment(file)
        if file.problems:
            raise SpecError(list(file.problems))
        return as_base(file.value, file.positions, (), file.composition)

    def _missing_base(self, file: SpecFile, base: str, path: str) -> str:
        folder = posixpath.dirname(file.path)
        there = [posixpath.relpath(other, folder) for other in self._files if is_spec(other)]
        return f"base: there is no file {path}. {did_you_mean(base, there)}".rstrip()


def _wrong_values(parts: GridDefinition, resolver: Resolver) -> set[Problem]:
    for setting in parts.settings():
        if key_problem(setting.path) is None:
            resolver.check_alone(setting)
    return resolver.problems


def _without_unknown_keys(value: Mapping[str, Any]) -> GridSpec | None:
    """Return a grid with mistakes as its known keys have it, None where they are no grid."""
    known = {key: item for key, item in value.items() if key in GridSpec.model_fields}
    try:
        return GridSpec.model_validate(known)
    except ValidationError:
        return None
