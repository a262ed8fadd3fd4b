"""The life of one job on a run: claim, prove, train, and say how it ended.

Nothing here imports torch before the run is claimed and signals are heard.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import socket
import sys
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.planner.journal_reader import fold
from mtf.core.vocabulary.ids import JobId, Token
from mtf.distribution import pip_install
from mtf.errors import EXIT_ERROR, EXIT_USAGE, MtfError, SpecError, TrainingError
from mtf.trainer.job.code_proof import facts, prove_checkout, prove_modules, put_first
from mtf.trainer.runtime import signals
from mtf.trainer.runtime.console import say
from mtf.trainer.runtime.signals import Stopped, end_after
from mtf.trainer.storage.checkpoint_store import CheckpointStore
from mtf.trainer.storage.journal import Journal, monitored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.context import RunContext


@dataclass(frozen=True)
class Job:
    """What the job script says of this process."""

    run_dir: Path
    token: Token
    job_id: JobId
    restarts: int
    rank: int
    world_size: int
    request: tuple[Path, int] | None  # the folder of the job request, and its index there

    @classmethod
    def of(cls, run_dir: Path, env: Mapping[str, str]) -> Job:
        """Return the job that an environment describes.

        Raises:
            MtfError: it describes none.
        """
        if missing := [name for name in ("MTF_TOKEN", "MTF_JOB_ID") if not env.get(name)]:
            raise MtfError(
                f"{' and '.join(missing)} not set: a run is started by its job script, which"
                " mtf sync submits"
            )
        folder = env.get("MTF_JOB_DIR")
        return cls(
            run_dir=run_dir,
            token=Token(env["MTF_TOKEN"]),
            job_id=JobId(env["MTF_JOB_ID"]),
            restarts=int(env.get("MTF_RESTARTS") or 0),
            rank=int(env.get("SLURM_PROCID") or env.get("RANK") or 0),
            world_size=int(env.get("SLURM_NTASKS") or env.get("WORLD_SIZE") or 1),
            request=(Path(folder), int(env["MTF_INDEX"])) if folder else None,
        )


def main(argv: list[str]) -> int:
    """Run the job and return its exit code: 0 for a complete training and nothing else."""
    signals.install()
    if len(argv) != 1:
        say("usage: python -m mtf.trainer <run folder>")
        return EXIT_USAGE
    run_dir = Path(argv[0]).absolute()
    try:
        job = Job.of(run_dir, os.environ)
        if not _may_run(job):
            return 0
    except (MtfError, OSError) as e:
        say(str(e))
        return EXIT_ERROR
    return _run(job, Journal(run_dir, speaks=job.rank == 0))


def _may_run(job: Job) -> bool:
    """Return whether there is something to do and this job is the one to do it."""
    if any(fact["event"] == "finished" for fact in rundir.read_journal(job.run_dir)):
        say("this run is complete already")
        return False
    holder = rundir.claim(job.run_dir, job.token, job.job_id)
    if holder != job.job_id:
        say(f"this attempt belongs to job {holder}: job {job.job_id} leaves it alone")
        return False
    return True


def _run(job: Job, journal: Journal) -> int:
    try:
        _train(job, journal)
    except Stopped as stopped:
        say(f"stopped by {stopped.signal.name}")
        return end_after(stopped)
    except BaseException as e:  # noqa: BLE001 -- whatever ends a job is journaled
        return _failed(e, journal)
    return 0


def _failed(error: BaseException, journal: Journal) -> int:
    """Say why the job ends: refused, where mtf knows what is wrong with what was asked for."""
    text, is_told = traceback.format_exc(), isinstance(error, MtfError)
    refuses = is_told and not isinstance(error, TrainingError)
    reason = str(error) if is_told else _last_line(error) + _place(error)
    say(f"{'refused: ' if refuses else ''}{reason}" if is_told else text.rstrip())
    try:
        (journal.refused if refuses else journal.failed)(reason, text)
    except OSError as e:
        say(f"and the journal cannot be written: {e}")
    return EXIT_ERROR


def _last_line(error: BaseException) -> str:
    """Return the line that says what was wrong: the error's first, or its last after a traceback.

    What a data worker has raised stands behind the worker's own traceback; advice like that of
    CUDA's errors stands behind what has happened.
    """
    lines = "".join(traceback.format_exception_only(error)).strip().splitlines()
    told_behind = isinstance(error, SyntaxError) or any("Traceback (most" in x for x in lines)
    return lines[-1 if told_behind else 0]


def _place(error: BaseException) -> str:
    """Return the line of the pinned code that an error comes from, in brackets; empty: none."""
    root, ours = f"{Path.cwd()}/", f"{Path(__file__).parents[1]}/"  # the job script has gone there
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if f.filename.startswith(root) and not f.filename.startswith(ours)]
    own = [f for f in own if "-packages/" not in f.filename]
    return f" ({own[-1].filename.removeprefix(root)}:{own[-1].lineno})" if own else ""


def _train(job: Job, journal: Journal) -> None:
    config = _config_of(job)
    _say_started(job, config, journal)
    sys.dont_write_bytecode = True  # nothing may appear in the checkout
    pinned = prove_checkout(config.mtf)
    put_first(Path(config.mtf.code_dir))
    require_torch()
    with paused_garbage_collector():
        from mtf.trainer.compute.fabric import build_fabric
        from mtf.trainer.context import RunContext  # torch, Fabric
    context = RunContext(config, job.run_dir, build_fabric(config, os.environ))

    def proved() -> None:
        journal.proof(**facts(pinned, prove_modules(pinned)))

    train(context, proved)
    prove_modules(pinned)  # those too that were imported on the way
    if job.rank == 0:
        _note_unread_origin(config, job.run_dir, journal)
    _say_finished(job, journal)


def train(run: RunContext, proved: Callable[[], None]) -> None:
    """Train what the configuration names, or as its entry point does.

    Args:
        run: the run.
        proved: called when the user's modules are imported, before the training.
    """
    if run.config.entrypoint is None:
        _built_in(run, proved)
    else:
        _own(run, run.config.entrypoint, proved)


@contextmanager
def paused_garbage_collector() -> Iterator[None]:
    """Import without the garbage collector, and keep it away from what was imported.

    Modules stay to the end: looking at them again and again takes a fifth of the imports' time,
    and once more 0.7 s at the interpreter's end.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def require_torch() -> None:
    """Make sure of what trainings need.

    Raises:
        MtfError: it is not installed.
    """
    missing = [name for name in ("torch", "lightning") if importlib.util.find_spec(name) is None]
    if missing:
        raise MtfError(
            f"{' and '.join(missing)} not installed for {sys.executable}. Run"
            f" {pip_install('train', python=sys.executable)}, or name the environment of jobs in"
            " mtf.yaml (environment: {venv: ...})"
        )


