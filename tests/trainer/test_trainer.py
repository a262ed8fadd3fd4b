"""What a training saves, reports and refuses, beyond being exact."""

from __future__ import annotations

import copy
import gc
import shutil
import signal
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from mtf.errors import MtfError
from mtf.trainer import Callback, GenericTrainer, RunContext
from mtf.trainer.components.lr_schedulers import Schedule
from mtf.trainer.compute.fabric import build_fabric
from mtf.trainer.job.run_job import read_config
from mtf.trainer.loop.objective import ModelSteps, objective_of
from mtf.trainer.loop.phases import Phase
from mtf.trainer.resume.same_settings import differing_settings
from mtf.trainer.runtime.signals import SIGNALS
from tests.trainer.hard_training import COMPLETE, HARD, STOPPED, in_child, signal_at
from tests.trainer.runs import events, make_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from mtf.trainer.loop.loop import Loop


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Restore the test runner's signal handlers."""
    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


def context(run: Path) -> RunContext:
    config = read_config(run)
    return RunContext(config, run, build_fabric(config, {"MTF_CPUS": "1"}))


@pytest.mark.parametrize(
    ("policy", "steps"),
    [
        ({"every_n_steps": None}, [3, 6]),
        ({"every_n_steps": 2, "every_n_epochs": None}, [2, 4, 6, 6]),
        ({"every_n_steps": None, "every_n_epochs": 2}, [6]),
        ({"every_n_steps": None, "every_n_epochs": None}, [6]),
        (
            {"every_n_steps": None, "every_n_epochs": None, "every_n_minutes": 1e-9},
            [1, 2, *[3] * 4, 4, 5, *[6] * 5],
        ),
    ],
    ids=["epochs", "steps", "every second epoch", "only the end", "time"],
)
def test_checkpoints_are_saved_when_the_settings_say(
    policy: dict[str, Any], steps: list[int], tmp_path: Path
) -> None:
    run = make_run(tmp_path, base=HARD, checkpoint={**policy, "keep_best": 0})
    assert in_child(run) == COMPLETE
    # a write that is under way at the end may be given up for the last state
    assert [fact["step"] for fact in events(run, "checkpoint")] in (steps, steps[:-1])
    assert events(run, "checkpoint")[-1]["step"] == 6


def test_a_monitored_metric_that_does_not_exist_is_reported_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, base=HARD, checkpoint={"monitor": "val_acuracy"})
    assert in_child(run) == COMPLETE
    report = (
        "checkpoint.monitor: no metric 'val_acuracy'. Metrics are train_loss, val_loss, val_acc"
    )
    assert capfd.readouterr().err.count(report) == 1


def test_a_stop_right_after_a_resume_saves_nothing_twice(tmp_path: Path) -> None:
    run = make_run(tmp_path, base=HARD, checkpoint={"keep_last": 9})
    stop = signal_at(Phase.TRAIN_BATCH_LOAD, 3, signal.SIGUSR1, after=False)
    assert in_child(run, stop) == STOPPED
    saved = len(events(run, "checkpoint"))

    def stop_at_once() -> None:
        signal.raise_signal(signal.SIGUSR1)

    def prepare() -> None:
        from mtf.trainer.runtime import signals

        signals.install()
        stop_at_once()

    assert in_child(run, prepare) == STOPPED
    assert len(events(run, "checkpoint")) == saved
    assert len(events(run, "stopped")) == 2


def test_the_journal_reports_each_epoch(tmp_path: Path) -> None:
    run = make_run(tmp_path, base=HARD)
    assert in_child(run) == COMPLETE
    logged = events(run, "metrics")
    assert [(fact["epoch"], fact["step"]) for fact in logged] == [(1, 3), (2, 6)]
    assert set(logged[0]["metrics"]) == {"train_loss", "val_loss", "val_accuracy"}
    progress = [(f["epoch"], f["step"], f["total_steps"]) for f in events(run, "progress")]
    assert {(1, 3, 6), (2, 6, 6)} <= set(progress)  # not only now and then


