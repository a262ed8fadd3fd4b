"""Mirrors in the run folder, written by Fabric's loggers: TensorBoard's events and a CSV file."""

from __future__ import annotations

import importlib.util
import shutil
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mtf.errors import MtfError
from mtf.trainer.tracking.mirrors import edges, shown

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mtf.trainer.tracking.mirrors import End

TENSORBOARD, CSV = "tensorboard", "csv"
SAVE_EVERY_S = 1.0  # a save opens the file: not for each of many rows that are rebuilt


class TensorBoardMirror:
    """Events for TensorBoard, in ``tensorboard/`` of the run folder."""

    name = "tensorboard"

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._logger: Any = None

    def open(self) -> None:
        """Begin the events anew.

        Raises:
            MtfError: nothing that writes them is installed.
        """
        if not any(map(importlib.util.find_spec, ("tensorboard", "tensorboardX"))):
            raise MtfError("the package is not installed here: pip install tensorboard")
        from lightning.fabric.loggers.tensorboard import TensorBoardLogger

        shutil.rmtree(self._run_dir / TENSORBOARD, ignore_errors=True)
        self._logger = TensorBoardLogger(self._run_dir, name=TENSORBOARD, version="", flush_secs=10)

    def show(self, number: int, row: Mapping[str, Any]) -> None:  # noqa: ARG002 -- a mirror's
        """Add a row's events."""
        seen, step = shown(row), row["step"]
        self._logger.log_metrics(seen.numbers, step)
        for name, histogram in seen.histograms.items():
            self._add_histogram(name, histogram, step)
        for name, path in seen.images.items():
            self._add_image(name, self._run_dir / path, step)

    def close(self, end: End) -> None:  # noqa: ARG002 -- a mirror's
        """Write what waits."""
        self._logger.finalize("")

    def _add_histogram(self, name: str, histogram: Mapping[str, Any], step: int) -> None:
        counts, borders = histogram["counts"], edges(histogram)
        middles = [(a + b) / 2 for a, b in pairwise(borders)]
        pairs = list(zip(counts, middles, strict=True))
        self._logger.experiment.add_histogram_raw(
            name,
            min=histogram["low"],
            max=histogram["high"],
            num=sum(counts),
            sum=sum(count * middle for count, middle in pairs),
            sum_squares=sum(count * middle**2 for count, middle in pairs),
            bucket_limits=list(borders[1:]),
            bucket_counts=counts,
            global_step=step,
        )

    def _add_image(self, name: str, path: Path, step: int) -> None:
        import numpy as np
        from PIL import Image

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._logger.experiment.add_image(name, pixels, step, dataformats="HWC")


class CSVMirror:
    """The numbers of all rows, in ``csv/metrics.csv`` of the run folder."""

    name = "csv"

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._logger: Any = None
        self._saved_at_s = 0.0

    def open(self) -> None:
        """Begin the file anew."""
        from lightning.fabric.loggers.csv_logs import CSVLogger

        shutil.rmtree(self._run_dir / CSV, ignore_errors=True)
        self._logger = CSVLogger(self._run_dir, name=CSV, version="")

    def show(self, number: int, row: Mapping[str, Any]) -> None:  # noqa: ARG002 -- a mirror's
        """Add a row; the file gets it within the next second's rows, or at the end."""
        self._logger.experiment.log_metrics(dict(shown(row).numbers), row["step"])
        if time.monotonic() - self._saved_at_s > SAVE_EVERY_S:
            self._logger.save()
            self._saved_at_s = time.monotonic()

    def close(self, end: End) -> None:  # noqa: ARG002 -- a mirror's
        """Write what waits."""
        self._logger.save()
