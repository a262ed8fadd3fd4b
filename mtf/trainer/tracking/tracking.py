"""All that a training shows of itself as it goes: mirrors of its rows, its pace, a progress bar."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from mtf.trainer.compute.rng import RNGState
from mtf.trainer.runtime.console import say
from mtf.trainer.runtime.signals import Stopped
from mtf.trainer.tracking.file_mirrors import CSVMirror, TensorBoardMirror
from mtf.trainer.tracking.mirrors import End, Mirrors
from mtf.trainer.tracking.observer import Observer
from mtf.trainer.tracking.progress_bar import Bar, is_watched
from mtf.trainer.tracking.throughput import Pace
from mtf.trainer.tracking.wandb_mirror import WandbMirror

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.compute.step import StepEngine
    from mtf.trainer.storage.scalars import Scalars
    from mtf.trainer.tracking.mirrors import Mirror
    from mtf.trainer.tracking.progress_bar import Standing


class Tracking:
    """What one process shows; with the defaults, which are those of other ranks, nothing.

    Attributes:
        mirrors: where rows are shown too.
        observer: looks at more than numbers; None where nothing is asked for.
        pace: how fast it goes.
    """

    def __init__(self, mirrors: Mirrors | None = None, observer: Observer | None = None) -> None:
        self.mirrors = mirrors or Mirrors()
        self.observer = observer
        self.pace = Pace()
        self._bar: Bar | None = None

    def begin(self, scalars: Scalars | None, look: Callable[[], Standing]) -> None:
        """Bring the mirrors to where the training is; draw it where somebody watches.

        Args:
            scalars: the rows so far; None on other ranks.
            look: says where the training is, from any thread.
        """
        if scalars is None:
            return
        rng = RNGState.capture()  # whatever a library draws as it starts
        self.mirrors.follow(scalars.rows())
        self._bar = _bar(look)
        rng.restore()

    def close(self) -> None:
        """End it all; the exception at hand, if there is one, says how the training ended."""
        if self._bar is not None:
            self._bar.close()
        error = sys.exception()
        self.mirrors.close(End(complete=error is None, stopped=isinstance(error, Stopped)))


def _bar(look: Callable[[], Standing]) -> Bar | None:
    try:
        return Bar(look) if is_watched() else None
    except Exception as e:  # noqa: BLE001 -- a training never fails because tracking does
        say(f"no progress bar: {type(e).__name__}: {e}")
        return None


def tracking_of(
    config: ExperimentConfig, run_dir: Path, engine: StepEngine, wandb_run: Any | None = None
) -> Tracking:
    """Return what the first rank shows; nothing is opened yet.

    Args:
        config: its section ``logging`` says what.
        run_dir: the run folder.
        engine: what trains.
        wandb_run: a run on Weights & Biases that the caller has opened.
    """
    observer = Observer(config.logging, run_dir, engine)
    return Tracking(
        Mirrors(_asked_for(config, run_dir, wandb_run)),
        observer if observer.is_needed else None,
    )


def _asked_for(config: ExperimentConfig, run_dir: Path, wandb_run: Any | None) -> Iterator[Mirror]:
    if config.logging.use_wandb or wandb_run is not None:
        yield WandbMirror(config, run_dir, wandb_run)
    if config.logging.tensorboard:
        yield TensorBoardMirror(run_dir)
    if config.logging.csv:
        yield CSVMirror(run_dir)