def test_a_checkpoint_of_another_model_is_refused_with_the_shapes(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    small = context(run)
    data = small.data()
    model = small.model(data)
    small.trainer(model, small.optimizer(model)).fit(data.train, data.validation)
    wider = torch.nn.Sequential(torch.nn.Linear(3, 3))
    with pytest.raises(MtfError, match="the checkpoint is of another model: "):
        small.trainer(wider, small.optimizer(wider)).fit(data.train, data.validation)


def test_a_checkpoint_of_another_configuration_is_refused_with_the_keys(tmp_path: Path) -> None:
    run, other = (
        make_run(tmp_path),
        make_run(
            tmp_path,
            optimizer={"lr": 0.5},
            training={"seed": 4},
            data={"pin_memory": False},
            logging={"log_scalars_every_n_steps": 3},
            slurm={"mem": "2G"},
        ),
    )
    first = context(run)
    data = first.data()
    model = first.model(data)
    first.trainer(model, first.optimizer(model)).fit(data.train, data.validation)
    shutil.copytree(run / "checkpoints", other / "checkpoints", symlinks=True)
    second = context(other)
    with pytest.raises(MtfError) as raised:
        second.trainer(model, second.optimizer(model)).fit(data.train, data.validation)
    assert str(raised.value) == (
        "the checkpoint is of another configuration: optimizer.lr was 0.003 and is 0.5;"
        " training.seed was 3 and is 4. Restore the settings, or start a new run"
    )


def test_keys_and_shapes_are_reported_if_both_differ(tmp_path: Path) -> None:
    run, other = make_run(tmp_path), make_run(tmp_path, model={"hidden_size": 32})

    def fit(at: Path) -> None:
        parts = context(at)
        data = parts.data()
        model = parts.model(data)
        parts.trainer(model, parts.optimizer(model)).fit(data.train, data.validation)

    fit(run)
    shutil.copytree(run / "checkpoints", other / "checkpoints", symlinks=True)
    with pytest.raises(MtfError) as raised:
        fit(other)
    message = str(raised.value)
    assert (
        "another configuration: model.hidden_size was 64 and is 32 (and of another model" in message
    )
    assert "[64, 64] in the checkpoint, [32, 64] in the model" in message


def test_a_target_that_is_not_a_class_of_the_model_is_reported(tmp_path: Path) -> None:
    data = TensorDataset(torch.randn(4, 2), torch.tensor([0, 1, 5, 2]))
    parts = context(make_run(tmp_path))
    model = torch.nn.Linear(2, 2)
    with pytest.raises(
        MtfError, match="a batch has targets 2, 5, but the model distinguishes 2 classes"
    ):
        parts.trainer(model, parts.optimizer(model)).fit(DataLoader(data, batch_size=4))


def test_keys_that_only_one_configuration_has_differ_unless_they_are_unset() -> None:
    then = {"model.type": "mlp", "scheduler": None, "training.max_grad_value": None, "data.root": 3}
    now = {"model.type": "mlp", "scheduler.type": "cosine", "callbacks.ema": None, "model.deep": 0}
    assert differing_settings(then, now) == {
        "data.root": "data.root was 3 and is not set",
        "model.deep": "model.deep was not set and is 0",
        "scheduler.type": "scheduler.type was not set and is 'cosine'",
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda parts: torch.optim.SGD(parts, lr=0.1, momentum=0.9),
            "another optimizer than SGD: it has amsgrad, betas, capturable, decoupled_weight_decay,"
            " eps, and SGD has dampening, momentum, nesterov",
        ),
        (
            lambda parts: torch.optim.AdamW([{"params": [part]} for part in parts], lr=0.1),
            "another optimizer: its groups have 2 parameters, and those of AdamW have 1 and 1",
        ),
    ],
)
def test_a_checkpoint_of_another_optimizer_is_refused_in_words(
    make: Callable[..., torch.optim.Optimizer], message: str, tmp_path: Path
) -> None:
    data = DataLoader(TensorDataset(torch.randn(8, 2), torch.randint(2, (8,))), batch_size=4)
    parts = context(make_run(tmp_path, optimizer={"type": "adamw"}))
    model = torch.nn.Linear(2, 2)
    parts.trainer(model, parts.optimizer(model)).fit(data)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(MtfError) as raised:
        parts.trainer(model, make(list(model.parameters()))).fit(data)
    assert str(raised.value) == f"the checkpoint is of {message}"
    assert all(torch.equal(before[name], now) for name, now in model.state_dict().items())


def test_the_trainer_takes_plain_torch_parts(tmp_path: Path) -> None:
    run = make_run(tmp_path, base=HARD)
    config = read_config(run)
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    data = TensorDataset(torch.randn(20, 2), torch.randint(2, (20,)))
    metrics = GenericTrainer(
        config, build_fabric(config, {}), model, optimizer, scheduler, run_dir=run
    ).fit(DataLoader(data, batch_size=4, shuffle=True), DataLoader(data, batch_size=4))
    assert set(metrics) == {"train_loss", "val_loss", "val_accuracy"}
    assert scheduler.last_epoch == 2


def test_a_module_that_was_set_up_by_fabric_is_taken_too(tmp_path: Path) -> None:
    run = make_run(tmp_path, base=HARD)
    parts = context(run)
    data = parts.data()
    model = parts.model(data)
    optimizer = parts.optimizer(model)
    assert isinstance(optimizer, torch.optim.Optimizer)
    wrapped = parts.fabric.setup(model, optimizer)
    metrics = parts.trainer(*wrapped).fit(data.train, data.validation)
    assert metrics["train_loss"] > 0


