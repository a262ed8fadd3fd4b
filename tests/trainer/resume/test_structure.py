"""A training whose structure changes is resumed with that structure, or refused in a sentence."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from mtf.core.planner.journal_reader import fold
from mtf.errors import MtfError
from mtf.trainer.compute.structure import refuse_sharded
from mtf.trainer.loop.callbacks import Callback
from mtf.trainer.loop.phases import Phase
from mtf.trainer.storage.checkpoint_store import CheckpointStore
from tests.trainer import rebuilt
from tests.trainer.hard_training import (
    COMPLETE,
    HARD,
    STOPPED,
    Net,
    difference,
    in_child,
    result,
    signal_at,
)
from tests.trainer.ranks import free_port, train_ranks
from tests.trainer.runs import Job, events, make_run

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from mtf.trainer.loop.loop import Loop

HERE = "tests.trainer.resume.test_structure"
STOP = signal_at(Phase.TRAIN_BATCH_LOAD, 15, signal.SIGUSR1, after=False)  # in the second epoch

TWO_RANKS: dict[str, Any] = {
    "slurm": {"ntasks_per_node": 2},
    "training": {"batch_size": 3, "gradient_accumulation_steps": 1},
    "checkpoint": {"every_n_steps": 1},
}


def with_callback(name: str, model: str = "tests.trainer.rebuilt:Growing") -> dict[str, Any]:
    return {
        "model": {"type": model},
        "callbacks": {"own": {"type": f"{HERE}:{name}"}},
        "scheduler": None,
    }


def refusal(run: Path) -> str:
    """Run a job that must be refused; return the reason, which is also all of its output."""
    code, output = Job(run).end()
    assert code == 1
    assert "Traceback" not in output
    (refused,) = events(run, "refused")
    assert f"refused: {refused['reason']}" in output
    assert not events(run, "failed")
    reason: str = refused["reason"]
    return reason


# -- read back before it counts --------------------------------------------------------------------


class GrowWithoutAWord(rebuilt.GrowHead):
    """Adds a layer, and does not build it at a resume."""

    before_load = Callback.before_load


class SaveAnObject(Callback):
    """Has something in its state that no resume can read."""

    def state_dict(self) -> dict[str, Any]:
        """Return it."""
        return {"history": [1.0, object()]}


def test_a_layer_that_no_callback_rebuilds_ends_the_run_at_the_first_save_that_has_it(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path, base=HARD, **with_callback("GrowWithoutAWord"))
    reason = refusal(run)
    assert "could not be resumed" in reason
    assert "not in the model: head.weight, head.bias" in reason
    assert "before_load(training, saved)" in reason
    newest = CheckpointStore(run / "checkpoints", keep_last=1).newest_intact()
    assert newest is not None
    assert newest.epoch <= 1  # what was written before is still there
    assert events(run, "checkpoint")[-1]["sha256"] == newest.sha256
    assert fold(events(run), "/r").refused == reason


def test_a_value_that_cannot_be_read_is_refused_by_its_key_at_the_first_save(
    tmp_path: Path,
) -> None:
    run = make_run(tmp_path, base=HARD, **with_callback("SaveAnObject"))
    reason = refusal(run)
    assert "callbacks/own/history/1 is of type object" in reason
    assert not list((run / "checkpoints").glob("*"))


class CollectStatistics(rebuilt.AtEpoch):
    """Adds a module that has no parameters."""

    def change(self, training: Loop) -> None:
        """Add it."""
        training.engine.module.add_module("statistics", nn.BatchNorm1d(6, affine=False))


def test_two_ranks_are_refused_for_the_same_reason(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first one to end has the other killed: each knows the reason by then."""
    run = make_run(tmp_path, base=HARD, **with_callback("CollectStatistics"), **TWO_RANKS)
    codes = train_ranks(run, 2)
    assert 1 in codes
    stderr = capfd.readouterr().err
    reasons = [line for line in stderr.splitlines() if line.startswith("mtf.errors.MtfError")]
    assert len(reasons) == codes.count(1)
    assert all("not in the model: statistics.running_mean" in reason for reason in reasons)