def _built_in(run: RunContext, proved: Callable[[], None]) -> None:
    """Train what the configuration names."""
    from mtf.trainer.compute.rng import seed_all, seed_at

    data = run.data()
    seed_all(seed_at("init", run.config.training.seed))  # whatever the data sets have drawn
    model = run.model(data)
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer, data)
    proved()
    run.trainer(model, optimizer, schedule).fit(data.train, data.validation)


def _own(run: RunContext, entrypoint: str, proved: Callable[[], None]) -> None:
    """Call the user's entry point; its return means that the training is complete."""
    from mtf.trainer.components.registry import load
    from mtf.trainer.compute.rng import seed_all, seed_at

    seed_all(seed_at("init", run.config.training.seed))
    function = load(entrypoint, key="entrypoint")
    proved()
    function(run)


def _note_unread_origin(config: ExperimentConfig, run_dir: Path, journal: Journal) -> None:
    """Say where an entry point has not begun from what its run is recorded to begin from."""
    if config.init_from is None:
        return
    if not any(fact["event"] == "initialised" for fact in rundir.read_journal(run_dir)):
        text = (
            f"init_from: {config.entrypoint} has never asked for run.origin(), the checkpoint that"
            " this run is recorded to begin from. Load it, or take init_from out of the spec"
        )
        say(text)
        journal.noted(text)  # a training that is complete is not thrown away for it


def _config_of(job: Job) -> ExperimentConfig:
    """Return the configuration that a job was submitted with, now to be seen in its run's folder.

    Raises:
        MtfError: it is not there or not valid.
        OSError: the run's folder cannot be written.
    """
    if job.request is None:
        return read_config(job.run_dir)
    job_dir, index = job.request
    try:
        value = rundir.read_config(job_dir, index)
    except (OSError, ValueError) as e:
        raise MtfError(f"{job_dir / rundir.CONFIGS}: line {index + 1}: {e}") from e
    if job.rank == 0:
        rundir.fill_run_folder(job.run_dir, job_dir, job.job_id, value)
    return _validated(value, job_dir / rundir.CONFIGS)


def read_config(run_dir: Path) -> ExperimentConfig:
    """Return the resolved configuration of a run.

    Raises:
        MtfError: it is not there or not valid.
    """
    from mtf.spec.yaml.reader import load_yaml

    path = run_dir / rundir.CONFIG
    try:
        value, _ = load_yaml(path.read_bytes(), str(path))
    except (OSError, SpecError) as e:
        raise MtfError(f"{path}: not a run's configuration: {e}") from e
    return _validated(value, path)


def _validated(value: object, path: Path) -> ExperimentConfig:
    from pydantic import ValidationError

    from mtf.spec.schema.run_config import ExperimentConfig

    try:
        return ExperimentConfig.model_validate(value)
    except ValidationError as e:
        raise MtfError(f"{path}: not a run's configuration: {e}") from e


def _say_started(job: Job, config: ExperimentConfig, journal: Journal) -> None:
    if job.rank != 0:
        return
    store = CheckpointStore(job.run_dir / rundir.CHECKPOINTS, keep_last=config.checkpoint.keep_last)
    store.sweep()
    newest = store.newest_intact()
    journal.started(
        token=job.token,
        job_id=job.job_id,
        restarts=job.restarts,
        host=socket.gethostname(),
        world_size=job.world_size,
        resumed_from=newest.path.relative_to(job.run_dir).as_posix() if newest else None,
        epoch=newest.epoch if newest else 0,
        step=newest.step if newest else 0,
        max_epochs=config.training.max_epochs,
        monitor=monitored(config),
        mode=config.checkpoint.mode,
    )


def _say_finished(job: Job, journal: Journal) -> None:
    reached = fold(rundir.read_journal(job.run_dir), str(job.run_dir))
    journal.finished(reached.epoch or 0, reached.step or 0, reached.metrics)
