"""Loads the weights of a run into a model, or the whole model as its pinned code builds it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from mtf.errors import MtfError
from mtf.trainer.components.factory import build_model, data_facts
from mtf.trainer.compute.rng import TemporarilySeeded, seed_at
from mtf.trainer.job.pinned_import import pinned_code
from mtf.trainer.job.run_job import read_config
from mtf.trainer.resume.checkpoint_manager import (
    BEST,
    LATEST,
    CheckpointManager,
    averaged_in,
    read_verified,
    weights_in,
)
from mtf.trainer.resume.compatibility import fit_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from mtf.spec.schema.run_config import ExperimentConfig


def load_model(run_dir: Path, checkpoint: Path, sha256: str, *, average: bool) -> nn.Module:
    """Return a run's model on the CPU, with the weights of a checkpoint, in evaluation mode.

    Args:
        run_dir: the run folder: its configuration names the model and the pinned code.
        checkpoint: of this run.
        sha256: of the checkpoint, as it is recorded.
        average: take the averaged weights of ``callbacks.ema``.

    Raises:
        MtfError: the code, the data that the model's sizes come from, or weights are missing, or do
            not fit; the message names them.
    """
    config = read_config(run_dir)
    weights = state_dict(checkpoint, sha256, average=average)
    with pinned_code(config.mtf) if config.mtf.commit else nullcontext():
        model = _built(config)
    try:
        load_into(model, weights, strict=True)
    except MtfError as e:
        hint = "The entry point may build another one" if config.entrypoint else "Its code may"
        raise MtfError(
            f"model.type: {config.model.type}: {e}. {hint} change its structure while it trains:"
            " build the model yourself, and load the weights with run.checkpoint.load(model)"
        ) from e
    return model.eval()


def load_model_in(run_dir: Path, *, best: bool, average: bool) -> nn.Module:
    """Return the model of a run folder; see ``load_model``.

    Raises:
        MtfError: it is no run folder, or something is missing, as in ``load_model``.
    """
    read_config(run_dir)
    found = CheckpointManager(run_dir).find(BEST if best else LATEST)
    return load_model(run_dir, found.path, found.sha256, average=average)


def state_dict(checkpoint: Path, sha256: str, *, average: bool) -> Mapping[str, Any]:
    """Return the weights in a checkpoint, on the CPU.

    Raises:
        MtfError: it is not the recorded one, or holds no such weights.
    """
    content = read_verified(checkpoint, sha256)
    return averaged_in(content, checkpoint) if average else weights_in(content, checkpoint)


def load_into(model: nn.Module, weights: Mapping[str, Any], *, strict: bool) -> str:
    """Load weights into a model; return the names of those that do not fit as a text, or "".

    Raises:
        MtfError: some do not fit, and ``strict`` is true, or none fits.
    """
    fit = fit_of(model, weights)
    if strict or not fit.fitting:
        try:
            model.load_state_dict(dict(weights))
        except RuntimeError as e:
            what = " ".join(str(e).split()) if fit.is_whole else str(fit)
            raise MtfError(f"the weights do not fit the model: {what}") from e
        return ""
    model.load_state_dict({name: weights[name] for name in fit.fitting}, strict=False)
    return str(fit)


def _built(config: ExperimentConfig) -> nn.Module:
    """Return the model as a job builds it, without changing the program's random numbers."""
    facts: Mapping[str, Any] = {}
    missing: Exception | None = None
    with TemporarilySeeded(seed_at("init", config.training.seed)):
        try:
            facts = data_facts(config)
        except (MtfError, OSError, ImportError, ValueError, RuntimeError, LookupError) as e:
            missing = e  # a model that names all its sizes needs no data
        try:
            return build_model(config.model, facts)
        except MtfError as e:
            if missing is None:
                raise
            raise MtfError(
                f"{e}; its size comes from the data, which cannot be read here: {missing}"
            ) from e