def test_a_training_is_freed_when_it_has_ended(tmp_path: Path) -> None:
    """A reference cycle would keep data workers alive, for which the interpreter waits at exit."""
    seen = []

    class Noting(Callback):
        def on_start(self, training: Loop) -> None:
            seen.append(weakref.ref(training))

    parts = context(make_run(tmp_path))
    data = DataLoader(TensorDataset(torch.randn(8, 2), torch.randint(2, (8,))), batch_size=4)
    model = torch.nn.Linear(2, 2)
    gc.disable()
    try:
        parts.trainer(model, parts.optimizer(model), callbacks={"noting": Noting()}).fit(data)
        assert [noted() for noted in seen] == [None]
    finally:
        gc.enable()


def test_a_loader_that_gives_fewer_batches_than_its_length_is_an_error(tmp_path: Path) -> None:
    class Short:
        def __len__(self) -> int:
            return 3

        def batches(self, *_: int) -> Iterator[Any]:
            yield torch.zeros(2, 2), torch.zeros(2).long()

    parts = context(make_run(tmp_path))
    model = torch.nn.Linear(2, 2)
    with pytest.raises(MtfError, match="has 1 batches, and its __len__ says 3: return from"):
        parts.trainer(model, parts.optimizer(model)).fit(Short())


def test_a_part_frozen_in_evaluation_mode_stays_so(tmp_path: Path) -> None:
    seen = []

    class Frozen(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = torch.nn.Dropout(0.9).eval()
            self.head = torch.nn.Linear(2, 2)

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            seen.append((self.training, self.part.training))
            return self.head(self.part(inputs))

    parts = context(make_run(tmp_path))
    data = TensorDataset(torch.randn(4, 2), torch.randint(2, (4,)))
    model = Frozen()
    loader = DataLoader(data, batch_size=4)
    parts.trainer(model, parts.optimizer(model)).fit(loader, loader)
    assert seen == [(True, False), (False, False)] * 2


# -- tasks -----------------------------------------------------------------------------------------


class Stepping(torch.nn.Module):
    """A model that computes its own loss."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def training_step(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return (self.weight * batch["x"]).mean()


class Validating(Stepping):
    """A model that computes its own loss and metrics."""

    def validation_step(self, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
        return {"loss": batch["x"].mean(), "val_words": (batch["x"].sum(), 7), "f1": 0.5}


def test_a_model_may_define_its_own_steps() -> None:
    batch = {"x": torch.tensor([1.0, 2.0, 6.0])}
    model = Validating()
    task = objective_of(model, model)
    assert isinstance(task, ModelSteps)
    assert task.loss(batch).mean.item() == 3.0
    totals = {name: (float(total), count) for name, (total, count) in task.totals(batch, 3).items()}
    assert totals == {"val_loss": (9.0, 3.0), "val_words": (9.0, 7.0), "val_f1": (1.5, 3.0)}


def test_without_a_validation_step_the_loss_is_validated() -> None:
    model = Stepping()
    totals = objective_of(model, model).totals({"x": torch.tensor([1.0, 3.0])}, 2)
    assert [(name, total.item(), n) for name, (total, n) in totals.items()] == [
        ("val_loss", 4.0, 2.0)
    ]


def test_a_batch_that_is_not_a_pair_names_the_methods_to_define() -> None:
    model = torch.nn.Linear(1, 1)
    with pytest.raises(MtfError, match=r"a batch is a dict, not a pair.*training_step"):
        objective_of(model, model).loss({"x": torch.zeros(1)})


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, r"Returning\.training_step returns NoneType: return the loss"),
        (torch.zeros(3, requires_grad=True), r"of shape \[3\]: return one number"),
        (torch.zeros(()), "depends on no parameter"),
    ],
)
def test_a_training_step_that_does_not_return_a_loss_is_reported(
    returned: Any, message: str
) -> None:
    class Returning(Stepping):
        def training_step(self, batch: Any) -> Any:
            del batch
            return returned

    model = Returning()
    with pytest.raises(MtfError, match=message):
        objective_of(model, model).loss({"x": torch.zeros(1)})


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, r"Returning\.validation_step returns a NoneType: return a dict of metrics"),
        ({"f1": torch.zeros(3)}, "the metric 'f1' must be a number or a pair"),
        ({"f1": "good"}, "the metric 'f1' must be"),
        ({"f1": (None, 3)}, "the metric 'f1' must be"),
    ],
)
def test_a_validation_step_that_does_not_return_metrics_is_reported(
    returned: Any, message: str
) -> None:
    class Returning(Stepping):
        def validation_step(self, batch: Any) -> Any:
            del batch
            return returned

    model = Returning()
    with pytest.raises(MtfError, match=message):
        objective_of(model, model).totals({"x": torch.zeros(1)}, 1)


def test_schedules_are_taken_as_they_are(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    by_epoch = Schedule(torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5), "epoch")
    data = TensorDataset(torch.randn(12, 2), torch.randint(2, (12,)))
    parts = context(make_run(tmp_path))
    parts.trainer(model, optimizer, by_epoch).fit(DataLoader(data, batch_size=4))
    assert optimizer.param_groups[0]["lr"] == 0.25
