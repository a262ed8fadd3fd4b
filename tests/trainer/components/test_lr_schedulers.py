"""Learning rates follow the metric that is watched, and each parameter group has its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from mtf.errors import MtfError
from mtf.spec.schema.sections import SchedulerConfig
from mtf.trainer.components.lr_schedulers import (
    Length,
    build_schedule,
    check_schedules,
    schedules_of,
)
from mtf.trainer.components.optimizers import learning_rates
from mtf.trainer.job.run_job import read_config
from mtf.trainer.storage.journal import metric_modes, monitored
from tests.trainer.plain_loop.by_hand import (
    EPOCHS,
    adam,
    assert_equal,
    assert_same,
    by_hand,
    by_trainer,
    net,
    plain_run,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch.optim import Optimizer

    from mtf.trainer.components.lr_schedulers import Schedule

STEPS = 11 * EPOCHS
WATCHED: list[tuple[dict[str, Any], str, str]] = [
    ({}, "val_loss", "min"),
    ({"checkpoint": {"monitor": "val_accuracy", "mode": "max"}}, "val_accuracy", "max"),
    ({"scheduler": {"monitor": "val_accuracy"}}, "val_accuracy", "max"),
    ({"scheduler": {"monitor": "train_loss"}}, "train_loss", "min"),
    (
        {"checkpoint": {"monitor": "val_accuracy", "mode": "max"}, "scheduler": {"mode": "min"}},
        "val_accuracy",
        "min",
    ),
    (
        {
            "scheduler": {"monitor": "val_f1"},
            "callbacks": {"early_stopping": {"monitor": "val_f1", "mode": "max"}},
        },
        "val_f1",
        "max",
    ),
]


def two_groups(model: nn.Module) -> Optimizer:
    body, *_, head = model.children()
    groups: list[dict[str, Any]] = [
        {"params": body.parameters(), "lr": 1e-3, "name": "body"},
        {"params": head.parameters(), "name": "head"},
    ]
    return torch.optim.AdamW(groups, lr=1e-2)


def scheduled(run: Path, optimizer: Optimizer) -> Schedule:
    """Build the schedule that a run's configuration names, as a job does."""
    config = read_config(run)
    assert config.scheduler is not None
    return build_schedule(
        config.scheduler,
        optimizer,
        Length(STEPS, EPOCHS),
        monitor=monitored(config) or "train_loss",
        modes=metric_modes(config),
    )


@pytest.mark.parametrize(("changes", "metric", "mode"), WATCHED)
def test_a_plateau_scheduler_takes_the_direction_of_the_metric_it_watches(
    changes: dict[str, Any], metric: str, mode: str, tmp_path: Path
) -> None:
    section = {"type": "plateau", **changes.get("scheduler", {})}
    built: Any = scheduled(plain_run(tmp_path, **{**changes, "scheduler": section}), adam(net()))
    assert (built.monitor, built.scheduler.mode) == (metric, mode)


def test_a_metric_of_unknown_direction_is_refused_with_the_cure() -> None:
    section = SchedulerConfig.model_validate({"type": "plateau", "monitor": "val_f1"})
    with pytest.raises(MtfError, match=r"scheduler\.mode: .* val_f1 better\? Set mode: min or"):
        build_schedule(section, adam(net()), Length(STEPS, EPOCHS), monitor="val_loss")


def test_a_mode_that_is_no_direction_stays_the_schedulers_own() -> None:
    keys = {"type": "cycliclr", "base_lr": 1e-3, "max_lr": 1e-2, "cycle_momentum": False}
    section = SchedulerConfig.model_validate(keys)
    built: Any = build_schedule(section, adam(net()), Length(STEPS, EPOCHS), monitor="val_f1")
    assert built.scheduler.mode == "triangular"


def test_a_plateau_on_a_metric_where_more_is_better_trains_as_by_hand(tmp_path: Path) -> None:
    watched = {"monitor": "val_accuracy", "mode": "max"}
    section = {"type": "plateau", "patience": 0, "factor": 0.5}
    run = plain_run(tmp_path, checkpoint=watched, scheduler=section)
    model, reference = net(), net()
    optimizer, reference_optimizer = adam(model), adam(reference)
    schedule = scheduled(run, optimizer)
    plateau = lr_scheduler.ReduceLROnPlateau(reference_optimizer, "max", patience=0, factor=0.5)
    expected = by_hand(
        reference, reference_optimizer, after_metrics=lambda m: plateau.step(m["val_accuracy"])
    )
    assert_same(by_trainer(run, model, optimizer, schedule), expected)
    assert_equal(schedule.scheduler.state_dict(), plateau.state_dict())


