"""Mistakes in names and keys of a base are found in the base itself, used by a grid or not."""

from __future__ import annotations

import pytest

from tests.spec.named_code.test_name_check import ONE, problems

BASE = (
    "kind: base\nmodel: {type: mlp, hiden: 3}\ndata: {dataset_name: digits}\n"
    "optimizer: {type: adamw, momentum: 0.9}\n"
)
GRID = "kind: grid\nname: g\nbase: base.yaml\nparameters: {training.seed: [1, 2]}\n"
FOUND = [
    "base.yaml:2:20: model.hiden: mlp takes no such key. Did you mean 'hidden_size'? It takes "
    "activation, dropout, hidden_size, num_layers",
    "base.yaml:4:26: optimizer.momentum: AdamW takes no such key. It takes amsgrad, betas, "
    "capturable, differentiable, eps, foreach, fused, lr, maximize, weight_decay",
]


def test_a_base_that_no_grid_uses_is_checked() -> None:
    assert problems(ONE, base=BASE) == FOUND


@pytest.mark.parametrize(
    "grid",
    [
        GRID,
        GRID.replace("seed", "sed"),
        "kind: grid\nname: [\n",
        GRID.replace("seed", "sed")
        + "conditional: [{set: {training.batch_size: [8]}, when: {training.seed: 1}}]\n",
    ],
)
def test_its_mistakes_are_listed_once_whatever_is_wrong_with_the_grid_over_it(grid: str) -> None:
    found = problems(ONE, base=BASE, g=grid)
    assert [p for p in found if p.startswith("base.yaml")] == FOUND


def test_what_every_member_of_a_grid_replaces_is_no_mistake() -> None:
    base = BASE.replace(", hiden: 3", "")
    grid = GRID.replace("training.seed: [1, 2]", "optimizer.type: [sgd, rmsprop]")
    assert problems(ONE, base=base) == FOUND[1:]
    assert problems(ONE, base=base, g=grid) == []
    mixed = grid.replace("rmsprop", "adamw")
    assert problems(ONE, base=base, g=mixed) == FOUND[1:]


def test_what_a_base_lacks_a_grid_may_add() -> None:
    base = "kind: base\nmodel: {type: mlp}\ndata: {dataset_name: digits}\n"
    lacking = f"{base}scheduler: {{type: lambdalr}}\n"
    assert problems(ONE, base=lacking) == []
    assert problems(ONE, base=lacking, g=GRID) == [
        "base.yaml:4:19: scheduler: LambdaLR needs lr_lambda: add it to the section"
    ]
