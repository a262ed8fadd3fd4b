"""``RunContext``: a run as its entry point sees it, and the parts that it can build on.

A spec's ``entrypoint: package.module:function`` names a function of the pinned code that takes one
argument, a ``RunContext``. The training is complete when it returns. The short form::

    def main(run):
        model = MyModel(run.config.model.hidden_size)
        optimizer = run.optimizer(model)
        data = run.data()
        run.trainer(model, optimizer).fit(data.train, data.validation)

Your own loop, which resumes and stops (exactly if it saves all state that it depends on)::

    def main(run):
        model, optimizer = ...
        saved = run.resume()
        if saved:
            model.load_state_dict(saved["model"])
        for epoch in range(saved["epoch"] if saved else 0, run.config.training.max_epochs):
            ...
            run.log(epoch + 1, step, {"train_loss": loss})
            run.checkpoint({"model": model.state_dict(), "epoch": epoch + 1}, epoch + 1, step)
            run.stop_if_requested(epoch + 1, step)
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, overload

import torch

from mtf import rundir
from mtf.errors import MtfError, TrainingError
from mtf.trainer.components.factory import build_data, build_model
from mtf.trainer.components.optimizers import build_optimizer
from mtf.trainer.components.schedules import build_schedules
from mtf.trainer.loop.best_epochs import best_of, ranked
from mtf.trainer.resume import snapshot
from mtf.trainer.resume.read_back import ReadBack
from mtf.trainer.resume.warm_start import origin_of, read_origin
from mtf.trainer.runtime.signals import STOP, Stopped
from mtf.trainer.storage.checkpoint_store import CheckpointStore, Saved
from mtf.trainer.storage.checkpoint_writer import CheckpointWriter, WriteRequest
from mtf.trainer.storage.journal import Journal, monitored
from mtf.trainer.storage.plain_values import simplified
from mtf.trainer.storage.staging import nbytes
from mtf.trainer.trainer import GenericTrainer

if TYPE_CHECKING:
    from pathlib import Path

    from lightning.fabric import Fabric

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.components.factory import Data
    from mtf.trainer.components.lr_schedulers import Schedulers
    from mtf.trainer.components.optimizers import Optimizers
    from mtf.trainer.loop.callbacks import Callback
    from mtf.trainer.storage.checkpoint_store import Place


class RunContext:
    """A run, from inside its job.

    Attributes:
        config: the resolved configuration; ``config.mtf`` identifies the run.
        run_dir: the run folder, for results.
        fabric: launched, with ``fabric.device``, ``fabric.global_rank`` and so on.
    """

    def __init__(self, config: ExperimentConfig, run_dir: Path, fabric: Fabric) -> None:
        self.config = config
        self.run_dir = run_dir
        self.fabric = fabric
        self._journal = Journal(run_dir, is_first_rank=fabric.is_global_zero)
        self._store = CheckpointStore(
            run_dir / rundir.CHECKPOINTS, keep_last=config.checkpoint.keep_last
        )
        self._writer = CheckpointWriter(self._store, self._journal)
        self._read_back = ReadBack()
        self._epoch = 0  # that was logged last

    # -- parts of the configuration ----------------------------------------------------------------

    def data(self) -> Data:
        """Return this rank's training and validation batches."""
        fabric = self.fabric
        return build_data(self.config, rank=fabric.global_rank, world_size=fabric.world_size)

    def model(self, data: Data) -> torch.nn.Module:
        """Return the model; the data decides its input and output sizes."""
        return build_model(self.config.model, data.facts)

    def optimizer(self, model: torch.nn.Module) -> Optimizers:
        """Return the optimizer of a model, or several by name."""
        return build_optimizer(self.config.optimizer, model)

    def schedule(self, optimizer: Optimizers, data: Data) -> Schedulers:
        """Return the learning-rate schedule of each optimizer, None if none is configured."""
        return build_schedules(self.config, optimizer, data.train)

    def trainer(
        self,
        model: torch.nn.Module,
        optimizer: Optimizers,
        scheduler: Schedulers = None,
        callbacks: Mapping[str, Callback] | None = None,
    ) -> GenericTrainer:
        """Return the trainer; its ``fit`` resumes, stops, saves and logs."""
        return GenericTrainer(
            self.config,
            self.fabric,
            model,
            optimizer,
            scheduler,
            run_dir=self.run_dir,
            callbacks=callbacks,
        )

    # -- for your own loop -------------------------------------------------------------------------

    def resume(self) -> dict[str, Any] | None:
        """Return the content of the newest intact checkpoint, None at the run's first start."""
        newest = self._store.newest_intact()
        if self.fabric.is_global_zero:
            self._store.set_damaged_aside()
        if newest is None:
            return None
        return snapshot.read(newest.path)

    def origin(self) -> dict[str, Any] | None:
        """Return the content of the checkpoint that ``init_from`` names, None without it.

        Call it only if ``resume`` returns None: after that, the run has checkpoints of its own.

        Raises:
            MtfError: the file is missing, or not the one that the ledger recorded.
        """
        origin = origin_of(self.config)
        if origin is None:
            return None
        content = read_origin(origin)
        self._journal.initialised(vars(origin))
        return content

    def checkpoint(
        self, content: Mapping[str, Any], epoch: int | None = None, step: int = 0
    ) -> None:
        """Save containers of tensors and numbers durably, as the run's newest checkpoint.

        Checkpoints whose ``epoch`` and ``step`` were logged with the best metrics are kept. Without
        ``epoch`` it is the one that was logged last.

        Raises:
            MtfError: ``content`` holds something that ``resume`` could not read; it names the key.
            TrainingError: it could not be saved, and ``checkpoint.on_error`` is stop.
        """
        place = self._epoch if epoch is None else epoch, step
        is_saved = not self.fabric.is_global_zero or self._save(dict(content), place)
        is_saved = self.fabric.broadcast(is_saved, src=0)  # all ranks wait for it
        if not is_saved and self.config.checkpoint.on_error == "stop":
            raise TrainingError(
                "could not save the state (see the reason above), and checkpoint.on_error is stop"
            )

    def _save(self, content: dict[str, Any], place: Place) -> bool:
        policy, name = self.config.checkpoint, monitored(self.config)
        events = rundir.read_journal(self.run_dir) if name and policy.keep_best else ()
        best = best_of(events, place, name or "", keep=policy.keep_best, mode=policy.mode)
        plain = simplified(content)
        request = WriteRequest(
            functools.partial(torch.save, plain),
            place,
            nbytes(plain),
            tuple(ranked(best, policy.mode)),
            functools.partial(self._read_back.check, plain),
        )
        return isinstance(self._writer.write_now(request), Saved)

    @overload
    def log(self, epoch: int, step: int, metrics: Mapping[str, float]) -> None: ...
    @overload
    def log(
        self, metrics: Mapping[str, float], /, *, step: int, epoch: int | None = None
    ) -> None: ...
    def log(self, *values: Any, **named: Any) -> None:
        """Log metrics, which ``mtf status`` and ``mtf results`` show.

        Call it ``log({"val_loss": 0.1}, step=40, epoch=2)``, or ``log(2, 40, {"val_loss": 0.1})``.
        Without ``epoch`` it is the one that was logged last.
        """
        order = ("metrics", "step", "epoch") if _begins_with_metrics(values) else _ORDER
        given = dict(zip(order, values, strict=False)) | named
        if missing := [name for name in ("metrics", "step") if name not in given]:
            raise MtfError(f"run.log needs {' and '.join(missing)}: log({{...}}, step=40)")
        epoch = given.get("epoch")
        self._epoch = self._epoch if epoch is None else epoch
        self._journal.metrics(self._epoch, given["step"], given["metrics"])

    def progress(self, epoch: int, step: int, total_steps: int | None = None) -> None:
        """Log the progress, every 2 s at most: call it at every step."""
        if self._journal.progress_is_due():
            self._journal.progress(epoch, step, total_steps)

    @property
    def stop_requested(self) -> bool:
        """Return True if a signal asks to stop: save, then call ``stop_if_requested``."""
        return STOP.requested

    def stop_if_requested(self, epoch: int, step: int) -> None:
        """End the job if a signal asked for it. Save everything before.

        Raises:
            Stopped: a signal asked for it; do not catch it.
        """
        if STOP.signal is not None:
            self._journal.stopped(STOP.signal.name, epoch, step)
            raise Stopped(STOP.signal)


_ORDER = ("epoch", "step", "metrics")


def _begins_with_metrics(values: tuple[Any, ...]) -> bool:
    return bool(values) and isinstance(values[0], Mapping)