def test_each_structure_is_read_back_once_and_never_by_the_training_thread(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    changes = with_callback("Regroup")
    run = make_run(tmp_path, base=HARD, **changes, checkpoint={"every_n_steps": 1})
    read = torch.load

    def reported(*args: Any, **more: Any) -> Any:
        print(f"read back by {threading.current_thread().name}", flush=True)
        return read(*args, **more)

    def prepare() -> None:
        torch.load = reported

    assert in_child(run, prepare) == COMPLETE
    output = capfd.readouterr().out
    assert output.count("read back by checkpoint") == output.count("read back") == 2
    assert len(events(run, "checkpoint")) >= 6


class Regroup(rebuilt.SplitGroups):
    """Splits the groups in the second epoch."""


# -- what a resume rebuilds ------------------------------------------------------------------------


class InAnyOrder(Net):
    """A net whose optimizer gets the parameters in an order that differs between processes."""

    def configure_optimizers(self, config: Any) -> torch.optim.Optimizer:
        """Return it; the first two biases have the same shape."""
        parameters = list(self.parameters())
        if os.environ.get("TURNED"):
            parameters.reverse()
        return torch.optim.AdamW(parameters, lr=config.lr)


def test_state_goes_to_the_parameter_of_its_name_whatever_the_order(tmp_path: Path) -> None:
    """Torch goes by the order alone, which is that of a set in some code."""
    changes = {"model": {"type": f"{HERE}:InAnyOrder"}}
    whole, run = (make_run(tmp_path, base=HARD, **changes) for _ in range(2))
    assert in_child(whole) == COMPLETE
    assert in_child(run, STOP) == STOPPED
    turn = partial(os.environ.__setitem__, "TURNED", "1")
    assert in_child(run, turn) == COMPLETE
    left, right = result(run)["content"], result(whole)["content"]
    for part in ("model", "optimizers", "groups"):
        assert difference(left[part], right[part]) is None


@pytest.mark.parametrize("kind", ["lazy modules", "buffers"])
def test_an_average_is_saved_before_it_has_followed_the_first_batch(
    kind: str, tmp_path: Path
) -> None:
    """Inside the first window the module has shapes that its average gets with the first step."""
    whole, run = (make_run(tmp_path, base=HARD, **rebuilt.REBUILT[kind]) for _ in range(2))
    assert in_child(whole) == COMPLETE
    assert in_child(run, signal_at(Phase.TRAIN_BATCH_END, 1, signal.SIGTERM, after=True)) == STOPPED
    assert in_child(run) == COMPLETE
    assert difference(result(run), result(whole)) is None


class Observing(Callback):
    """Notes what it is told at a resume."""

    def on_start(self, training: Loop) -> None:
        """Print the first word."""
        print("start", training.state.epoch, flush=True)

    def before_load(self, training: Loop, saved: Mapping[str, Any]) -> None:
        """Print the place of the saved state, and that of the training."""
        place = (saved["epoch"], saved["global_step"], saved["phase"])
        keys = {"model", "optimizers", "schedulers", "callbacks"} <= saved.keys()
        print("before_load", *place, training.state.epoch, keys, saved["callbacks"], flush=True)

    def on_resume(self, training: Loop) -> None:
        """Print the place and a weight of the module."""
        weight = float(next(training.engine.module.parameters()).sum().detach())
        print("on_resume", training.state.epoch, training.state.global_step, weight, flush=True)

    def state_dict(self) -> dict[str, Any]:
        """Return a number."""
        return {"n": 1}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Print it."""
        print("load_state_dict", dict(state), flush=True)


def test_a_callback_is_called_before_and_after_the_state_is_loaded(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, base=HARD, **with_callback("Observing"))
    assert in_child(run, STOP) == STOPPED
    assert "before_load" not in (started := capfd.readouterr().out)
    assert "on_resume" not in started
    saved = result(run)["content"]["model"]["layers.0.weight"]
    assert in_child(run) == COMPLETE
    lines = [line for line in capfd.readouterr().out.splitlines() if line]
    assert lines == [
        "start 0",
        "before_load 1 3 TRAIN_BATCH_OPTIM_STEP 0 True {'own': {'n': 1}}",
        "load_state_dict {'n': 1}",
        f"on_resume 1 3 {float(saved.sum())}",
    ]


def test_a_checkpoint_of_an_earlier_version_is_resumed(tmp_path: Path) -> None:
    whole, run = (make_run(tmp_path, base=HARD) for _ in range(2))
    assert in_child(whole) == COMPLETE
    assert in_child(run, STOP) == STOPPED
    newest = CheckpointStore(run / "checkpoints", keep_last=1).newest_intact()
    assert newest is not None
    content = torch.load(newest.path, weights_only=True)
    for name in ("requires_grad", "groups", "built_groups"):
        del content[name]
    (rank,) = content["ranks"]
    rank["callbacks"] = rank.pop("own_callbacks")
    rank["gradients"] = list(rank["gradients"].values())
    torch.save(content, newest.path)
    digest = hashlib.sha256(newest.path.read_bytes()).hexdigest()
    sums = newest.path.with_name(f"{newest.path.name}.sha256")
    sums.write_text(f"{digest}  {newest.path.name}\n")
    assert in_child(run) == COMPLETE
    assert difference(result(run), result(whole)) is None


class Swap(rebuilt.AtEpoch):
    """Takes a parameter out of the optimizer's groups, and leaves its state there."""

    def change(self, training: Loop) -> None:
        """Take one out."""
        training.engine.optimizers["optimizer"].param_groups[0]["params"].pop()


def test_state_of_a_parameter_that_is_in_no_group_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, base=HARD, **with_callback("Swap"))
    assert "Remove it with the parameter: optimizer.state.pop(parameter)" in refusal(run)


