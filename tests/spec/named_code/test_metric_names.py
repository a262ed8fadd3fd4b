"""A metric that a spec watches and that its training cannot have is found before the queue."""

from __future__ import annotations

import pytest

from tests.spec.named_code.test_name_check import DATA, HEAD, ONE, files_of, problems

BLIND = ONE.replace("digits}", "digits, val_split: null}")
NO_VALIDATION = "data.val_split is null, so nothing is validated"
ALL = "This training has train_loss, val_loss, val_accuracy"
MODEL = """
from torch import nn

class Net(nn.Module):
    def training_step(self, batch):
        return {"loss": 0, "f1": 1}

class Other(unknown.Base):
    def forward(self, x): ...
"""


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (f"{ONE}checkpoint: {{monitor: train_loss}}", None),
        (f"{ONE}checkpoint: {{monitor: val_accuracy, mode: max}}", None),
        (
            f"{ONE}checkpoint: {{monitor: val_acuracy}}",
            "5:23: checkpoint.monitor: no metric 'val_acuracy'. Did you mean 'val_accuracy'? "
            + ALL,
        ),
        (
            f"{ONE}callbacks: {{early_stopping: {{monitor: f1}}}}",
            "5:39: callbacks.early_stopping.monitor: no metric 'f1'. " + ALL,
        ),
        (
            f"{BLIND}callbacks: {{early_stopping: {{monitor: val_loss}}}}",
            f"5:39: callbacks.early_stopping.monitor: no metric 'val_loss': {NO_VALIDATION}",
        ),
        (
            f"{BLIND}scheduler: {{type: plateau, monitor: val_accuracy}}",
            f"5:37: scheduler.monitor: no metric 'val_accuracy': {NO_VALIDATION}",
        ),
        (f"{BLIND}scheduler: {{type: plateau}}", None),
        (
            f"{ONE}scheduler: {{type: cosine, monitor: val_loss}}",
            "5:27: warning: scheduler.monitor is ignored: CosineAnnealingLR watches no metric."
            " Remove it, or write scheduler.type: plateau",
        ),
        (
            f"{ONE}scheduler: {{type: plateau, mode: maximum}}",
            '5:34: scheduler.mode: ReduceLROnPlateau expects max or min, got "maximum"',
        ),
        (
            f"{ONE}scheduler: {{type: onecycle, anneal_strategy: cosine}}",
            '5:46: scheduler.anneal_strategy: OneCycleLR expects cos or linear, got "cosine"',
        ),
        (f"{ONE}callbacks: {{own: {{type: 'x:Y'}}}}\ncheckpoint: {{monitor: val_los}}", None),
        (f"{ONE}entrypoint: x.y:main\ncheckpoint: {{monitor: val_los}}", None),
    ],
)
def test_mtfs_own_steps_have_known_metrics(spec: str, expected: str | None) -> None:
    found = [problem.removeprefix("one.yaml:") for problem in problems(spec)]
    assert found == ([] if expected is None else [expected])


def test_a_model_with_steps_of_its_own_may_have_any_metric_that_its_source_may_make() -> None:
    code = files_of({"lab/__init__.py": "", "lab/net.py": MODEL})

    def of_model(name: str, metric: str) -> list[str]:
        spec = f"{HEAD}model: {{type: 'lab.net:{name}'}}\n{DATA}checkpoint: {{monitor: {metric}}}\n"
        return problems(spec, code)

    assert of_model("Net", "val_f1") == []
    assert of_model("Net", "val_recall") == []  # nothing like a metric of mtf's
    assert of_model("Net", "val_los") == [
        "one.yaml:5:23: warning: checkpoint.monitor: no metric 'val_los'. Did you mean 'val_loss'?"
    ]
    assert of_model("Other", "val_los") == []


def test_each_member_of_a_grid_watches_a_metric_that_it_has() -> None:
    grid = (
        "kind: grid\nname: g\nbase:\n  model: {type: mlp}\n  data: {dataset_name: digits}\n"
        "  callbacks: {early_stopping: {monitor: val_loss}}\nparameters:\n"
        "  checkpoint.monitor: [val_loss, val_los]\n  data.val_split: [validation, null]\n"
    )
    assert problems(ONE, g=grid) == [
        f"g.yaml:6:41: callbacks.early_stopping.monitor: no metric 'val_loss': {NO_VALIDATION}",
        f"g.yaml:8:24: checkpoint.monitor: no metric 'val_loss': {NO_VALIDATION}",
        f"g.yaml:8:34: checkpoint.monitor: no metric 'val_los'. Did you mean 'val_loss'? {ALL}",
    ]
    assert problems(ONE, g=grid.replace(", null]", "]").replace(", val_los]", "]")) == []
