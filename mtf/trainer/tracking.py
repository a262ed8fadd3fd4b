"""Scalars: the JSON lines in the run folder are the truth, Weights & Biases mirrors them."""

from __future__ import annotations

import hashlib
import json
import netrc
import os
from typing import TYPE_CHECKING, Any

from mtf.trainer.say import say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mtf.spec.schema import ExperimentConfig

SCALARS = "scalars.jsonl"


class Scalars:
    """The rows of a run, each once, whatever interrupted it: a resume cuts off what was ahead.

    A row holds no time, so that an interrupted run's file equals an uninterrupted one's.
    """

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / SCALARS
        self._file = self._path.open("ab", buffering=0)
        self._unwritten = bytearray()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row; readers see it at once. What a full disk does not take is kept."""
        was_whole = not self._unwritten
        self._unwritten += json.dumps(row).encode() + b"\n"
        try:
            self._write()
        except OSError as e:
            if was_whole:
                say(f"{self._path} cannot be written, and is to be made up for: {e}")

    def durable_size(self) -> int:
        """Return the size in bytes, all of them on disk: what a checkpoint remembers.

        Raises:
            OSError: they are not.
        """
        self._write()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def cut_to(self, size: int) -> None:
        """Return to what a checkpoint remembers (0: a training from its start)."""
        there = self._path.stat().st_size
        if there < size:
            say(f"{SCALARS} has lost rows: {there} bytes of at least {size} are left")
        self._file.truncate(min(size, there))
        self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self) -> None:
        while self._unwritten:
            del self._unwritten[: self._file.write(self._unwritten)]


class Mirror:
    """Shows the rows on Weights & Biases. Whatever happens there, the training goes on."""

    def __init__(self, run: Any | None) -> None:
        self._run = run

    def log(self, row: Mapping[str, Any]) -> None:
        """Send a row; the first failure ends the mirroring and is said."""
        if self._run is None:
            return
        values = {name: value for name, value in row.items() if name != "step"}
        try:
            self._run.log(values, step=row["step"])
        except Exception as e:  # noqa: BLE001 -- a training never fails because tracking does
            self._give_up(e)

    def finish(self) -> None:
        """Send what is left."""
        try:
            if self._run is not None:
                self._run.finish(quiet=True)
        except Exception as e:  # noqa: BLE001 -- a training never fails because tracking does
            self._give_up(e)

    def _give_up(self, error: Exception) -> None:
        self._run = None
        say(f"wandb: {type(error).__name__}: {error}. The training goes on; {SCALARS} has it all")


def open_wandb(config: ExperimentConfig, run_dir: Path) -> Any | None:
    """Return the run on Weights & Biases, None where it is not asked for or cannot be had.

    A run has one id there for ever, so that what is continued stays one run. Without a key it
    stays offline, in the run folder, for ``wandb sync``.
    """
    if not config.logging.use_wandb:
        return None
    try:
        import wandb

        online = "WANDB_MODE" in os.environ or _has_key()
        return wandb.init(
            project=config.logging.wandb_project,
            entity=config.logging.wandb_entity,
            id=hashlib.sha256(config.mtf.run.encode()).hexdigest()[:16],
            name=config.mtf.run,
            dir=str(run_dir),
            config=config.model_dump(mode="json", exclude={"mtf"}),
            resume="allow" if online else None,
            mode=None if online else "offline",
            settings=wandb.Settings(silent=True),
        )
    except Exception as e:  # noqa: BLE001 -- a training never fails because tracking does
        say(f"wandb: {type(e).__name__}: {e}. The training goes on; {SCALARS} has it all")
        return None


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1]
        return netrc.netrc().authenticators(host.rstrip("/")) is not None
    except (OSError, netrc.NetrcParseError):
        return False
