"""Groups the runs to start into job requests, and writes the files that their jobs read."""

from __future__ import annotations

import shutil
import sys
from collections import defaultdict
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.core.planner.grids.throttles import places
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.ids import CommitId, Token, member_of, name_of, submission_of
from mtf.core.vocabulary.jobs import JobRequest, Task
from mtf.errors import MtfError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from mtf.core.planner.grids.throttles import LiveArray, Place
    from mtf.core.vocabulary.ids import RunId, RunKey
    from mtf.core.vocabulary.jobs import Resources
    from mtf.core.vocabulary.records import Origin
    from mtf.executor.protocol import Executor


@dataclass(frozen=True)
class Start:
    """One run that gets a job now."""

    run: RunId
    key: RunKey
    commit: CommitId
    grid: str | None
    config: Mapping[str, Any]
    max_parallel: int | None
    root: Path  # the run root; later attempts keep that of the first
    origin: Origin | None = None  # the checkpoint of another run that it begins from
    folder: str = ""  # of the project in the checkout; empty: its top


@dataclass(frozen=True)
class Batch:
    """Runs that are submitted together, in the order of their indices."""

    request: JobRequest
    starts: tuple[Start, ...]
    after: tuple[str, ...] = ()  # what it waits for: tokens of other batches, numbers of arrays

    def indices(self) -> Iterator[tuple[int, Start]]:
        """Yield each run with its index."""
        return zip((t.index for t in self.request.tasks), self.starts, strict=True)


def make_batches(
    starts: Iterable[Start], max_size: int, new_token: Callable[[], str]
) -> list[Batch]:
    """Return one batch for each group of runs of a submission that need equal resources.

    A group of more than ``max_size`` runs, the limit of a job array, becomes several batches.
    """
    groups: dict[tuple[str, str, str], list[Start]] = defaultdict(list)
    for start in starts:
        needs = json_text.dumps(start.config["slurm"], sort_keys=True)
        groups[submission_of(start.run), str(start.root), needs].append(start)
    return [
        _batch(tuple(group[at : at + max_size]), Token(new_token()))
        for group in groups.values()
        for at in range(0, len(group), max_size)
    ]


def _batch(starts: tuple[Start, ...], token: Token) -> Batch:
    first = starts[0]
    root = first.root
    submission = submission_of(first.run)
    resources: Resources = first.config["slurm"]
    request = JobRequest(
        token=token,
        name=name_of(submission),
        tasks=tuple(
            Task(s.run, index, str(rundir.run_dir(root, s.run))) for index, s in enumerate(starts)
        ),
        resources=resources,
        code_dir=str(rundir.code_dir(root, first.commit)),
        job_dir=str(rundir.job_dir(root, submission, token)),
        array=first.grid is not None,
        max_parallel=first.max_parallel,
        python=sys.executable,
        folder=first.folder,
    )
    return Batch(request, starts)


def placed(
    batches: Sequence[Batch], arrays: Mapping[str, Sequence[LiveArray]], executor: str
) -> tuple[list[Batch], list[Batch]]:
    """Return the batches so that ``max_parallel`` holds, and those that cannot be submitted now.

    Args:
        batches: in the order in which they are submitted.
        arrays: those of each grid that may still run jobs, by the grid's name.
        executor: that the batches are submitted to.
    """
    limited: dict[str, list[Batch]] = defaultdict(list)
    for batch in batches:
        if (grid := batch.starts[0].grid) and batch.request.max_parallel:
            limited[grid].append(batch)
    found: dict[Token, Place] = {}
    waiting: list[Batch] = []
    for grid, group in limited.items():
        most = min(b.request.max_parallel or 1 for b in group)
        sizes = [(b.request.token, len(b.starts)) for b in group]
        named = places(sizes, arrays.get(grid, ()), most, executor)
        found |= {Token(token): place for token, place in named.items()}
        waiting += [b for b in group if b.request.token not in named]
    left = {b.request.token for b in waiting}
    kept = [b for b in batches if b.request.token not in left]
    return [_at(b, found.get(b.request.token)) for b in kept], waiting


def _at(batch: Batch, place: Place | None) -> Batch:
    if place is None:
        return batch
    request = replace(batch.request, max_parallel=place.throttle)
    return replace(batch, request=request, after=place.after)


