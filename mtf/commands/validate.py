"""Checks specs and settings wherever they stand: on disk, staged, or in a revision."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mtf.core.planner.init_from_names import circles
from mtf.errors import MtfError, Problem
from mtf.project.affected import also_needed, touched
from mtf.project.cluster_check import infeasible, known_facts, remarks
from mtf.project.init_from_check import unknown_names
from mtf.project.worktree import (
    SETTINGS,
    groups_on_disk,
    linked,
    parsed,
    project_root,
    read_folder,
    read_settings,
    shown,
    stamp,
)
from mtf.spec.compose.config_groups import FOLDER, Groups
from mtf.spec.load import is_spec, load_some, load_specs

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo
    from mtf.project.project import Project
    from mtf.spec.load import Loaded
    from mtf.spec.schema.settings import Settings


class Asks(Enum):
    """What SLURM is asked, where there is one."""

    NOTHING = "nothing"  # what mtf.yaml says of the cluster has to do
    FACTS = "facts"  # which partitions there are, and so on
    FEASIBILITY = "feasibility"  # and whether it would take a job of each shape


@dataclass(frozen=True)
class Checked:
    """How many files were looked at, and every mistake in them."""

    files: int
    problems: tuple[Problem, ...]


def on_disk(where: Path, wanted: Sequence[Path], asks: Asks) -> Checked:
    """Check files as they are on disk; all specs and the settings when none is named.

    Needs no git: paths are shown as they were given.

    Raises:
        MtfError: a named file does not exist.
    """
    root, project = project_root(where), partial(_project, where)
    found = read_settings(root / SETTINGS, where)
    settings, problems = found
    folder = root / settings.experiments
    if not wanted:
        files = read_folder(folder, where)
        loaded = load_specs(files, settings, stamp(), groups_on_disk(root, where))
        number = sum(map(is_spec, files)) + (root / SETTINGS).is_file()
        unknown = unknown_names(loaded.desired, loaded, project)
        more = _beyond(loaded.desired, settings, asks)
        links = linked(folder, where)
        return _checked(number, problems, links, loaded.problems, unknown, more)
    paths = [p for w in wanted for p in _spec_paths(where / w)]
    texts = read_folder(folder, where)
    for parent in {p.parent for p in paths}:
        texts |= read_folder(parent, where)
    chosen = [shown(p, where) for p in paths]
    context = _Context(texts, settings, project, asks, groups_on_disk(root, where))
    return _check(chosen, context, problems)


def staged(where: Path) -> Checked:
    """Check what the next commit adds or changes, and what builds on it, as it is staged.

    Meant for the pre-commit hook: git's own environment (its index above all) is kept.
    """
    from mtf.git.repo import GitRepo
    from mtf.project.committed import spec_files

    repo = GitRepo(where, inherit=True)
    with repo.reading():
        raw = repo.index(SETTINGS).get(SETTINGS)
        settings, problems = parsed(repo.blobs([raw.oid])[raw.oid] if raw else None)
        paths = repo.staged(SETTINGS, settings.experiments, FOLDER)
        if not paths:
            return Checked(0, problems)
        texts, irregular = spec_files(repo, repo.index(settings.experiments))
        groups = Groups(lambda: spec_files(repo, repo.index(FOLDER))[0])
        context = _Context(texts, settings, partial(_project_in, repo), Asks.NOTHING, groups)
        return _check_change(paths, context, (*problems, *irregular))


def revision(where: Path, rev: str, asks: Asks) -> Checked:
    """Check all that a revision holds.

    Raises:
        RepositoryError: there is no such revision.
    """
    from mtf.git.repo import GitRepo
    from mtf.project.committed import groups_at, spec_files

    repo = GitRepo(where)
    commit = repo.commit(rev)
    settings, problems = parsed(repo.read(commit, SETTINGS))
    texts, irregular = spec_files(repo, repo.files(commit, settings.experiments))
    loaded = load_specs(texts, settings, stamp(), groups_at(repo, commit))
    specs = sum(map(is_spec, texts))
    unknown = unknown_names(loaded.desired, loaded, partial(_project_in, repo))
    more = _beyond(loaded.desired, settings, asks)
    return _checked(specs + 1, problems, irregular, loaded.problems, unknown, more)


def changed(where: Path, span: str, asks: Asks) -> Checked:
    """Check what differs between the ends of ``A..B``, and what builds on it, as it is in B.

    Raises:
        MtfError: the range is not one.
    """
    from mtf.git.repo import GitRepo

    start, dots, end = span.partition("..")
    if not (start and dots and end) or end.startswith("."):
        raise MtfError(f"--range {span}: expected A..B, two revisions")
    repo = GitRepo(where)
    return new_in(repo, [repo.commit(start)], repo.commit(end), asks)


def new_in(
    repo: GitRepo, known: Sequence[CommitId], commit: CommitId, asks: Asks = Asks.NOTHING
) -> Checked:
    """Check what stands in ``commit`` as in none of the ``known`` ones, and what builds on it."""
    from mtf.project.committed import groups_at, spec_files

    with repo.reading():
        settings, problems = parsed(repo.read(commit, SETTINGS))
        now, *before = (_contents(repo, c, settings) for c in (commit, *known))
        both = now.keys() | {path for contents in before for path in contents}
        paths = [p for p in both if all(e.get(p) != now.get(p) for e in before)]
        if not paths:
            return Checked(0, problems)
        texts, irregular = spec_files(repo, repo.files(commit, settings.experiments))
        project, groups = partial(_project_in, repo), groups_at(repo, commit)
        context = _Context(texts, settings, project, asks, groups)
        return _check_change(paths, context, (*problems, *irregular))


def _contents(repo: GitRepo, commit: CommitId, settings: Settings) -> dict[str, object]:
    """Return what tells the files that count at a commit from those at another, by path."""
    files = repo.files(commit, settings.experiments) | repo.files(commit, FOLDER)
    return {**files, SETTINGS: repo.read(commit, SETTINGS)}


@dataclass(frozen=True)
class _Context:
    """What the chosen specs are checked against."""

    texts: Mapping[str, bytes]  # of all specs, by path
    settings: Settings
    project: Callable[[], Project]
    asks: Asks
    groups: Groups

    def load(self, paths: Collection[str]) -> Loaded:
        """Return what some of the specs ask for."""
        return load_some(paths, self.texts, self.settings, stamp(), groups=self.groups)

    def load_all(self) -> Loaded:
        """Return what all of them ask for."""
        return load_specs(self.texts, self.settings, stamp(), self.groups)


def _check(chosen: Sequence[str], context: _Context, problems: Iterable[Problem]) -> Checked:
    """Check these specs, each for itself."""
    found = set(problems)
    good: list[Desired] = []
    for path in chosen:
        if PurePosixPath(path).name != SETTINGS and path in context.texts:
            loaded = context.load([path])
            found.update(_problems_of(loaded, context))
            good += loaded.desired
    return _checked(len(chosen), found, _beyond(good, context.settings, context.asks))


def _beyond(specs: Sequence[Desired], settings: Settings, asks: Asks) -> Iterator[Problem]:
    """Yield what is wrong or hardly meant in specs that are legal."""
    facts = known_facts(settings, live=asks is not Asks.NOTHING)
    yield from remarks(specs, settings, facts)
    if asks is Asks.FEASIBILITY:
        yield from infeasible(specs, settings)


def _checked(files: int, *problems: Iterable[Problem]) -> Checked:
    return Checked(files, tuple(sorted({*itertools.chain.from_iterable(problems)})))


def _check_change(
    paths: Collection[str], context: _Context, problems: Iterable[Problem]
) -> Checked:
    """Check the specs that a change touches, and those that build on them.

    Args:
        paths: what is new, changed or gone.
        context: as it is after the change.
        problems: what was found until here.
    """
    texts = {path: raw for path, raw in context.texts.items() if is_spec(path)}
    chosen = _concerned(set(paths), texts) & texts.keys()
    others = {path: raw for path, raw in texts.items() if path not in chosen}
    loaded = context.load(chosen)
    while more := also_needed(loaded, loaded, others):  # of the same name, or begun from
        others = {path: raw for path, raw in others.items() if path not in more}
        loaded = context.load(texts.keys() - others.keys())
    beside = texts.keys() - others.keys() - chosen
    found = {*problems, *(p for p in loaded.problems if p.path not in beside)}
    own = [one for one in loaded.desired if one.path in chosen]
    asking = [one for one in own if one.named_at]
    if asking and _of_origins(asking, loaded, context.project):
        found.update(_of_origins(asking, context.load_all(), context.project))  # nearest names
    beyond = _beyond(own, context.settings, context.asks)
    return _checked(len(chosen | ({SETTINGS} & set(paths))), found, beyond)


def _concerned(paths: set[str], texts: Mapping[str, bytes]) -> set[str]:
    if SETTINGS in paths:
        return set(texts)
    marks = [b"defaults"] if any(path.startswith(f"{FOLDER}/") for path in paths) else []
    before = {path: raw for path, raw in texts.items() if path not in paths}
    return touched(before | dict.fromkeys(paths - texts.keys(), b""), texts, marks)


def _problems_of(loaded: Loaded, context: _Context) -> list[Problem]:
    asking = [one for one in loaded.desired if one.named_at]
    if not asking:
        return list(loaded.problems)
    return [*loaded.problems, *_of_origins(asking, context.load_all(), context.project)]


def _of_origins(
    asking: Sequence[Desired], specs: Loaded, project: Callable[[], Project]
) -> list[Problem]:
    """Return what is wrong with the runs that specs begin from, which takes all the others."""
    paths = {one.path for one in asking}
    round_about = [p for p in circles(specs.desired) if p.path in paths]
    return [*round_about, *unknown_names(asking, specs, project)]


def _project(where: Path) -> Project:
    from mtf.project.project import open_project  # late: it takes git along

    return open_project(where)


def _project_in(repo: GitRepo) -> Project:
    from mtf.project.project import project_in

    return project_in(repo)


def _spec_paths(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file() and is_spec(p.name))
    if not path.is_file():
        raise MtfError(f"{path}: no such file")
    return [path]
