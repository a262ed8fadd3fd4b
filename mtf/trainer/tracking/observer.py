"""Logs images of batches and histograms of gradients and parameters.

Observing changes nothing in the training: no random number is drawn, nothing is written in place.
The results become part of a row, so that interruptions neither lose nor repeat them.
"""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from mtf.trainer.compute.rng import RNGState
from mtf.trainer.runtime import start_claim
from mtf.trainer.runtime.console import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from mtf.spec.schema.sections import LoggingConfig
    from mtf.trainer.compute.step import StepEngine

IMAGES, GRADIENTS, PARAMETERS = "images", "gradients", "parameters"
MAX_IMAGES = 8
BINS = 32
_MIN_SIDE = 4  # pixels; smaller inputs are not images


class Observer:
    """Collects the values to log at a step, each kind at its own interval; it never raises.

    Args:
        config: what to log, and how often.
        run_dir: the run folder, where images are written.
        engine: the step engine, which holds the model.
    """

    def __init__(self, config: LoggingConfig, run_dir: Path, engine: StepEngine) -> None:
        self._run_dir, self._engine = run_dir, engine
        histograms = config.log_histograms_every_n_steps
        every = {
            IMAGES: config.log_images_every_n_steps if _shows_images(config) else None,
            GRADIENTS: histograms if config.log_gradients else None,
            PARAMETERS: histograms if config.log_model_parameters else None,
        }
        self._every = {what: steps for what, steps in every.items() if steps is not None}

    @property
    def is_needed(self) -> bool:
        """Return True if there is anything to log."""
        return bool(self._every)

    def observe_batch(self, batch: Any, step: int) -> dict[str, Any]:
        """Return the images of a step's first batch, as part of a row; empty if not due."""
        return self._observed(IMAGES, step, lambda: self._images(batch, step))

    def observe_gradients(self, step: int) -> dict[str, Any]:
        """Return histograms of the gradients before a step, as part of a row; empty if not due."""
        return self._observed(GRADIENTS, step, lambda: _histograms(self._gradients()))

    def observe_parameters(self, step: int) -> dict[str, Any]:
        """Return histograms of the parameters after a step, as part of a row; empty if not due."""
        named = self._engine.module.named_parameters
        return self._observed(PARAMETERS, step, lambda: _histograms(named()))

    def _observed(self, what: str, step: int, observe: Callable[[], Any]) -> dict[str, Any]:
        """Return the value if it is due; a kind that fails once is not logged again."""
        every = self._every.get(what)
        if every is None or step % every:
            return {}
        try:
            value = observe()
        except start_claim.ShutOutError:  # it ends this process, with the reason
            raise
        except Exception as e:  # noqa: BLE001 -- tracking must not fail the training
            del self._every[what]
            say(f"{what} are no longer logged: {type(e).__name__}: {e}. Training continues")
            return {}
        return {} if value is None else {what: value}

    def _gradients(self) -> Iterator[tuple[str, torch.Tensor]]:
        scaler = self._engine.scaler
        scale = scaler.get_scale() if scaler is not None else 1.0
        for name, parameter in self._engine.module.named_parameters():
            if parameter.grad is not None:
                yield name, parameter.grad / scale if scale != 1 else parameter.grad

    def _images(self, batch: Any, step: int) -> str | None:
        """Write the images of a batch, if it has any; return the file's path in the run folder."""
        images = self._images_of(batch)
        if images is None:
            return None
        path = self._run_dir / IMAGES / f"{step:08}.png"
        start_claim.require()
        path.parent.mkdir(exist_ok=True)
        _write(path, images[:MAX_IMAGES])
        return path.relative_to(self._run_dir).as_posix()

    def _images_of(self, batch: Any) -> torch.Tensor | None:
        method: Callable[[Any], torch.Tensor] | None = getattr(self._engine.module, IMAGES, None)
        if not callable(method):
            return images_in(batch)
        with _without_side_effects(self._engine.module):
            return self._engine.compute(method, batch)


def images_in(batch: Any) -> torch.Tensor | None:
    """Return the images [B, C, H, W] of a batch, None if it does not look like images."""
    while not isinstance(batch, torch.Tensor):
        parts = list(batch.values()) if isinstance(batch, dict) else batch
        if not isinstance(parts, list | tuple) or not parts:
            return None
        batch = parts[0]
    is_image = batch.dim() == 4 and batch.shape[1] in (1, 3) and min(batch.shape[2:]) >= _MIN_SIDE
    return batch if is_image else None


def histogram_of(tensor: torch.Tensor) -> dict[str, Any]:
    """Return the norm, and the counts of the finite values in bins of equal width.

    The norm is that of all values, so that it shows values that are not finite.
    """
    values = tensor.detach()
    values = (values.coalesce().values() if values.is_sparse else values).flatten().float()
    norm = float(torch.linalg.vector_norm(values))
    values = values[values.isfinite()]
    if not len(values):
        return {"norm": norm, "low": 0.0, "high": 0.0, "counts": []}
    low, high = float(values.min()), float(values.max())
    if low == high:
        return {"norm": norm, "low": low, "high": high, "counts": [len(values)]}
    # not torch.histc: use_deterministic_algorithms forbids it on CUDA
    bins = ((values.double() - low) * (BINS / (high - low))).long().clamp_(max=BINS - 1)
    counts = torch.bincount(bins, minlength=BINS).tolist()
    return {"norm": norm, "low": low, "high": high, "counts": counts}


def _histograms(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, Any]:
    return {name: histogram_of(tensor) for name, tensor in tensors}


def _shows_images(config: LoggingConfig) -> bool:
    """Return True if images are logged: something shows them, and pillow can write them."""
    if config.log_images_every_n_steps is None or not (config.use_wandb or config.tensorboard):
        return False
    if importlib.util.find_spec("PIL") is None:
        say("images are not logged: pillow is not installed: pip install pillow")
        return False
    return True


def _write(path: Path, images: torch.Tensor) -> None:
    """Write images side by side as one PNG file; values are scaled to their range unless bytes."""
    from PIL import Image

    pixels = images.detach().cpu()
    if pixels.dtype != torch.uint8:
        low, high = float(pixels.min()), float(pixels.max())
        if low < 0 or high > 1:
            pixels = (pixels.float() - low) / max(high - low, 1e-12)
        pixels = (pixels.float() * 255).round().to(torch.uint8)
    row = torch.cat(list(pixels), dim=2)  # [C, H, W of all]
    array = (row[0] if len(row) == 1 else row.permute(1, 2, 0)).contiguous().numpy()
    Image.fromarray(array).save(path, format="PNG")


@contextmanager
def _without_side_effects(module: torch.nn.Module) -> Iterator[None]:
    """Compute without gradients in evaluation mode, then restore modes and random generators."""
    rng = RNGState.capture()
    training = [part for part in module.modules() if part.training]
    try:
        module.eval()
        with torch.no_grad():
            yield
    finally:
        for part in training:
            part.training = True
        rng.restore()