def no_room(batch: Batch, spec: str) -> Problem:
    """Return the reason why a batch waits in mtf: nothing is known of other jobs of its grid."""
    most = batch.request.max_parallel
    message = (
        f"{batch.request.name}: at most {most} of its runs may run at a time (max_parallel), and"
        " some of its jobs cannot be seen now. A later mtf sync submits the others"
    )
    return Problem(spec, 1, 1, message)


def refused_ahead(
    prepared: Iterable[tuple[Executor, Batch, str]],
    withdrawn: Collection[RunId],
    specs: Mapping[RunId, str],
) -> dict[RunId, tuple[Problem, ...]]:
    """Return the runs that keep their waiting jobs: the executor would refuse the new ones.

    Args:
        prepared: the new jobs, each with its script.
        withdrawn: runs whose jobs are to give way to them.
        specs: the paths of their specs.
    """
    found: dict[RunId, tuple[Problem, ...]] = {}
    for executor, batch, script in prepared:
        runs = [start.run for start in batch.starts]
        if not any(run in withdrawn for run in runs):
            continue
        if (why := executor.refusal(batch.request, script)) is not None:
            message = (
                f"{batch.request.name}: {executor.name} would refuse its new jobs ({why}), so that"
                " those which wait keep their place"
            )
            found |= dict.fromkeys(runs, (Problem(specs[runs[0]], 1, 1, message),))
    return found


def bridge(kept: Iterable[Batch], batches: Iterable[Batch]) -> list[Batch]:
    """Return the kept ones of some batches: instead of another, they wait for what it waits for."""
    kept = [*kept]
    tokens = {b.request.token for b in kept}
    gone: dict[str, tuple[str, ...]] = {
        b.request.token: b.after for b in batches if b.request.token not in tokens
    }

    def without(names: Iterable[str]) -> Iterator[str]:
        for name in names:
            if name in gone:
                yield from without(gone[name])
            else:
                yield name

    return [replace(b, after=tuple(dict.fromkeys(without(b.after)))) for b in kept]


def prepare(batch: Batch, repository: Path) -> None:
    """Write the configurations of a batch's runs, all into one file. Idempotent.

    Raises:
        OSError: the run root cannot be written.
    """
    job_dir = Path(batch.request.job_dir)
    submission_dir = job_dir.parents[1]
    rundir.make_shared(submission_dir.parent, batch.starts[0].root)
    job_dir.mkdir(parents=True, exist_ok=True)
    rundir.write_configs(job_dir, (job_config(start, repository) for start in batch.starts))


@contextmanager
def written_ahead(batches: Sequence[Batch], repository: Path) -> Iterator[None]:
    """Write the requests of runs that no committed spec asks for, before they are claimed.

    If this process dies after the claim, its request alone tells the next one that this user has
    asked for these runs (see ``project.belief``). If the claim fails, they are removed.
    """
    for batch in batches:
        prepare(batch, repository)
    try:
        yield
    except MtfError:
        for batch in batches:
            remove_request(batch)
        raise


def remove_request(batch: Batch) -> None:
    """Remove the files of a batch that certainly has no jobs, and folders that are empty then."""
    folder = Path(batch.request.job_dir)
    shutil.rmtree(folder, ignore_errors=True)
    root = batch.starts[0].root
    with suppress(OSError):  # not empty, or another submission is being written
        for parent in folder.parents:
            if parent == root:
                break
            parent.rmdir()


def job_config(start: Start, repository: Path) -> dict[str, Any]:
    """Return the configuration that a job reads: the run's, and the section ``mtf``."""
    run_section = {
        "run": start.run,
        "submission": submission_of(start.run),
        "experiment": member_of(start.run) or name_of(start.run),
        "grid": start.grid,
        "key": start.key,
        "commit": start.commit,
        "code_dir": str(rundir.code_dir(start.root, start.commit)),
        "folder": start.folder,
        "manifest": str(rundir.code_manifest(start.root, start.commit)),
        "repository": str(repository),
        "origin": start.origin and _origin(start.origin),
    }
    return {**start.config, "mtf": run_section}


def _origin(origin: Origin) -> dict[str, Any]:
    """Return an origin without the keys that only a newer mtf knows: an older one may read it."""
    return {name: value for name, value in vars(origin).items() if name != "unknown"}
