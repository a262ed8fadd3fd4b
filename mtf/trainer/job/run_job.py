"""One job of a run from start to end: claim the run, prove its code, train, journal the end.

Torch is imported only after the run is claimed and signal handlers are installed.
"""

from __future__ import annotations

import errno
import gc
import importlib.util
import os
import re
import socket
import sys
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.core.planner.journal_reader import fold
from mtf.core.vocabulary.causes import STORAGE_EXIT_CODE
from mtf.core.vocabulary.ids import JobId, Token
from mtf.distribution import pip_install
from mtf.errors import (
    EXIT_ERROR,
    EXIT_USAGE,
    MtfError,
    SpecError,
    StorageError,
    TrainingError,
)
from mtf.trainer.job.code_proof import proof_facts, prove_checkout, prove_modules, put_first
from mtf.trainer.runtime import signals, start_claim
from mtf.trainer.runtime.console import say
from mtf.trainer.runtime.current_run import set_current_run
from mtf.trainer.runtime.pinned_frames import place_of
from mtf.trainer.runtime.process_end import end_data_workers, limit_exit
from mtf.trainer.runtime.resource_meter import ResourceMeter
from mtf.trainer.runtime.signals import Stopped, end_after
from mtf.trainer.runtime.start_claim import ShutOutError
from mtf.trainer.storage.checkpoint_store import CheckpointStore
from mtf.trainer.storage.journal import Journal, monitored
from mtf.trainer.storage.scalars import SCALARS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.context import RunContext


