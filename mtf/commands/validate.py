"""Checks specs and settings: on disk, staged, at a revision, or changed by a range of commits."""

from __future__ import annotations

import itertools
import posixpath
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from mtf.core.planner.init_from_names import cycles
from mtf.core.vocabulary.git_tree_ids import GITLINK
from mtf.errors import MtfError, Problem, RepositoryError, SpecError
from mtf.project.affected import also_needed, mentioning, touched
from mtf.project.cluster_check import infeasible, known_facts, remarks
from mtf.project.code_files.changed_code import affected_by_code
from mtf.project.code_files.source_trees import files_at
from mtf.project.init_from_check import unknown_names
from mtf.project.location.folder import (
    beside,
    beside_folders,
    looks_like_spec,
    of_clone,
    projects_at,
    projects_in_index,
)
from mtf.project.settings_file import (
    SETTINGS,
    folder_in_repository,
    outside,
    project_root,
    projects_below,
    shown,
    top_of,
)
from mtf.project.spec_tree import SpecTree
from mtf.project.template_files import FOLDER as TEMPLATES_FOLDER
from mtf.project.template_files import (
    templates_at,
    templates_in_index,
    templates_on_disk,
)
from mtf.project.tree_check import tree_problems
from mtf.spec.compose.config_groups import FOLDER
from mtf.spec.load import is_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo
    from mtf.ledger.store import Ledger
    from mtf.project.project import Project
    from mtf.project.sample_scripts import SampleScripts
    from mtf.spec.load import Loaded
    from mtf.spec.schema.settings import Settings


class SlurmQuery(Enum):
    """The questions that a check asks SLURM, if it is installed."""

    NONE = "none"  # the cluster is as mtf.yaml describes it
    FACTS = "facts"  # its partitions and limits
    FEASIBILITY = "feasibility"  # also whether it would accept a job of each shape


class Checked(NamedTuple):
    """The number of files checked, and all problems found in them."""

    files: int
    problems: tuple[Problem, ...]
    folder: str = ""  # from the repository's top, which the problems' paths are relative to

    def from_top(self) -> Checked:
        """Return the check with paths from the top of the repository."""
        if not self.folder:
            return self
        paths = (posixpath.normpath(f"{self.folder}/{p.path}") for p in self.problems)
        moved = (p._replace(path=path) for p, path in zip(self.problems, paths, strict=True))
        return Checked(self.files, tuple(moved))


def on_disk(where: Path, wanted: Sequence[Path], query: SlurmQuery) -> Checked:
    """Check files on disk; all specs and the settings if none is named. Needs no git.

    Raises:
        MtfError: a named file does not exist.
    """
    paths = [p for w in wanted for p in _spec_paths(where / w)]
    tree = SpecTree.on_disk(where, also=sorted({p.parent for p in paths}))
    check = _Check(
        tree, partial(_open, where), query, partial(templates_on_disk, project_root(where))
    )
    folder = folder_in_repository(where)
    if wanted:
        return check.each([shown(p, where) for p in paths])._replace(folder=folder)
    has_settings = (project_root(where) / SETTINGS).is_file()
    is_project = has_settings or any(map(looks_like_spec, tree.specs.values()))
    if not is_project and (others := projects_below(where)):
        raise MtfError(outside(others))
    found = check.all(files=len(tree.specs) + has_settings)
    return Checked(found.files, tuple(sorted({*found.problems, *_others_on_disk(where)})), folder)


def _others_on_disk(where: Path) -> Iterator[Problem]:
    """Yield a warning if a project in a folder of a repository is not the only one there."""
    root, top = project_root(where), top_of(where)
    if root != top:
        folders = [*projects_below(top), *([""] if (top / SETTINGS).is_file() else [])]
        if warning := beside_folders(folder_in_repository(root), folders):
            yield Problem(shown(root / SETTINGS, where), 1, 1, warning, "warning")


