"""The run folder of a training outside of a job: ``runs/<experiment_name>`` or the next free one.

The newest folder of the name is continued if its training is unfinished, has the same settings, and
no other process trains there. Otherwise a new training gets a new folder: ``runs/<name>-2`` and so
on. Nothing of an earlier training is overwritten.
"""

from __future__ import annotations

import itertools
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.errors import MtfError, SpecError
from mtf.spec.schema.run_config import ExperimentConfig
from mtf.spec.yaml.reader import load_yaml
from mtf.trainer.resume.same_settings import deciding_settings, differing_settings
from mtf.trainer.runtime import start_claim
from mtf.trainer.storage.scalars import SCALARS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.trainer.runtime.start_claim import StartClaim

ROOT = "runs"  # in the current folder


def choose(config: ExperimentConfig, parts: Mapping[str, str]) -> tuple[Path, str]:
    """Return the folder for a training, and a sentence on why it is that one.

    Args:
        config: its settings.
        parts: what the program hands over, in words: another model or optimizer is another
            training.
    """
    newest, following = _newest(config.experiment_name)
    if newest is None:
        return following, f"training outside of a job, in {_shown(following)}"
    if (obstacle := _obstacle(newest, config, parts)) is None:
        return newest, f"continuing the unfinished training in {_shown(newest)}"
    return following, (
        f"{_shown(newest)} {obstacle}: this is a new training, in {_shown(following)}"
    )


def claim(folder: Path, *, world_size: int) -> StartClaim:
    """Make a run folder, and claim it for this process.

    Raises:
        MtfError: another process trains there.
        OSError: the folder cannot be written.
    """
    if (busy := _busy(folder)) is not None:
        raise MtfError(
            f"{_shown(folder)} {busy}. Give this training another experiment_name or run_dir. If"
            f" that process has ended, remove {_shown(folder / rundir.CLAIMS)}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(8)
    start = start_claim.Start(token, str(os.getpid()), restarts=0, world_size=world_size)
    taken = start_claim.take(folder, start, 0, (rundir.JOURNAL, SCALARS))
    start_claim.hold(taken)
    return taken


def is_complete(folder: Path) -> bool:
    """Return True if the training in a folder has ended by itself."""
    ends = (e["event"] for e in reversed(rundir.read_journal(folder)))
    return next((event for event in ends if event in ("started", "finished")), "") == "finished"


def saved_config(folder: Path) -> ExperimentConfig | None:
    """Return the configuration in a run folder, None where there is none that can be read."""
    path = folder / rundir.CONFIG
    try:
        value, _ = load_yaml(path.read_bytes(), str(path))
        return ExperimentConfig.model_validate(value)
    except (OSError, SpecError, ValueError):
        return None


def _newest(name: str) -> tuple[Path | None, Path]:
    """Return the newest folder of a name that is in use, if any, and the next free one."""
    newest = None
    for number in itertools.count(1):
        folder = Path(ROOT, name if number == 1 else f"{name}-{number}").absolute()
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return newest, folder
        newest = folder
    raise AssertionError


def _obstacle(folder: Path, config: ExperimentConfig, parts: Mapping[str, str]) -> str | None:
    """Return the reason why a training cannot go on in a folder, None if it can."""
    saved = saved_config(folder)
    if saved is None:
        return "holds other files"
    if is_complete(folder):
        return "is complete"
    differing = differing_settings(deciding_settings(saved), deciding_settings(config))
    if differing:
        return f"has other settings ({'; '.join(differing.values())})"
    return other_training(folder, parts) or _busy(folder)


def other_training(folder: Path, parts: Mapping[str, str]) -> str | None:
    """Return the parts in which the unfinished training of a folder differs, None if in none."""
    before = {} if is_complete(folder) else _parts_of(folder)
    changes = [
        f"{name} was {before[name]} and is {now}"
        for name, now in parts.items()
        if before.get(name, now) != now
    ]
    return f"is of another training ({'; '.join(changes)})" if changes else None


def _parts_of(folder: Path) -> dict[str, str]:
    """Return the parts that the newest start in a folder was given, in words."""
    starts = [e for e in rundir.read_journal(folder) if e["event"] == "started"]
    parts = starts[-1].get("parts") if starts else None
    return parts if isinstance(parts, dict) else {}


def _busy(folder: Path) -> str | None:
    process = start_claim.holder(folder)
    return None if process is None else f"is in use by {process}"


def _shown(folder: Path) -> str:
    """Return a path relative to the current folder where it is inside it."""
    here = Path.cwd()
    return str(folder.relative_to(here)) if folder.is_relative_to(here) else str(folder)
