"""What is logged of a training beyond numbers: images of its batches, gradients, parameters.

Looking changes nothing: no random number is drawn, nothing is written in place. What is seen
becomes part of a row, so that it is there once, whatever interrupts the training.
"""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from mtf.trainer.compute.rng import RNGState
from mtf.trainer.runtime.console import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from mtf.spec.schema.sections import LoggingConfig
    from mtf.trainer.compute.step import StepEngine

IMAGES, GRADIENTS, PARAMETERS = "images", "gradients", "parameters"
MOST_IMAGES = 8
BINS = 32
_LEAST_SIDE = 4  # pixels; what is smaller is no image to look at


class Observer:
    """Says what there is to log at a step, each kind at its own times; it never raises.

    Args:
        config: what to look at.
        run_dir: the run folder, where images are written.
        engine: what computes.
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
        """Return whether there is anything to look at."""
        return bool(self._every)

    def of_batch(self, batch: Any, step: int) -> dict[str, Any]:
        """Return the row's part for the first batch of a step: its images, where they are due."""
        return self._looked(IMAGES, step, lambda: self._images(batch, step))

    def of_gradients(self, step: int) -> dict[str, Any]:
        """Return the row's part for the gradients that a step is about to commit, where due."""
        return self._looked(GRADIENTS, step, lambda: _histograms(self._gradients()))

    def of_parameters(self, step: int) -> dict[str, Any]:
        """Return the row's part for the parameters after a step, where due."""
        named = self._engine.module.named_parameters
        return self._looked(PARAMETERS, step, lambda: _histograms(named()))

    def _looked(self, what: str, step: int, look: Callable[[], Any]) -> dict[str, Any]:
        """Return what there is to see where it is due; what fails once is not looked at again."""
        every = self._every.get(what)
        if every is None or step % every:
            return {}
        try:
            seen = look()
        except Exception as e:  # noqa: BLE001 -- a training never fails because tracking does
            del self._every[what]
            why = f"{type(e).__name__}: {e}"
            say(f"{what} are not logged any more: {why}. The training goes on")
            return {}
        return {} if seen is None else {what: seen}

    def _gradients(self) -> Iterator[tuple[str, torch.Tensor]]:
        scaler = self._engine.scaler
        scale = scaler.get_scale() if scaler is not None else 1.0
        for name, parameter in self._engine.module.named_parameters():
            if parameter.grad is not None:
                yield name, parameter.grad / scale if scale != 1 else parameter.grad

    def _images(self, batch: Any, step: int) -> str | None:
        """Write a batch's images, if it has any; return the file's path in the run folder."""
        images = self._seen(batch)
        if images is None:
            return None
        path = self._run_dir / IMAGES / f"{step:08}.png"
        path.parent.mkdir(exist_ok=True)
        _write(path, images[:MOST_IMAGES])
        return path.relative_to(self._run_dir).as_posix()

    def _seen(self, batch: Any) -> torch.Tensor | None:
        own: Callable[[Any], torch.Tensor] | None = getattr(self._engine.module, IMAGES, None)
        if not callable(own):
            return images_in(batch)
        with _unnoticed(self._engine.module):
            return self._engine.compute(own, batch)


def images_in(batch: Any) -> torch.Tensor | None:
    """Return a batch's images [B, C, H, W], None where it does not look like images."""
    while not isinstance(batch, torch.Tensor):
        parts = list(batch.values()) if isinstance(batch, dict) else batch
        if not isinstance(parts, list | tuple) or not parts:
            return None
        batch = parts[0]
    looks_so = batch.dim() == 4 and batch.shape[1] in (1, 3) and min(batch.shape[2:]) >= _LEAST_SIDE
    return batch if looks_so else None


def histogram_of(tensor: torch.Tensor) -> dict[str, Any]:
    """Return the norm, and the counts of the finite values in equally wide bins between extremes.

    The norm is that of all values, so that one that is not finite shows.
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
    # not torch.histc, which a user's use_deterministic_algorithms refuses on CUDA
    bins = ((values.double() - low) * (BINS / (high - low))).long().clamp_(max=BINS - 1)
    counts = torch.bincount(bins, minlength=BINS).tolist()
    return {"norm": norm, "low": low, "high": high, "counts": counts}


def _histograms(tensors: Iterable[tuple[str, torch.Tensor]]) -> dict[str, Any]:
    return {name: histogram_of(tensor) for name, tensor in tensors}


def _shows_images(config: LoggingConfig) -> bool:
    """Return whether images are logged: where something shows them, and they can be written."""
    if config.log_images_every_n_steps is None or not (config.use_wandb or config.tensorboard):
        return False
    if importlib.util.find_spec("PIL") is None:
        say("images are not logged: the package for them is not installed here: pip install pillow")
        return False
    return True


def _write(path: Path, images: torch.Tensor) -> None:
    """Write images side by side as one PNG file; all but bytes are scaled to what they span."""
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
def _unnoticed(module: torch.nn.Module) -> Iterator[None]:
    """Compute without gradients, in evaluation mode, and leave all random numbers as they were."""
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
