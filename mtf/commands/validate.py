"""Checks specs and settings wherever they stand: on disk, staged, or in a revision."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from enum import Enum
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from mtf.commands.facts import infeasible, known_facts, remarks
from mtf.commands.origins import unknown_names
from mtf.commands.worktree import (
    SETTINGS,
    groups_on_disk,
    parsed,
    project_root,
    read_folder,
    read_settings,
    shown,
    stamp,
)
from mtf.core.lineage import circles
from mtf.errors import MtfError, Problem
from mtf.spec.groups import FOLDER, Groups
from mtf.spec.load import is_spec, load_one, load_specs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from mtf.core.experiments import Desired
    from mtf.spec.settings import Settings


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
    root = project_root(where)
    found = read_settings(root / SETTINGS, where)
    settings, problems = found
    folder = root / settings.experiments
    if not wanted:
        files = read_folder(folder, where)
        loaded = load_specs(files, settings, stamp(), groups_on_disk(root, where))
        number = sum(map(is_spec, files)) + (root / SETTINGS).is_file()
        unknown = unknown_names(loaded.desired, loaded, where)
        more = _beyond(loaded.desired, settings, asks)
        return _checked(number, problems, loaded.problems, unknown, more)
    paths = [p for w in wanted for p in _spec_paths(where / w)]
    texts = read_folder(folder, where)
    for parent in {p.parent for p in paths}:
        texts |= read_folder(parent, where)
    chosen = [shown(p, where) for p in paths]
    context = _Context(texts, settings, where, asks, groups_on_disk(root, where))
    return _check(chosen, context, problems)


def staged(where: Path) -> Checked:
    """Check what the next commit adds or changes, as it is staged; what else is there is context.

    Meant for the pre-commit hook: git's own environment (its index above all) is kept.
    """
    from mtf.commands.desired import spec_files
    from mtf.gitrepo import GitRepo

    repo = GitRepo(where, inherit=True)
    raw = repo.index(SETTINGS).get(SETTINGS)
    settings, problems = parsed(repo.blobs([raw.oid])[raw.oid] if raw else None)
    changed = repo.staged(settings.experiments)
    chosen = [p for p in changed if is_spec(p)]
    if not chosen:
        return Checked(int(raw is not None), problems)
    texts, irregular = spec_files(repo, repo.index(settings.experiments))
    groups = Groups(lambda: spec_files(repo, repo.index(FOLDER))[0])
    return _check(
        chosen, _Context(texts, settings, where, Asks.NOTHING, groups), (*problems, *irregular)
    )


def revision(where: Path, rev: str, asks: Asks) -> Checked:
    """Check all that a revision holds.

    Raises:
        RepositoryError: there is no such revision.
    """
    from mtf.commands.desired import groups_at, spec_files
    from mtf.gitrepo import GitRepo

    repo = GitRepo(where)
    commit = repo.commit(rev)
    settings, problems = parsed(repo.read(commit, SETTINGS))
    texts, irregular = spec_files(repo, repo.files(commit, settings.experiments))
    loaded = load_specs(texts, settings, stamp(), groups_at(repo, commit))
    specs = sum(map(is_spec, texts))
    unknown = unknown_names(loaded.desired, loaded, where)
    more = _beyond(loaded.desired, settings, asks)
    return _checked(specs + 1, problems, irregular, loaded.problems, unknown, more)


def changed(where: Path, span: str, asks: Asks) -> Checked:
    """Check the specs that differ between the ends of ``A..B``, as they are in B.

    Raises:
        MtfError: the range is not one.
    """
    from mtf.commands.desired import groups_at, spec_files
    from mtf.gitrepo import GitRepo

    start, dots, end = span.partition("..")
    if not (start and dots and end) or end.startswith("."):
        raise MtfError(f"--range {span}: expected A..B, two revisions")
    repo = GitRepo(where)
    old, new = repo.commit(start), repo.commit(end)
    settings, problems = parsed(repo.read(new, SETTINGS))
    before, after = (repo.files(c, settings.experiments) for c in (old, new))
    texts, irregular = spec_files(repo, after)
    chosen = [p for p, entry in after.items() if is_spec(p) and before.get(p) != entry]
    context = _Context(texts, settings, where, asks, groups_at(repo, new))
    return _check(chosen, context, (*problems, *irregular))


@dataclass(frozen=True)
class _Context:
    """What the chosen specs are checked against."""

    texts: Mapping[str, bytes]  # of all specs, by path
    settings: Settings
    where: Path
    asks: Asks
    groups: Groups


def _check(chosen: Sequence[str], context: _Context, problems: Iterable[Problem]) -> Checked:
    found, asking, texts = set(problems), [], context.texts
    good: list[Desired] = []
    for path in chosen:
        if PurePosixPath(path).name != SETTINGS and path in texts:
            loaded = load_one(
                texts[path], path, texts, context.settings, stamp(), groups=context.groups
            )
            found.update(loaded.problems)
            asking += [one for one in loaded.desired if one.named_at]
            good += loaded.desired
    if asking:
        found.update(_of_origins(asking, context))
    return _checked(len(chosen), found, _beyond(good, context.settings, context.asks))


def _beyond(specs: Sequence[Desired], settings: Settings, asks: Asks) -> Iterator[Problem]:
    """Yield what is wrong or hardly meant in specs that are legal."""
    facts = known_facts(settings, live=asks is not Asks.NOTHING)
    yield from remarks(specs, settings, facts)
    if asks is Asks.FEASIBILITY:
        yield from infeasible(specs, settings)


def _checked(files: int, *problems: Iterable[Problem]) -> Checked:
    return Checked(files, tuple(sorted({*itertools.chain.from_iterable(problems)})))


def _of_origins(asking: Sequence[Desired], context: _Context) -> list[Problem]:
    """Return what is wrong with the runs that specs begin from, which takes all the others."""
    specs = load_specs(context.texts, context.settings, stamp(), context.groups)
    paths = {one.path for one in asking}
    round_about = [p for p in circles(specs.desired) if p.path in paths]
    return [*round_about, *unknown_names(asking, specs, context.where)]


def _spec_paths(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.is_file() and is_spec(p.name))
    if not path.is_file():
        raise MtfError(f"{path}: no such file")
    return [path]