def staged(where: Path) -> Checked:
    """Check the specs that the next commit adds or changes, and those that build on them.

    For the pre-commit hook: git's own environment (above all its index) is kept. Outside of all
    projects, as at the top of a larger repository, each of them is checked.
    """
    repo = _repo(where, inherit=True)
    with repo.reading():
        projects = projects_in_index(repo)
        around = [p for p in projects if repo.opened_in.startswith(p.prefix)]
        if len(around) == 1:
            return _staged(around[0])
        return _together(map(_staged, projects), projects)


def _staged(repo: GitRepo) -> Checked:
    tree = SpecTree.of_index(repo)
    changed = repo.whole.staged("")
    own = {p[len(repo.prefix) :] for p in changed if p.startswith(repo.prefix)}
    folders = tuple(f"{f}/" for f in (tree.settings.experiments, FOLDER, TEMPLATES_FOLDER))
    paths = {path for path in own if path == SETTINGS or path.startswith(folders)}
    by_code: set[str] = set()
    if any(path.endswith(".py") or (e and e.mode == GITLINK) for path, e in changed.items()):
        head = repo.find_commit("HEAD")
        before = [files_at(repo, head)] if head else []
        by_code = affected_by_code(tree.naming, tree.code, before, lambda: True)
    templates = partial(templates_in_index, repo)
    checked = _Check(tree, partial(_open, repo), templates=templates).change(paths, by_code)
    return checked._replace(folder=repo.prefix)


def _together(checks: Iterable[Checked], projects: Sequence[GitRepo]) -> Checked:
    """Return the checks of a repository's projects as one, with paths from the top."""
    found = list(checks)
    problems = [problem for checked in found for problem in checked.from_top().problems]
    if sum(checked.files for checked in found):
        problems += itertools.chain.from_iterable(_others(p, projects, p.prefix) for p in projects)
    return Checked(sum(checked.files for checked in found), tuple(sorted(problems)))


def _others(repo: GitRepo, projects: Iterable[GitRepo], prefix: str = "") -> Iterator[Problem]:
    """Yield a warning if the repository has other projects than the one that is opened."""
    if warning := beside(repo, projects):
        yield Problem(f"{prefix}{SETTINGS}", 1, 1, warning, "warning")


def revision(where: Path, rev: str, query: SlurmQuery) -> Checked:
    """Check all specs and the settings at a revision.

    Raises:
        RepositoryError: there is no such revision.
    """
    repo = _project_repo(where)
    commit = repo.commit(rev)
    if refused := tree_problems(repo, commit):
        return Checked(0, refused)
    tree = SpecTree.at(repo, commit)
    templates = partial(templates_at, repo, commit)
    check = _Check(tree, partial(_open, repo), query, templates)
    others = _others(repo, projects_at(repo, commit))
    found = check.all(files=len(tree.specs) + 1)
    return Checked(found.files, tuple(sorted({*found.problems, *others})), repo.prefix)


def changed(where: Path, span: str, query: SlurmQuery) -> Checked:
    """Check the specs of B that differ between the ends of ``A..B``, and those built on them.

    Raises:
        MtfError: the range is not of that form.
    """
    start, dots, end = span.partition("..")
    if not (start and dots and end) or end.startswith("."):
        raise MtfError(f"--range {span}: expected A..B, two revisions")
    repo = _project_repo(where)
    return new_in(repo, [repo.commit(start)], repo.commit(end), query)


def new_in(
    repo: GitRepo, known: Sequence[CommitId], commit: CommitId, query: SlurmQuery = SlurmQuery.NONE
) -> Checked:
    """Check the specs that are in none of the ``known`` commits, and those that build on them."""
    with repo.reading():
        if refused := tree_problems(repo, commit):
            return Checked(0, refused)
        return _new_in(repo, known, commit, query)


