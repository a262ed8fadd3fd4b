"""Kinds of trainings that must resume exactly, as changes of ``hard_training.HARD``."""

from __future__ import annotations

import importlib
from typing import Any

from tests.trainer.rebuilt import REBUILT

for _name in ("measured", "changing_data"):  # now: each forked child would import it anew
    importlib.import_module(f"tests.trainer.{_name}")

OWN = {"type": "tests.trainer.hard_training:Stateful", "strength": 1e-3}
BESIDES: dict[str, Any] = {
    "callbacks": {"ema": {"decay": 0.9}, "early_stopping": {"patience": 9}, "own": OWN}
}
# for several ranks: each rank draws other numbers, and the weights of all must stay the same
ALIKE: dict[str, Any] = {"callbacks": {**BESIDES["callbacks"], "own": {**OWN, "strength": 0.0}}}
TWO_SETS: dict[str, Any] = {
    "data": {"dataset_name": "tests.trainer.hard_training:two_sets"},
    "model": {"type": "tests.trainer.hard_training:OnTwoSets"},
}
STREAMED = "tests.trainer.hard_training:Streamed"

KINDS: dict[str, dict[str, Any]] = {
    "worker": {"data": {"num_workers": 1}},
    "workers": {"data": {"num_workers": 2}},
    "plateau": {"scheduler": {"type": "plateau", "patience": 0}},
    "by epoch": {"scheduler": {"type": "step", "step_size": 1}, "optimizer": {"type": "sgd"}},
    "no accumulation": {"training": {"gradient_accumulation_steps": 1, "max_grad_norm": None}},
    "no validation": {"data": {"val_split": None}, "scheduler": None},
    "callbacks": {
        "callbacks": {"ema": {"decay": 0.9}, "early_stopping": {"patience": 1}, "own": OWN}
    },
    "iterable": {"data": {"dataset_name": STREAMED}},
    "iterable, workers": {"data": {"dataset_name": STREAMED, "num_workers": 2}},
    "iterable, ragged": {"data": {"dataset_name": STREAMED}, "training": {"batch_size": 6}},
    "counted": {"model": {"type": "tests.trainer.hard_training:Counted"}},
    "iterable, all in each worker": {
        "data": {"dataset_name": "tests.trainer.changing_data:Repeated", "num_workers": 2}
    },
    "buckets": {"data": {"dataset_name": "tests.trainer.changing_data:buckets"}},
    "sampler that counts its epochs": {
        "data": {"dataset_name": "tests.trainer.changing_data:counting_itself"},
        "training": {"max_epochs": 3},
    },
    "growing, workers": {
        "data": {"dataset_name": "tests.trainer.changing_data:Growing", "num_workers": 2}
    },
    "two sets": TWO_SETS,
    "two sets in turn": {**TWO_SETS, "training": {"combine": "in_turn"}},
    "two optimizers": {"model": {"type": "tests.trainer.hard_training:Rivals"}},
    "skipped steps": {
        "model": {"type": "tests.trainer.hard_training:SometimesInfinite"},
        "training": {"on_nonfinite": "skip", "max_grad_norm": None, "max_grad_value": 0.1},
    },
    "sparse": {
        "model": {"type": "tests.trainer.hard_training:Sparse"},
        "optimizer": {"type": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0},
    },
    "torchmetrics": {"model": {"type": "tests.trainer.measured:Measured"}},
    **REBUILT,
}
