"""Models that are made for other trainers, and what to do about them."""

from __future__ import annotations

LIGHTNING = ("lightning", "pytorch_lightning")
LIGHTNING_MODULE = (
    "is a LightningModule, which only Lightning's Trainer runs. Derive it from torch.nn.Module,"
    " with training_step(self, batch) that returns the loss, validation_step(self, batch) that"
    " returns a dict of metrics, and configure_optimizers(self, config) that returns the optimizer"
)
