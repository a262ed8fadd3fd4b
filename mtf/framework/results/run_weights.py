"""``RunCheckpoint``: a checkpoint of a run, and its weights for programs that have torch."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.reconcile.checkout import materialise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from mtf.core.vocabulary.ids import RunId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.project.project import Project

    Model = nn.Module

_log = logging.getLogger("mtf")


@dataclass(frozen=True)
class RunCheckpoint:
    """A checkpoint of a run, as the run's journal or the ledger records it.

    Attributes:
        run: the id of the run.
        path: the file.
        epoch: epochs done.
        step: optimizer steps done.
        sha256: of the file; it is verified whenever the file is read.
        bytes: size of the file.
    """

    run: RunId
    path: Path
    epoch: int
    step: int
    sha256: str
    bytes: int

    @classmethod
    def of(cls, record: RunRecord, *, best: bool = False) -> RunCheckpoint:
        """Return a run's newest checkpoint, or its best one.

        Raises:
            MtfError: it has none, or the file is not there.
        """
        from mtf.commands.checkpoint.export import checkpoint_of  # late, like the trainer

        found = checkpoint_of(record, best=best)
        place = found.epoch, found.step
        return cls(record.run, Path(found.path), *place, found.sha256, found.bytes)

    def load(self, model: Model, *, strict: bool = True, average: bool = False) -> Model:
        """Load the weights into a model, and return the model.

        Args:
            model: of the same structure.
            strict: False: load the weights that fit, and log the names of the others.
            average: take the averaged weights of ``callbacks.ema``.

        Raises:
            MtfError: the weights do not fit, or the file is not the recorded one.
        """
        loader = _loader()
        left_out = loader.load_into(model, self.state_dict(average=average), strict=strict)
        if left_out:
            _log.warning("%s: some weights were not loaded: %s", self.run, left_out)
        return model

    def state_dict(self, *, average: bool = False) -> Mapping[str, Any]:
        """Return the weights by name, on the CPU.

        Raises:
            MtfError: the file is not the recorded one, or holds no such weights.
        """
        found: Mapping[str, Any] = _loader().state_dict(self.path, self.sha256, average=average)
        return found


def model_of(project: Project, record: RunRecord, *, best: bool, average: bool) -> Model:
    """Return a run's model as its pinned code builds it, with the weights of a checkpoint.

    Raises:
        MtfError: code, data or weights are missing or do not fit; the message names them.
    """
    checkpoint = RunCheckpoint.of(record, best=best)
    run_dir = Path(record.run_dir)
    root = rundir.root_of(run_dir, record.run)
    materialise(project.repo, root, record.commit, project.remote)
    file = checkpoint.path, checkpoint.sha256
    model: Model = _loader().load_model(run_dir, *file, average=average)
    return model


def model_in(run_dir: Path, *, best: bool, average: bool) -> Model:
    """Return the model of a run folder, such as that of a training outside of a job.

    Raises:
        MtfError: it is no run folder, or code, data or weights are missing or do not fit.
    """
    model: Model = _loader().load_model_in(run_dir, best=best, average=average)
    return model


def _loader() -> Any:
    """Return the module of the trainer that reads weights: it needs torch."""
    from mtf.trainer.export import load_model

    return load_model