# -- what cannot be trained ------------------------------------------------------------------------


class HeadInForward(nn.Module):
    """A model that makes its last layer in the first forward pass."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Linear(6, hidden_size)
        self.head: Any = None
        self._sizes = (hidden_size, num_classes)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        if self.head is None:
            self.head = nn.Linear(*self._sizes)
        logits: torch.Tensor = self.head(self.body(inputs).relu())
        return logits


class ReplaceHead(rebuilt.AtEpoch):
    """Replaces a layer, and forgets to tell the optimizer."""

    def change(self, training: Loop) -> None:
        """Replace it."""
        layers: Any = training.engine.module.get_submodule("layers")
        layers[0] = nn.Linear(6, 8)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"model": {"type": f"{HERE}:HeadInForward"}}, "head.weight, head.bias"),
        (with_callback("ReplaceHead"), "layers.0.weight, layers.0.bias"),
    ],
    ids=["made in the forward pass", "replaced"],
)
def test_parameters_that_no_optimizer_has_end_the_run(
    changes: dict[str, Any], names: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path, base=HARD, **changes)
    assert refusal(run).startswith(f"no optimizer has {names}, made after the optimizers were:")


@pytest.mark.parametrize(
    ("kind", "name"), [("frozen, then others", "layers.0.weight"), ("growing", "head.weight")]
)
def test_parameters_that_several_processes_do_not_exchange_end_the_run(
    kind: str, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Their gradients would never be exchanged, and the ranks would drift apart."""
    run = make_run(tmp_path, base=HARD, **rebuilt.REBUILT[kind], **TWO_RANKS)
    assert COMPLETE not in train_ranks(run, 2)
    assert f"{name} needs gradients now and did not at the start" in capfd.readouterr().err


def distributed(body: Callable[[Any], None]) -> Callable[[], None]:
    """Return a function that calls another with a device mesh of this process alone."""

    def connected() -> None:
        from torch import distributed
        from torch.distributed.device_mesh import init_device_mesh

        address = f"tcp://127.0.0.1:{free_port()}"
        distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
        body(init_device_mesh("cpu", (1,)))

    return connected


def refuses(module: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    optimizer = optimizer or torch.optim.SGD(module.parameters(), lr=0.1)
    with pytest.raises(MtfError, match="each process has only a part of the state"):
        refuse_sharded(module, {"optimizer": optimizer}, "SingleDeviceStrategy")


def shard_in_all_ways(mesh: Any) -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.optim import ZeroRedundancyOptimizer
    from torch.distributed.tensor import Shard, distribute_tensor

    from mtf.trainer.storage.plain_values import simplified

    part = distribute_tensor(torch.zeros(2, 2), mesh, [Shard(0)])
    with_part, with_buffer, wrapped, inner, plain = (
        nn.Sequential(nn.Linear(2, 2)) for _ in range(5)
    )
    with_part[0].weight = nn.Parameter(part)
    with_buffer.register_buffer("table", part)
    fully_shard(wrapped, mesh=mesh)
    fully_shard(inner[0], mesh=mesh)
    for module in (with_part, with_buffer, wrapped, inner):
        refuses(module)
    zero: Any = ZeroRedundancyOptimizer
    refuses(plain, zero(plain.parameters(), torch.optim.SGD, lr=0.1))
    sgd = torch.optim.SGD(plain.parameters(), lr=0.1)
    refuse_sharded(plain, {"optimizer": sgd}, "DDPStrategy")
    with pytest.raises(MtfError, match="Fabric's FSDPStrategy"):
        refuse_sharded(plain, {"optimizer": sgd}, "FSDPStrategy")
    with pytest.raises(MtfError, match="callbacks/own is of type"):
        simplified({"callbacks": {"own": part}})


def test_a_sharded_state_is_refused(tmp_path: Path) -> None:
    from mtf.trainer.verify import trial_process

    log = tmp_path / "output"
    code = trial_process.fork(distributed(shard_in_all_ways), log=log).wait()
    assert code == COMPLETE, log.read_text()
