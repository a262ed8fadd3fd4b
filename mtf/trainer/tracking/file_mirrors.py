"""Mirrors in the run folder, written by Fabric's loggers: TensorBoard events and a CSV file."""

from __future__ import annotations

import importlib.util
import shutil
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from mtf.core.scalar_rows import bin_edges, row_values
from mtf.errors import MtfError
from mtf.trainer.runtime import start_claim

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mtf.trainer.tracking.mirrors import TrainingEnd

TENSORBOARD, CSV = "tensorboard", "csv"
SAVE_EVERY_S = 1.0  # each save opens the file, and a start shows many rows at once


class TensorBoardMirror:
    """Writes all rows as TensorBoard events to ``tensorboard/`` in the run folder."""

    name = "tensorboard"

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._logger: Any = None

    def open(self) -> None:
        """Remove earlier events and start new ones.

        Raises:
            MtfError: neither tensorboard nor tensorboardX is installed.
        """
        if not any(map(importlib.util.find_spec, ("tensorboard", "tensorboardX"))):
            raise MtfError("not installed: pip install tensorboard")
        from lightning.fabric.loggers.tensorboard import TensorBoardLogger

        shutil.rmtree(self._run_dir / TENSORBOARD, ignore_errors=True)
        self._logger = TensorBoardLogger(self._run_dir, name=TENSORBOARD, version="", flush_secs=10)

    def show(self, number: int, row: Mapping[str, Any]) -> None:  # noqa: ARG002 -- part of Mirror
        """Add a row's events."""
        values, step = row_values(row), row["step"]
        self._logger.log_metrics(values.numbers, step)
        for name, histogram in values.histograms.items():
            self._add_histogram(name, histogram, step)
        for name, path in values.images.items():
            self._add_image(name, self._run_dir / path, step)

    def close(self, end: TrainingEnd) -> None:  # noqa: ARG002 -- part of Mirror
        """Write the last rows to the file."""
        self._logger.finalize("")

    def _add_histogram(self, name: str, histogram: Mapping[str, Any], step: int) -> None:
        counts, edges = histogram["counts"], bin_edges(histogram)
        centres = [(a + b) / 2 for a, b in pairwise(edges)]
        pairs = list(zip(counts, centres, strict=True))
        self._logger.experiment.add_histogram_raw(
            name,
            min=histogram["low"],
            max=histogram["high"],
            num=sum(counts),
            sum=sum(count * centre for count, centre in pairs),
            sum_squares=sum(count * centre**2 for count, centre in pairs),
            bucket_limits=list(edges[1:]),
            bucket_counts=counts,
            global_step=step,
        )

    def _add_image(self, name: str, path: Path, step: int) -> None:
        from PIL import Image  # not a dependency: images need it

        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
        self._logger.experiment.add_image(name, pixels, step, dataformats="HWC")


class CSVMirror:
    """Writes the numbers of all rows to ``csv/metrics.csv`` in the run folder."""

    name = "csv"

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._logger: Any = None
        self._saved_at_s = 0.0

    def open(self) -> None:
        """Remove the earlier file and start a new one."""
        from lightning.fabric.loggers.csv_logs import CSVLogger

        shutil.rmtree(self._run_dir / CSV, ignore_errors=True)
        self._logger = CSVLogger(self._run_dir, name=CSV, version="")

    def show(self, number: int, row: Mapping[str, Any]) -> None:  # noqa: ARG002 -- part of Mirror
        """Add a row; the file is saved with the first row after a second, and at the end."""
        self._logger.experiment.log_metrics(dict(row_values(row).numbers), row["step"])
        if time.monotonic() - self._saved_at_s > SAVE_EVERY_S:
            self._save()
            self._saved_at_s = time.monotonic()

    def close(self, end: TrainingEnd) -> None:  # noqa: ARG002 -- part of Mirror
        """Write the last rows to the file."""
        self._save()

    def _save(self) -> None:
        start_claim.require()  # the file is opened by its name
        self._logger.save()