@pytest.mark.parametrize("type_", ["onecycle", "cosine", "linear", "polynomial"])
def test_a_short_name_keeps_the_rates_of_the_parameter_groups(type_: str, tmp_path: Path) -> None:
    run = plain_run(tmp_path, scheduler={"type": type_})
    model, reference = net(), net()
    optimizer, by_plain = two_groups(model), two_groups(reference)
    made: dict[str, Any] = {
        "onecycle": lambda: lr_scheduler.OneCycleLR(by_plain, [1e-3, 1e-2], total_steps=STEPS),
        "cosine": lambda: lr_scheduler.CosineAnnealingLR(by_plain, STEPS),
        "linear": lambda: lr_scheduler.LinearLR(by_plain, 1.0, 0.0, STEPS),
        "polynomial": lambda: lr_scheduler.PolynomialLR(by_plain, STEPS),
    }
    schedule, plain = scheduled(run, optimizer), made[type_]()
    rates: list[list[float]] = []

    def after_step() -> None:
        if plain.last_epoch < STEPS:
            plain.step()
        rates.append([group["lr"] for group in by_plain.param_groups])

    expected = by_hand(reference, by_plain, after_step=after_step)
    assert_same(by_trainer(run, model, optimizer, schedule), expected)
    rows = [json.loads(line) for line in (run / "scalars.jsonl").read_text().splitlines()]
    assert [[row["lr/body"], row["lr/head"]] for row in rows if "lr" in row] == rates
    assert all(body == pytest.approx(head / 10, abs=1e-9) for body, head in rates)


def test_one_group_is_logged_as_lr_alone() -> None:
    assert learning_rates({"optimizer": adam(net())}) == {"lr": 1e-2}


def test_groups_are_logged_by_their_names_or_their_indices() -> None:
    named, unnamed, repeated = two_groups(net()), two_groups(net()), two_groups(net())
    for group in unnamed.param_groups:
        del group["name"]
    for group in repeated.param_groups:
        group["name"] = "same"
    assert learning_rates({"optimizer": named}) == {"lr": 1e-3, "lr/body": 1e-3, "lr/head": 1e-2}
    for optimizer in (unnamed, repeated):
        assert learning_rates({"optimizer": optimizer}) == {"lr": 1e-3, "lr/0": 1e-3, "lr/1": 1e-2}


def test_groups_of_several_optimizers_are_logged_below_the_optimizers_name() -> None:
    rates = learning_rates({"g": two_groups(net()), "d": adam(net())})
    assert rates == {"lr": 1e-3, "lr/g/body": 1e-3, "lr/g/head": 1e-2, "lr/d": 1e-2}


def test_a_scheduler_of_another_optimizer_is_refused() -> None:
    model = net()
    mine, other = adam(model), adam(model)
    schedules = schedules_of(lr_scheduler.ConstantLR(other), monitor="train_loss")
    check_schedules(schedules, {"optimizer": other})
    with pytest.raises(MtfError, match="scheduler of optimizer was built for another optimizer"):
        check_schedules(schedules, {"optimizer": mine})


def test_each_of_several_optimizers_needs_a_scheduler_if_one_has_it() -> None:
    model = net()
    optimizers = {"body": adam(model), "head": adam(model)}
    schedules = schedules_of(
        {"body": lr_scheduler.ConstantLR(optimizers["body"])}, monitor="train_loss"
    )
    check_schedules({}, optimizers)
    with pytest.raises(MtfError, match="schedulers for body, and the optimizers are body, head"):
        check_schedules(schedules, optimizers)


@pytest.mark.parametrize(
    "made",
    [
        lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=9),
        lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda _: 0.9),
        lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 4),
    ],
)
def test_a_scheduler_that_does_not_know_an_added_group_says_so(made: Any) -> None:
    module = nn.Linear(2, 2)
    optimizer = torch.optim.SGD([module.weight], lr=0.1)
    (schedule,) = schedules_of(made(optimizer), monitor="val_loss").values()
    optimizer.add_param_group({"params": [module.bias], "lr": 0.3})
    advance = schedule.after_step if schedule.interval == "step" else schedule.after_epoch
    with pytest.raises(MtfError, match="knows 1 of the optimizer's 2 parameter groups"):
        advance()


@pytest.mark.parametrize("kind", ["onecycle", "CyclicLR"])
def test_a_cycle_of_the_momentum_needs_an_optimizer_that_has_one(kind: str) -> None:
    optimizer = torch.optim.Adagrad(net().parameters())
    keys: dict[str, Any] = {"base_lr": 0.1, "max_lr": 0.2} if kind == "CyclicLR" else {}
    asked = {"type": kind, **keys}
    with pytest.raises(MtfError, match="Adagrad has none: set scheduler"):
        schedule(optimizer, **asked)
    schedule(optimizer, **asked, cycle_momentum=False)


def test_a_value_that_torch_does_not_take_is_named_with_its_section() -> None:
    with pytest.raises(MtfError, match="scheduler: CosineAnnealingWarmRestarts: Expected positive"):
        schedule(adam(net()), type="warm_restarts", T_0=-1)


def schedule(optimizer: Optimizer, **keys: Any) -> Schedule:
    section = SchedulerConfig.model_validate(keys)
    return build_schedule(section, optimizer, Length(9, 3), monitor="val_loss")
