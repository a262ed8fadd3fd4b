"""Loads all specs of a commit: returns their experiments, and every error in them."""

from __future__ import annotations

import itertools
import posixpath
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from mtf.core.planner.init_from_names import cycles
from mtf.core.vocabulary.experiments import Desired
from mtf.core.vocabulary.spelling import did_you_mean
from mtf.errors import Problem, SpecError
from mtf.spec.compose.config_groups import NO_GROUPS
from mtf.spec.init_from_refs import init_from_in_experiment
from mtf.spec.lint.key_positions import positions_in_experiment
from mtf.spec.lint.policy_rules import violations
from mtf.spec.named_code.name_check import NamedCode
from mtf.spec.resolve import at_place, experiment
from mtf.spec.schema.dotted_keys import SECTIONS
from mtf.spec.schema.error_messages import shown
from mtf.spec.schema.settings import merged_slurm
from mtf.spec.schema.specs import ExperimentSpec
from mtf.spec.schema.text_types import name_problem
from mtf.spec.spec_file import (
    NAME_KEYS,
    as_base,
    inline_base,
    missing_data,
    read_spec,
    validated,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from mtf.spec.compose.config_groups import Groups
    from mtf.spec.named_code.source_files import SourceFiles
    from mtf.spec.resolve import Base
    from mtf.spec.schema.settings import Settings
    from mtf.spec.spec_file import SpecFile
    from mtf.spec.yaml.positions import Position

ENDINGS = (".yaml", ".yml")


class Loaded(NamedTuple):
    """The specs of a commit. A spec with an error is in ``problems`` and not in ``desired``.

    A spec that breaks a policy is in both: it remains desired, but must not be submitted.
    """

    desired: tuple[Desired, ...]
    problems: tuple[Problem, ...]
    names: frozenset[str]  # of all specs that were read, including those with errors
    refused: Mapping[str, tuple[Problem, ...]]  # the policies that a spec breaks, by its name
    unread: frozenset[str]  # paths of files so broken that even their name is unknown


def load_specs(
    files: Mapping[str, bytes],
    settings: Settings,
    stamp: str,
    groups: Groups = NO_GROUPS,
    code: SourceFiles | None = None,
) -> Loaded:
    """Resolve all specs; errors in them are returned, never raised.

    Args:
        files: every file in the folder of specs at one commit, by path. Those that end in ``.yaml``
            or ``.yml`` are specs.
        settings: of the same commit.
        stamp: the submission's time, for grids with ``naming: timestamp``.
        groups: the config groups of the same commit, for specs with a defaults list.
        code: the files of the same commit, for the classes and functions that specs name; None:
            names and the keys that go to them are not checked.
    """
    loader = _Loader(files, settings, stamp, groups, code)
    desired = [spec for path in sorted(files) if is_spec(path) for spec in loader.load(path)]
    ambiguous = loader.names_used_twice() | loader.names_that_differ_in_case()
    unambiguous = tuple(spec for spec in desired if spec.name not in ambiguous)
    loader.problems += cycles(unambiguous)
    return loader.loaded(unambiguous)


def load_some(
    paths: Collection[str],
    files: Mapping[str, bytes],
    settings: Settings,
    stamp: str,
    *,
    groups: Groups = NO_GROUPS,
    code: SourceFiles | None = None,
    is_draft: bool = False,
) -> Loaded:
    """Resolve only the specs at ``paths``; their bases may be any of the ``files``.

    A draft is not to run as it is: it needs no data, and it may name what nobody knows yet.
    """
    loader = _Loader(files, settings, stamp, groups, code, is_draft=is_draft)
    desired = [spec for path in sorted(paths) for spec in loader.load(path)]
    ambiguous = loader.names_used_twice() | loader.names_that_differ_in_case()
    return loader.loaded(tuple(spec for spec in desired if spec.name not in ambiguous))


def is_spec(path: str) -> bool:
    """Return True if a file in the folder of specs is a spec."""
    return path.endswith(ENDINGS)


class _Loader:
    """Reads each base once, however many grids build on it, and collects all problems."""

    def __init__(
        self,
        files: Mapping[str, bytes],
        settings: Settings,
        stamp: str,
        groups: Groups,
        code: SourceFiles | None,
        *,
        is_draft: bool = False,
    ) -> None:
        self._files = files
        self._code = NamedCode(code, knows_all=not is_draft) if code else None
        self._is_draft = is_draft
        self._groups = groups
        self._policies = settings.policies
        self._settings = settings
        self._slurm_of: dict[str, dict[str, Any]] = {}  # defaults, by cluster
        self._stamp = stamp
        self._bases: dict[str, SpecFile] = {}  # files that grids build on, by path
        self._names: dict[str, dict[str, Position]] = {}  # name -> path -> position of the name
        self._unread: set[str] = set()
        self._in_bases: dict[str, list[Problem]] = {}  # wrong names and keys in bases, by path
        self._built_on: dict[str, str] = {}  # grids without mistakes -> the paths of their bases
        self.problems: list[Problem] = []

    def load(self, path: str) -> list[Desired]:
        """Return the spec in a file; nothing if it is a base or has errors."""
        self._unread.add(path)
        try:
            file = self._file(path)
            self._note_name(file)
            self._unread.discard(path)
            self._note_cluster(file)
            if file.kind == "grid":
                return [self._grid(file)]
            if file.kind == "base":
                self._note_names_in_base(file)
                self._base_file(file)
                return []
            return [self._single(file)]
        except SpecError as e:
            self.problems += e.problems
            return []

    def loaded(self, desired: tuple[Desired, ...]) -> Loaded:
        """Return the specs and all problems, including the policies that the specs break."""
        broken = {spec.name: violations(spec, self._policies) for spec in desired}
        own = self._mistakes_in_bases()
        problems = {*self.problems, *own, *itertools.chain.from_iterable(broken.values())}
        refused = {name: found for name, found in broken.items() if found}
        names, unread = frozenset(self._names), frozenset(self._unread)
        return Loaded(desired, tuple(sorted(problems)), names, refused, unread)

    def names_used_twice(self) -> set[str]:
        """Return the names that several specs use; each use is added to the problems."""
        used_twice = {name: uses for name, uses in self._names.items() if len(uses) > 1}
        for name, uses in used_twice.items():
            for path, position in uses.items():
                others = ", ".join(sorted(set(uses) - {path}))
                message = f"the name {name!r} is also used by {others}. Rename one"
                self.problems.append(Problem(path, *position, message))
        return set(used_twice)

    def names_that_differ_in_case(self) -> set[str]:
        """Return the names that differ only in case: some file systems cannot hold both.

        Each of them is added to the problems.
        """
        by_folded: dict[str, list[str]] = {}
        for name in self._names:
            by_folded.setdefault(name.casefold(), []).append(name)
        similar = [names for names in by_folded.values() if len(names) > 1]
        pairs = (pair for names in similar for pair in itertools.permutations(names, 2))
        for name, other in pairs:
            for path, position in self._names[name].items():
                message = f"the name {name!r} differs from {other!r} only in case. Rename one"
                self.problems.append(Problem(path, *position, message))
        return {name for names in similar for name in names}

    def _note_name(self, file: SpecFile) -> None:
        key = NAME_KEYS.get(file.kind, "")
        name = file.value.get(key)
        if isinstance(name, str):
            self._names.setdefault(name, {})[file.path] = file.positions.value((key,))

    def _note_cluster(self, file: SpecFile) -> None:
        name, known = file.value.get("cluster"), self._settings.known_clusters
        if isinstance(name, str) and known is not None and name not in known:
            message = f"cluster: {name!r} is not in mtf.yaml. {did_you_mean(name, known)}".rstrip()
            self.problems.append(file.positions.problem_at(("cluster",), message))

    def _slurm_defaults(self, cluster: object) -> dict[str, Any]:
        name = self._settings.cluster.name
        if isinstance(cluster, str) and name_problem(cluster) is None:  # else: reported elsewhere
            name = cluster
        if name not in self._slurm_of:
            self._slurm_of[name] = self._settings.serving(name).slurm_defaults()
        return self._slurm_of[name]

    def _file(self, path: str) -> SpecFile:
        """Read a file. Only bases are kept: keeping every file would cost memory and time."""
        return self._bases.get(path) or read_spec(self._files[path], path, self._groups)

    def _single(self, file: SpecFile) -> Desired:
        path = file.path
        spec = self._with_checked_names(file)
        dumped = spec.model_dump(mode="json")
        resolved = {name: dumped[name] for name in SECTIONS}
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

    def _with_checked_names(self, file: SpecFile) -> ExperimentSpec:
        """Return an experiment whose names and keys stand for something.

        Raises:
            SpecError: with every error in the file.
        """
        slurm = partial(self._merged_slurm, file)
        findings = self._code.in_experiment(file.value, slurm) if self._code else []
        if not findings:
            return self._experiment(file)
        found = [at_place(file.positions, each.loc, each) for each in findings]
        try:
            spec = self._experiment(file)
        except SpecError as e:
            raise SpecError([*e.problems, *found]) from None
        if any(problem.is_error for problem in found):
            raise SpecError(found)
        self.problems += found
        return spec

    def _merged_slurm(self, file: SpecFile) -> Any:
        slurm = file.value.get("slurm", {})
        if not isinstance(slurm, dict):
            return slurm
        return merged_slurm(self._slurm_defaults(file.value.get("cluster")), slurm)

    def _experiment(self, file: SpecFile) -> ExperimentSpec:
        lacking = [] if self._is_draft else missing_data(file.value, file.positions)
        if lacking:
            file = replace(file, problems=(*file.problems, *lacking))
        return validated(ExperimentSpec, {**file.value, "slurm": self._merged_slurm(file)}, file)

    def _grid(self, file: SpecFile) -> Desired:
        from mtf.spec.load_grid import (  # late: a twentieth of a short command's time
            NamesInGrid,
            load_grid,
        )

        desired, warnings = load_grid(
            file,
            self._base,
            self._slurm_defaults,
            self._stamp,
            NamesInGrid(self._code, self._bases),
            is_draft=self._is_draft,
        )
        self.problems += warnings
        if isinstance(base := file.value.get("base"), str):
            self._built_on[file.path] = _path_of_base(file, base)
        return desired

    def _note_names_in_base(self, file: SpecFile) -> None:
        """Note the mistakes in the names and keys of a base; what it lacks, a grid may add."""
        slurm = partial(self._merged_slurm, file)
        findings = self._code.in_experiment(file.value, slurm) if self._code else []
        self._in_bases[file.path] = [
            at_place(file.positions, each.loc, each) for each in findings if not each.is_lack
        ]

    def _mistakes_in_bases(self) -> Iterator[Problem]:
        """Yield the mistakes in names and keys of bases that the grids over them do not tell of.

        A grid without mistakes shows that it replaces what is wrong in its base.
        """
        replaced, known = {*self._built_on.values()}, {_place(p) for p in self.problems}
        for path, found in self._in_bases.items():
            if path not in replaced:
                yield from (problem for problem in found if _place(problem) not in known)

    def _base(self, file: SpecFile) -> Base:
        """Return the base of a grid.

        Raises:
            SpecError: it does not exist or has errors.
        """
        positions, base = file.positions, file.value.get("base")
        if "base" not in file.value:
            raise SpecError([])  # reported as a missing key
        if isinstance(base, dict):
            return inline_base(base, positions, ("base",), self._groups)
        if not isinstance(base, str):
            message = f"base: expected a path or a mapping of sections, got {shown(base)}"
            raise SpecError([positions.problem_at(("base",), message)])
        path = _path_of_base(file, base)
        if path not in self._files:
            raise SpecError([positions.problem_at(("base",), self._missing_base(file, base, path))])
        try:
            other = self._bases.setdefault(path, self._file(path))
            if other.kind != "grid":
                return self._base_file(other)
        except SpecError as e:
            own = positions.problem_at(("base",), f"base: {path} has errors. Fix them first")
            raise SpecError([*e.problems, own]) from None
        message = f"base: expected an experiment or a base, {path} is a grid"
        raise SpecError([positions.problem_at(("base",), message)])

    def _base_file(self, file: SpecFile) -> Base:
        if file.kind == "experiment":
            self._experiment(file)
        if file.problems:
            raise SpecError(list(file.problems))
        return as_base(file.value, file.positions, (), file.composition)

    def _missing_base(self, file: SpecFile, base: str, path: str) -> str:
        folder = posixpath.dirname(file.path)
        specs = [posixpath.relpath(other, folder) for other in self._files if is_spec(other)]
        return f"base: the file {path} does not exist. {did_you_mean(base, specs)}".rstrip()


def _path_of_base(file: SpecFile, base: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(file.path), base))


def _place(problem: Problem) -> tuple[str, int, int]:
    return problem.path, problem.line, problem.column
