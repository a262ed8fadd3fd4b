"""LBFGS, and sparse gradients under clipping, train as a plain loop does; both resume exactly."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import TensorDataset

from mtf.trainer.loop.phases import Phase
from tests.trainer.hard_training import (
    COMPLETE,
    HARD,
    STOPPED,
    difference,
    in_child,
    result,
    signal_at,
)
from tests.trainer.plain_loop.by_hand import (
    EPOCHS,
    assert_equal,
    by_trainer,
    net,
    plain_run,
    train_batches,
)
from tests.trainer.runs import make_run

if TYPE_CHECKING:
    from pathlib import Path

HERE = "tests.trainer.plain_loop.test_closures"


def lbfgs(model: nn.Module) -> torch.optim.LBFGS:
    return torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=4, history_size=3)


def test_lbfgs_computes_the_loss_as_often_as_in_a_plain_loop(tmp_path: Path) -> None:
    mine, by_hand = net(), net()
    trained = by_trainer(plain_run(tmp_path, training={"max_grad_norm": 0.5}), mine, lbfgs(mine))
    optimizer = lbfgs(by_hand)
    for _ in range(EPOCHS):
        for inputs, targets in train_batches():

            def closure(inputs: Any = inputs, targets: Any = targets) -> torch.Tensor:
                optimizer.zero_grad()
                loss = functional.cross_entropy(by_hand(inputs), targets)
                loss.backward()
                clip_grad_norm_(by_hand.parameters(), 0.5)
                return loss

            optimizer.step(closure)
    assert_equal(trained.model, by_hand.state_dict())
    assert_equal(trained.optimizer, optimizer.state_dict())
    assert optimizer.state_dict()["state"][0]["func_evals"] > 2 * 33


class Bags(nn.Module):
    """Embeddings whose gradients may be sparse, and a layer whose gradients are not."""

    def __init__(self, *, sparse: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(50, 4, sparse=sparse)
        self.out = nn.Linear(4, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return logits; a token may be in a bag twice."""
        logits: torch.Tensor = self.out(self.embedding(tokens).mean(1))
        return logits

    def configure_optimizers(self, config: Any) -> dict[str, torch.optim.Optimizer]:
        """Return SparseAdam for the embeddings."""
        return {
            "sparse": torch.optim.SparseAdam(self.embedding.parameters(), lr=config.lr),
            "dense": torch.optim.AdamW(self.out.parameters(), lr=config.lr),
        }


def bags(split: str) -> TensorDataset:
    """Return bags of tokens."""
    generator = torch.Generator().manual_seed(len(split))
    tokens = torch.randint(0, 50, (42 if split == "train" else 9, 5), generator=generator)
    return TensorDataset(tokens, tokens.sum(1) % 3)


@pytest.mark.parametrize("clipping", [{"max_grad_norm": 0.05}, {"max_grad_value": 0.01}])
def test_sparse_gradients_are_clipped_as_dense_ones(
    clipping: dict[str, float], tmp_path: Path
) -> None:
    trained = []
    training = {"max_grad_norm": None, "on_nonfinite": "skip", "max_epochs": 1, **clipping}
    for sparse in (True, False):
        torch.manual_seed(0)
        model = Bags(sparse=sparse)
        run = plain_run(tmp_path, training=training, data={"val_split": None})
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        loader = torch.utils.data.DataLoader(bags("train"), batch_size=8)
        trained.append(by_trainer(run, model, optimizer, train=loader, validation=None).model)
    torch.testing.assert_close(trained[0], trained[1])


KINDS: dict[str, dict[str, Any]] = {
    "lbfgs": {
        "model": {"type": "tests.trainer.hard_training:Net"},
        "optimizer": {"type": "lbfgs", "lr": 0.1, "max_iter": 3},
        "training": {"gradient_accumulation_steps": 1},
        "scheduler": {"type": "cosine"},
    },
    "sparse": {
        "model": {"type": f"{HERE}:Bags"},
        "data": {"dataset_name": f"{HERE}:bags"},
        "scheduler": None,
    },
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phase", [Phase.TRAIN_BATCH_OPTIM_STEP, Phase.TRAIN_BATCH_LOAD])
def test_an_interruption_changes_no_bit(kind: str, phase: Phase, tmp_path: Path) -> None:
    changes = KINDS[kind]
    whole, run = (make_run(tmp_path, base=HARD, **changes) for _ in range(2))
    assert in_child(whole) == COMPLETE
    assert in_child(run, signal_at(phase, 3, signal.SIGUSR1, after=False)) == STOPPED
    assert in_child(run) == COMPLETE
    assert difference(result(run), result(whole)) is None
