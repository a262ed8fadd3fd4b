"""``CheckpointManager``: reads the checkpoints of a run; the trainer alone writes them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mtf import rundir
from mtf.errors import MtfError
from mtf.trainer.loop.state import ResumeState
from mtf.trainer.resume import snapshot
from mtf.trainer.storage.checkpoint_store import CheckpointStore

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.trainer.storage.checkpoint_store import Saved

LATEST, BEST = "latest", "best"


class CheckpointManager:
    """The checkpoints in a run folder, to look into them.

    Each method takes ``latest`` (the newest intact one), ``best`` (the one with the best value of
    the monitored metric) or a file's name, and verifies the file's sha256.

    Args:
        folder: a run folder, or the folder ``checkpoints`` in it.
    """

    def __init__(self, folder: str | Path) -> None:
        given = Path(folder)
        is_inner = given.name == rundir.CHECKPOINTS
        self.folder = given if is_inner else given / rundir.CHECKPOINTS
        self._store = CheckpointStore(self.folder, keep_last=1)

    @property
    def checkpoints(self) -> list[Path]:
        """Return the files, the oldest first; damaged ones are among them."""
        return [self.folder / name for name in self._store.names()]

    @property
    def latest(self) -> Path | None:
        """Return the newest intact checkpoint, None where there is none."""
        newest = self._store.newest_intact()
        return newest.path if newest else None

    @property
    def best(self) -> Path | None:
        """Return the best checkpoint, None where there is none."""
        return self.find(BEST).path if (self.folder / rundir.BEST).is_symlink() else None

    def load(self, which: str | Path = LATEST, *, rank: int = 0) -> ResumeState:
        """Return a rank's place in the training, as a checkpoint holds it.

        Raises:
            MtfError: there is no such checkpoint, it is damaged, or no trainer of mtf saved it.
        """
        content, path = self.content(which), self.find(which).path
        if "ranks" not in content:
            raise MtfError(f"{path}: saved by a loop of its own: content() returns what it saved")
        ranks = content["ranks"]
        if not 0 <= rank < len(ranks):
            raise MtfError(f"{path}: rank {rank}: the training had {len(ranks)} of them")
        state = ResumeState()
        mine = {k: v for k, v in ranks[rank].items() if k in vars(state)}
        state.load(mine, torch.device("cpu"))
        return state

    def weights(self, which: str | Path = LATEST) -> Mapping[str, Any]:
        """Return a model's ``state_dict`` on the CPU.

        A loop of its own has saved it as ``model`` or ``state_dict``, or saved nothing but tensors.

        Raises:
            MtfError: there is no such checkpoint, it is damaged, or holds no weights.
        """
        return weights_in(self.content(which), self.find(which).path)

    def content(self, which: str | Path = LATEST) -> dict[str, Any]:
        """Return all that a checkpoint holds, its tensors on the CPU.

        Raises:
            MtfError: there is no such checkpoint, or it is damaged.
        """
        return snapshot.read(self.find(which).path)

    def find(self, which: str | Path = LATEST) -> Saved:
        """Return a checkpoint whose sha256 is right.

        Raises:
            MtfError: there is none, or it is damaged.
        """
        if str(which) == LATEST:
            newest = self._store.newest_intact()
            if newest is None:
                raise MtfError(f"{self.folder}: no intact checkpoint here")
            return newest
        if str(which) == BEST:
            if not (self.folder / rundir.BEST).is_symlink():
                raise MtfError(
                    f"{self.folder}: no best checkpoint here: the training monitors no metric, or"
                    " has not ended an epoch"
                )
            return self._store.intact(rundir.BEST)
        return self._store.intact(Path(which).name)


def weights_in(content: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """Return the ``state_dict`` in a checkpoint's content; see ``CheckpointManager.weights``.

    Raises:
        MtfError: there is none.
    """
    for name in ("model", "state_dict"):
        if isinstance(found := content.get(name), dict):
            return found
    if content and all(isinstance(value, torch.Tensor) for value in content.values()):
        return content
    raise MtfError(
        f"{path}: no weights found: it holds {', '.join(map(str, content)) or 'nothing'}. Save the"
        " model's state_dict() as model"
    )


def read_verified(checkpoint: Path, sha256: str) -> dict[str, Any]:
    """Return a checkpoint's content if its bytes are the recorded ones.

    Raises:
        MtfError: they are not, or it cannot be read.
    """
    try:
        with checkpoint.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                file.seek(0)
                return snapshot.read(file)
    except OSError as e:
        raise MtfError(
            f"{checkpoint}: {e.strerror}. A running training removes old checkpoints: try again"
        ) from e
    raise MtfError(
        f"{checkpoint} is not the recorded checkpoint: its sha256 is another. Restore the file, or"
        " use the run's other checkpoint (the best or the newest)"
    )


def averaged_in(content: Mapping[str, Any], path: Path) -> Mapping[str, Any]:
    """Return the averaged weights that ``callbacks.ema`` keeps, named like the others.

    Raises:
        MtfError: there are none.
    """
    found = content.get("callbacks", {}).get("ema", {}).get("average")
    if not isinstance(found, dict):
        raise MtfError(f"{path}: no averaged weights: the training had no callbacks.ema")
    return found