def _new_in(
    repo: GitRepo, known: Sequence[CommitId], commit: CommitId, query: SlurmQuery = SlurmQuery.NONE
) -> Checked:
    tree = SpecTree.at(repo, commit)
    now, *before = (_contents(repo, c, tree.settings) for c in (commit, *known))
    both = now.keys() | {path for contents in before for path in contents}
    paths = [p for p in both if all(e.get(p) != now.get(p) for e in before)]
    by_code = affected_by_code(
        tree.naming,
        tree.code,
        [files_at(repo, c) for c in known],
        lambda: any(p.endswith(".py") for c in known for p in repo.changed_paths(c, commit)),
    )
    templates = partial(templates_at, repo, commit)
    checked = _Check(tree, partial(_open, repo), query, templates).change(paths, by_code)
    return checked._replace(folder=repo.prefix)


def new_in_projects(repo: GitRepo, known: Sequence[CommitId], commit: CommitId) -> Checked:
    """Check what ``new_in`` does, in each project of a commit; paths are from the top."""
    with repo.reading():
        if refused := tree_problems(repo, commit):
            return Checked(0, refused)
        projects = projects_at(repo, commit)
        return _together((_new_in(p, known, commit) for p in projects), projects)


def _contents(repo: GitRepo, commit: CommitId, settings: Settings) -> dict[str, object]:
    """Return a value for each path, which differs between two commits if the file does."""
    folders = (settings.experiments, FOLDER, TEMPLATES_FOLDER)
    files = {path: entry for f in folders for path, entry in repo.files(commit, f).items()}
    return {**files, SETTINGS: repo.read(commit, SETTINGS)}