@dataclass(frozen=True)
class Job:
    """This process as the job script's environment describes it.

    Attributes:
        request: the folder of the job request, and the run's index in it.
    """

    run_dir: Path
    token: Token
    job_id: JobId
    restarts: int
    rank: int
    world_size: int
    request: tuple[Path, int] | None

    @classmethod
    def of(cls, run_dir: Path, env: Mapping[str, str]) -> Job:
        """Return the job that an environment describes.

        Raises:
            MtfError: variables are missing.
        """
        if missing := [name for name in ("MTF_TOKEN", "MTF_JOB_ID") if not env.get(name)]:
            raise MtfError(
                f"{' and '.join(missing)} not set: a run is started by its job script. Submit it"
                " with mtf sync"
            )
        folder = env.get("MTF_JOB_DIR")
        return cls(
            run_dir=run_dir,
            token=Token(env["MTF_TOKEN"]),
            job_id=JobId(env["MTF_JOB_ID"]),
            restarts=int(env.get("MTF_RESTARTS") or env.get("SLURM_RESTART_COUNT") or 0),
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
    except MtfError as e:
        say(str(e))
        return EXIT_ERROR
    except OSError as e:
        say(f"the run folder cannot be used: {e}")
        return STORAGE_EXIT_CODE
    return _run(job, Journal(run_dir, is_first_rank=job.rank == 0))


def _may_run(job: Job) -> bool:
    """Return True if the run is not complete and this start of its job is the one to train it."""
    if any(event["event"] == "finished" for event in rundir.read_journal(job.run_dir)):
        say("nothing to do: this run is complete")
        return False
    holder = rundir.claim(job.run_dir, job.token, job.job_id)
    if holder != job.job_id:
        say(f"job {holder} has claimed this attempt: job {job.job_id} exits without training")
        return False
    start = start_claim.Start(job.token, job.job_id, job.restarts, job.world_size)
    try:
        claim = start_claim.take(job.run_dir, start, job.rank, (rundir.JOURNAL, SCALARS))
    except ShutOutError as e:
        say(str(e))
        return False
    start_claim.hold(claim)
    return True


def _run(job: Job, journal: Journal) -> int:
    try:
        _train(job, journal)
    except Stopped as stopped:
        say(f"stopped by {stopped.signal.name}")
        code = end_after(stopped)
        limit_exit(code)  # before the error's frames are freed, whose objects may wait
        return code
    except BaseException as e:  # noqa: BLE001 -- whatever ends a job is journaled
        if not _is_shut_out():
            _report_failure(e, job, journal)
        code = STORAGE_EXIT_CODE if _is_of_storage(e, job.run_dir) else EXIT_ERROR
        limit_exit(code)
        return code
    return 0


def _is_shut_out() -> bool:
    """Return True if another start of the run has taken over, and say so: nothing else matters."""
    try:
        start_claim.require()
    except ShutOutError as e:
        say(str(e))
        return True
    except OSError:  # it is unknown; the journal cannot be written either
        pass
    return False


def _is_of_storage(error: BaseException, run_dir: Path) -> bool:
    """Return True if a disk does not take what the job writes, so that its code is not at fault."""
    if not isinstance(error, OSError):
        return isinstance(error, StorageError)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return True
    is_ours = str(error.filename or "").startswith(f"{run_dir}/")
    return is_ours and error.errno in (errno.EACCES, errno.EPERM, errno.EIO)


def _report_failure(error: BaseException, job: Job, journal: Journal) -> None:
    """Log and journal an error; it is a refusal if the user must change something first."""
    text, is_known = traceback.format_exc(), isinstance(error, MtfError)
    refuses = is_known and not isinstance(error, TrainingError)
    reason = str(error) if is_known else main_line(_root(error)) + place_of(error)
    if job.world_size > 1 and _LOST_RANK.search(reason):
        reason = f"another process of the training has died (see the output of all): {reason}"
    say(f"{'refused: ' if refuses else ''}{reason}" if is_known else text.rstrip())
    try:
        (journal.refused if refuses else journal.failed)(reason, text)
    except (OSError, ShutOutError) as e:
        say(f"could not write the journal either: {e}")


def main_line(error: BaseException) -> str:
    """Return the line of an error that says what was wrong.

    It is the first one, since CUDA's errors end in advice; or the last one after the traceback of
    a data worker, and of a syntax error.
    """
    lines = "".join(traceback.format_exception_only(error)).strip().splitlines()
    is_last = isinstance(error, SyntaxError) or any("Traceback (most" in x for x in lines)
    return lines[-1 if is_last else 0]


# Source: the texts of gloo and NCCL.
_LOST_RANK = re.compile("Connection (closed|reset) by peer|remote process exited")


def _root(error: BaseException) -> BaseException:
    """Return the error that names the signal which killed a data worker.

    Torch raises another one from it, which says only that the worker has exited.
    """
    cause = error.__cause__
    if str(error).startswith("DataLoader worker") and cause and "by signal" in str(cause):
        return cause
    return error


def _train(job: Job, journal: Journal) -> None:
    config = _config_of(job)
    _journal_start(job, config, journal)
    sys.dont_write_bytecode = True  # the checkout must stay as it is
    pinned = prove_checkout(config.mtf)
    put_first(config.mtf)
    require_torch()
    with paused_garbage_collector():
        from mtf.trainer.compute.fabric import build_fabric
        from mtf.trainer.context import RunContext  # torch, Fabric
    context = RunContext(config, job.run_dir, build_fabric(config, os.environ))
    set_current_run(context)

    def proved() -> None:
        journal.proof(**proof_facts(pinned, prove_modules(pinned)))

    who = {"token": job.token, "restarts": job.restarts, "rank": job.rank}
    who |= {"host": socket.gethostname()}
    try:
        with ResourceMeter(lambda used: journal.resources(who, used)):
            train(context, proved)
    finally:
        end_data_workers()
    prove_modules(pinned)  # also those imported during the training
    if job.rank == 0:
        _note_unread_origin(config, job.run_dir, journal)
    _journal_end(job, journal)


def train(run: RunContext, proved: Callable[[], None]) -> None:
    """Train with the built-in trainer, or call the configuration's entry point.

    Args:
        run: the run.
        proved: called after the user's modules are imported and before the training.
    """
    if run.config.entrypoint is None:
        _built_in(run, proved)
    else:
        _call_entrypoint(run, run.config.entrypoint, proved)


@contextmanager
def paused_garbage_collector() -> Iterator[None]:
    """Pause the garbage collector during imports, and let it ignore what they created.

    Modules stay to the end. Scanning them would take a fifth of the imports' time, and another
    0.7 s at the interpreter's exit (measured with torch).
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def require_torch() -> None:
    """Check that torch and lightning are installed.

    Raises:
        MtfError: they are not.
    """
    missing = [name for name in ("torch", "lightning") if importlib.util.find_spec(name) is None]
    if missing:
        raise MtfError(
            f"{' and '.join(missing)} not installed for {sys.executable}. Run"
            f" {pip_install('train', python=sys.executable)}, or name the environment of jobs in"
            " mtf.yaml (environment: {venv: ...})"
        )


def _built_in(run: RunContext, proved: Callable[[], None]) -> None:
    """Train the configured model with the built-in trainer."""
    from mtf.trainer.compute.rng import seed_all, seed_at

    data = run.data()
    seed_all(
        seed_at("init", run.config.training.seed)
    )  # independent of what the data sets have drawn
    model = run.model(data)
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer, data)
    proved()
    run.trainer(model, optimizer, schedule).fit(data.train, data.validation)


def _call_entrypoint(run: RunContext, entrypoint: str, proved: Callable[[], None]) -> None:
    """Call the user's entry point; the training is complete when it returns."""
    from mtf.trainer.components.registry import load
    from mtf.trainer.compute.rng import seed_all, seed_at

    seed_all(seed_at("init", run.config.training.seed))
    function = load(entrypoint, key="entrypoint")
    proved()
    function(run)


def _note_unread_origin(config: ExperimentConfig, run_dir: Path, journal: Journal) -> None:
    """Warn if an entry point has not loaded the checkpoint that ``init_from`` names."""
    if config.init_from is None:
        return
    if not any(event["event"] == "initialised" for event in rundir.read_journal(run_dir)):
        text = (
            f"init_from: {config.entrypoint} never called run.origin(), so it did not load the"
            " checkpoint that this run is recorded to begin from. Load it, or remove init_from"
        )
        say(text)
        journal.noted(text)  # the complete training is kept all the same


def _config_of(job: Job) -> ExperimentConfig:
    """Return the configuration that a job was submitted with, and link it into the run folder.

    Raises:
        MtfError: it is missing or not valid.
        OSError: the run folder cannot be written.
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
        MtfError: it is missing or not valid.
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


def _journal_start(job: Job, config: ExperimentConfig, journal: Journal) -> None:
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


def _journal_end(job: Job, journal: Journal) -> None:
    reached = fold(rundir.read_journal(job.run_dir), str(job.run_dir))
    journal.finished(reached.epoch or 0, reached.step or 0, reached.metrics)
