"""Opens and closes all that shows a training: mirrors, observer, throughput, progress bar."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mtf.trainer.compute.rng import RNGState
from mtf.trainer.runtime.console import say
from mtf.trainer.runtime.signals import Stopped
from mtf.trainer.tracking import wandb_mirror
from mtf.trainer.tracking.file_mirrors import CSVMirror, TensorBoardMirror
from mtf.trainer.tracking.mirrors import Mirrors, TrainingEnd
from mtf.trainer.tracking.observer import Observer
from mtf.trainer.tracking.progress_bar import TerminalProgress, is_interactive
from mtf.trainer.tracking.throughput import Throughput
from mtf.trainer.tracking.wandb_mirror import WandbMirror

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.compute.step import StepEngine
    from mtf.trainer.storage.journal import Journal
    from mtf.trainer.storage.scalars import Scalars
    from mtf.trainer.tracking.mirrors import Mirror
    from mtf.trainer.tracking.progress_bar import ProgressStatus


class Tracking:
    """What one process shows of the training; by default nothing, as on all ranks but the first.

    Attributes:
        mirrors: where else rows are shown.
        observer: logs images and histograms; None if none are configured.
        throughput: the speed of the training.
    """

    def __init__(self, mirrors: Mirrors | None = None, observer: Observer | None = None) -> None:
        self.mirrors = mirrors or Mirrors()
        self.observer = observer
        self.throughput = Throughput()
        self._bar: TerminalProgress | None = None

    def begin(self, scalars: Scalars | None, status: Callable[[], ProgressStatus]) -> None:
        """Show the rows so far in the mirrors, and draw a progress bar in a terminal.

        Args:
            scalars: the rows so far; None on all ranks but the first.
            status: returns how far the training is; called from another thread.
        """
        if scalars is None:
            return
        rng = RNGState.capture()  # a library may draw random numbers when it starts
        self.mirrors.open(scalars.rows())
        self._bar = _progress_bar(status)
        rng.restore()

    def close(self) -> None:
        """Close everything; the exception being handled, if any, says how the training ended."""
        if self._bar is not None:
            self._bar.close()
        error = sys.exception()
        self.mirrors.close(TrainingEnd(complete=error is None, stopped=isinstance(error, Stopped)))


def _progress_bar(status: Callable[[], ProgressStatus]) -> TerminalProgress | None:
    try:
        return TerminalProgress(status) if is_interactive() else None
    except Exception as e:  # noqa: BLE001 -- tracking must not fail the training
        say(f"no progress bar: {type(e).__name__}: {e}")
        return None


def build_tracking(
    config: ExperimentConfig, run_dir: Path, engine: StepEngine, wandb_run: Any | None = None
) -> Tracking:
    """Return the tracking of the first rank; nothing is opened yet.

    Args:
        config: its section ``logging`` says what to show.
        run_dir: the run folder.
        engine: the step engine, which holds the model.
        wandb_run: a run on Weights & Biases that the caller has opened.
    """
    observer = Observer(config.logging, run_dir, engine)
    return Tracking(
        Mirrors(_mirrors(config, run_dir, wandb_run)),
        observer if observer.is_needed else None,
    )


def decide_wandb(config: ExperimentConfig, journal: Journal, *, is_given: bool) -> ExperimentConfig:
    """Return the configuration with ``logging.use_wandb`` decided for this start.

    Args:
        config: as it was submitted; where the key is null, the machine decides.
        journal: takes the decision and its reason.
        is_given: whether the caller hands a W&B run in.
    """
    if config.logging.use_wandb is not None:
        return config
    use, reason = (True, "") if is_given else wandb_mirror.is_configured()
    if reason:
        journal.tracked(wandb=use, reason=reason)
        if use and journal.is_first_rank:
            say(f"wandb: {reason}: this training is logged there. logging.use_wandb: false if not")
    logging = config.logging.model_copy(update={"use_wandb": use})
    return config.model_copy(update={"logging": logging})


def _mirrors(config: ExperimentConfig, run_dir: Path, wandb_run: Any | None) -> Iterator[Mirror]:
    if config.logging.use_wandb or wandb_run is not None:
        yield WandbMirror(config, run_dir, wandb_run)
    if config.logging.tensorboard:
        yield TensorBoardMirror(run_dir)
    if config.logging.csv:
        yield CSVMirror(run_dir)