@dataclass(frozen=True)
class _Check:
    """A check of specs in their tree."""

    tree: SpecTree
    opened: Callable[[], Project]
    query: SlurmQuery = SlurmQuery.NONE
    templates: Callable[[], Mapping[str, str]] = dict

    def all(self, files: int) -> Checked:
        """Check all specs; ``files`` is the number of files read."""
        loaded = self.tree.load_all()
        unknown = unknown_names(loaded.desired, loaded, self._ledger)
        advice = self._advice(loaded.desired)
        scripts = self._in_scripts(loaded.desired)
        return _checked(files, self.tree.problems, loaded.problems, unknown, advice, scripts)

    def each(self, paths: Sequence[str]) -> Checked:
        """Check these specs, each by itself."""
        found = set(self.tree.settings_problems)
        valid: list[Desired] = []
        for path in paths:
            if PurePosixPath(path).name != SETTINGS and path in self.tree.texts:
                loaded = self._alone(path)
                with_init_from = [spec for spec in loaded.desired if spec.named_at]
                found.update(loaded.problems)
                if with_init_from:
                    found.update(self._init_from_problems(with_init_from, self.tree.load_all()))
                valid += loaded.desired
        return _checked(len(paths), found, self._advice(valid), self._in_scripts(valid))

    def _alone(self, path: str) -> Loaded:
        """Return one spec; of a base, the mistakes that the grids over it do not replace."""
        loaded = self.tree.load([path])
        if not loaded.problems or loaded.names or loaded.unread:
            return loaded
        texts = {other: raw for other, raw in self.tree.specs.items() if other != path}
        grids = mentioning({PurePosixPath(path).name}, texts)
        problems = self.tree.load([path, *grids]).problems
        own = (p for p in problems if p.path == path or p in loaded.problems)
        return loaded._replace(problems=tuple(own))

    def change(self, paths: Collection[str], by_code: Collection[str] = ()) -> Checked:
        """Check the specs that a change of these paths affects, in the tree after the change.

        ``by_code`` are further ones: a change of the code that they name affects them.
        """
        if not paths and not by_code:
            return Checked(0, self.tree.settings_problems)
        specs = self.tree.specs
        chosen = _affected({*paths, *by_code}, specs) & specs.keys()
        others = {path: raw for path, raw in specs.items() if path not in chosen}
        loaded = self.tree.load(chosen)
        while more := also_needed(loaded, loaded, others):  # same names, or named in init_from
            others = {path: raw for path, raw in others.items() if path not in more}
            loaded = self.tree.load(specs.keys() - others.keys())
        unaffected = specs.keys() - others.keys() - chosen
        found = {*self.tree.problems, *(p for p in loaded.problems if p.path not in unaffected)}
        affected = [spec for spec in loaded.desired if spec.path in chosen]
        with_init_from = [spec for spec in affected if spec.named_at]
        if with_init_from and self._init_from_problems(with_init_from, loaded):
            # again with all specs: a spec not loaded yet may have the name most like the wrong one
            found.update(self._init_from_problems(with_init_from, self.tree.load_all()))
        of_templates = {path for path in paths if path.startswith(f"{TEMPLATES_FOLDER}/")}
        scripts = self._in_templates() if of_templates else ()
        number = len(chosen | of_templates | ({SETTINGS} & set(paths)))
        return _checked(number, found, self._advice(affected), scripts)

    def _init_from_problems(self, checked: Sequence[Desired], specs: Loaded) -> list[Problem]:
        """Return the mistakes in ``init_from`` of the ``checked`` among all ``specs``."""
        paths = {spec.path for spec in checked}
        in_cycles = [p for p in cycles(specs.desired) if p.path in paths]
        return [*in_cycles, *unknown_names(checked, specs, self._ledger)]

    def _ledger(self) -> Ledger | None:
        """Return the ledger, None if there is no repository or the ledger was never fetched."""
        try:
            return self.opened().fetched_ledger()
        except (RepositoryError, SpecError):
            return None

    def _in_scripts(self, specs: Sequence[Desired]) -> Iterator[Problem]:
        """Yield the policies that specs break by the project's own templates."""
        if (samples := self._samples(specs)) is not None:
            settings = self.tree.settings
            yield from samples.violations(specs, settings.policies)

    def _in_templates(self) -> tuple[Problem, ...]:
        """Return the mistakes in the project's own templates."""
        samples = self._samples(())
        return () if samples is None else samples.problems

    def _samples(self, specs: Sequence[Desired]) -> SampleScripts | None:
        """Return the scripts of the specs' jobs by the project's own templates, if it has any."""
        if not (templates := self.templates()):
            return None
        from mtf.project.sample_scripts import SampleScripts  # late: few have own templates

        return SampleScripts.of(specs, templates, self.tree.settings)

    def _advice(self, specs: Sequence[Desired]) -> Iterator[Problem]:
        """Yield probable mistakes in valid specs, and requests that the cluster cannot meet."""
        settings = self.tree.settings
        facts = known_facts(settings, live=self.query is not SlurmQuery.NONE)
        yield from remarks(specs, settings, facts)
        if self.query is SlurmQuery.FEASIBILITY:
            yield from infeasible(specs, settings)


def _checked(files: int, *problems: Iterable[Problem]) -> Checked:
    return Checked(files, tuple(sorted({*itertools.chain.from_iterable(problems)})))


def _affected(paths: set[str], specs: Mapping[str, bytes]) -> set[str]:
    """Return the specs that a change of these paths may affect."""
    if SETTINGS in paths:
        return set(specs)
    keywords = [b"defaults"] if any(path.startswith(f"{FOLDER}/") for path in paths) else []
    before = {path: raw for path, raw in specs.items() if path not in paths}
    return touched(before | dict.fromkeys(paths - specs.keys(), b""), specs, keywords)


def _open(where: Path | GitRepo) -> Project:
    """Return the project in a folder or repository."""
    from mtf.project import project  # late: it imports git and the ledger

    return project.open_project(where) if isinstance(where, Path) else project.project_in(where)


def _repo(where: Path, *, inherit: bool = False) -> GitRepo:
    from mtf.git.repo import GitRepo  # late: files on disk are checked without git

    return GitRepo(where, inherit=inherit)


def _project_repo(where: Path) -> GitRepo:
    return of_clone(_repo(where))


def _spec_paths(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file() and is_spec(p.name))
    if not path.is_file():
        raise MtfError(f"{path}: no such file")
    return [path]
