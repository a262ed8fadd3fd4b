"""Several ranks stop at one cut and resume exactly; another number of ranks uses the same samples."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
import torch

from mtf.trainer.loop.phases import Phase
from tests.trainer.hard_training import (
    COMPLETE,
    HARD,
    STOPPED,
    Net,
    difference,
    result,
    signal_at,
)
from tests.trainer.kinds import ALIKE
from tests.trainer.ranks import train_ranks
from tests.trainer.runs import events, make_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def make(tmp_path: Path, ranks: int, **changes: Any) -> Path:
    # windows of 3 and 1 micro-batches; no last batch of one sample, which BatchNorm refuses
    training = {"batch_size": 3, "gradient_accumulation_steps": 3, **changes.pop("training", {})}
    return make_run(
        tmp_path,
        base=HARD,
        slurm={"ntasks_per_node": ranks},
        training=training,
        **{**ALIKE, **changes},
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, Any]]:
    """Return the result of an uninterrupted training on ``ranks`` ranks, which is trained once."""
    results: dict[int, dict[str, Any]] = {}

    def of(ranks: int) -> dict[str, Any]:
        if ranks not in results:
            run = make(tmp_path_factory.mktemp("whole"), ranks)
            assert train_ranks(run, ranks) == [COMPLETE] * ranks
            results[ranks] = result(run)
        return results[ranks]

    return of


@pytest.mark.parametrize("phase", list(Phase)[:-1])
def test_three_ranks_stopped_at_a_phase_resume_bit_for_bit(
    phase: Phase, tmp_path: Path, whole: Callable[[int], dict[str, Any]]
) -> None:
    """With three ranks, since two hide that DDP sums in another order after a restart."""
    run = make(tmp_path, 3)
    stop = signal_at(phase, 2 if phase is not Phase.INIT else 1, signal.SIGUSR1, after=False)
    ended = train_ranks(run, 3, {2: stop})
    assert ended in (
        [STOPPED] * 3,
        [COMPLETE] * 3,
    )  # complete: too near to the end for another exchange
    if ended[0] == STOPPED:
        assert [fact["reason"] for fact in events(run, "stopped")] == ["SIGUSR1"]  # all know it
        assert train_ranks(run, 3) == [COMPLETE] * 3
    assert difference(result(run), whole(3)) is None


@pytest.mark.parametrize("signalled", [0, 1])
def test_two_ranks_stop_if_only_one_of_them_gets_a_signal(signalled: int, tmp_path: Path) -> None:
    run = make(tmp_path, 2)
    stop = signal_at(Phase.TRAIN_BATCH_LOAD, 2, signal.SIGUSR1, after=False)
    assert train_ranks(run, 2, {signalled: stop}) == [STOPPED] * 2


@pytest.mark.parametrize(
    ("ranks", "phase", "nth"),
    [
        (3, Phase.TRAIN_BATCH_BACKWARD, 9),
        (3, Phase.VAL_BATCH_LOAD, 2),
        (2, Phase.TRAIN_BATCH_OPTIM_STEP, 3),
        (2, Phase.EPOCH_END, 1),
    ],
)
def test_ranks_that_are_killed_resume_bit_for_bit(
    ranks: int, phase: Phase, nth: int, tmp_path: Path, whole: Callable[[int], dict[str, Any]]
) -> None:
    run = make(tmp_path, ranks)
    killed = train_ranks(run, ranks, {1: signal_at(phase, nth, signal.SIGKILL, after=True)})
    assert killed[1] == -signal.SIGKILL
    assert COMPLETE not in killed
    assert train_ranks(run, ranks) == [COMPLETE] * ranks
    assert difference(result(run), whole(ranks)) is None


def test_three_ranks_that_are_interrupted_again_and_again_are_exact(
    tmp_path: Path, whole: Callable[[int], dict[str, Any]]
) -> None:
    run = make(tmp_path, 3)
    for number in range(20):
        stop = signal_at(Phase.TRAIN_BATCH_FORWARD, 2, signal.SIGUSR1, after=False)
        if train_ranks(run, 3, {number % 3: stop}) == [COMPLETE] * 3:
            break
    assert len(events(run, "stopped")) >= 3
    assert difference(result(run), whole(3)) is None


class HalfUsed(Net):
    """A model with a layer that takes no part in the loss."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__(hidden_size, num_classes)
        self.spare = torch.nn.Linear(2, 2)


def test_unused_parameters_are_refused_by_name_and_trained_with_a_key(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = {"model": {"type": "tests.trainer.test_ranks:HalfUsed"}}
    run = make(tmp_path, 2, **model)
    assert COMPLETE not in train_ranks(run, 2)
    assert (
        "spare.weight, spare.bias take no part in the loss of a batch, and the processes wait for"
        " the gradients of all: set training.find_unused_parameters: true, or leave these out"
    ) in capfd.readouterr().err
    run = make(tmp_path, 2, **model, training={"find_unused_parameters": True})
    stop = signal_at(Phase.TRAIN_BATCH_LOAD, 3, signal.SIGUSR1, after=False)
    whole = make(tmp_path, 2, **model, training={"find_unused_parameters": True})
    assert train_ranks(whole, 2) == [COMPLETE] * 2
    assert train_ranks(run, 2, {0: stop}) == [STOPPED] * 2
    assert train_ranks(run, 2) == [COMPLETE] * 2
    assert difference(result(run), result(whole)) is None


class Lazy(Net):
    """A model with a layer that gets its shape from the first batch."""

    def __init__(self, hidden_size: int, num_classes: int) -> None:
        super().__init__(hidden_size, num_classes)
        self.spare = torch.nn.LazyLinear(2)


def test_ranks_need_all_shapes_at_the_start(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make(tmp_path, 2, model={"type": "tests.trainer.test_ranks:Lazy"})
    assert COMPLETE not in train_ranks(run, 2)
    error = capfd.readouterr().err
    assert "spare.weight has no shape before the first batch, and several processes" in error


@pytest.mark.parametrize("kind", ["buckets", "Growing", "ByRank"])
def test_two_ranks_resume_exactly_with_epochs_that_differ(kind: str, tmp_path: Path) -> None:
    changes = {"data": {"dataset_name": f"tests.trainer.changing_data:{kind}", "num_workers": 2}}
    whole, run = make(tmp_path, 2, **changes), make(tmp_path, 2, **changes)
    assert train_ranks(whole, 2) == [COMPLETE] * 2
    for phase, nth in ((Phase.TRAIN_BATCH_LOAD, 3), (Phase.TRAIN_BATCH_END, 4)):
        stop = signal_at(phase, nth, signal.SIGUSR1, after=False)
        assert train_ranks(run, 2, {1: stop}) == [STOPPED] * 2
    assert train_ranks(run, 2) == [COMPLETE] * 2
    assert difference(result(run), result(whole)) is None


def test_ranks_that_all_get_the_same_stream_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run = make(tmp_path, 2, data={"dataset_name": "tests.trainer.changing_data:Repeated"})
    assert COMPLETE not in train_ranks(run, 2)
    assert "all 2 ranks begin with the same batch. An iterable data set" in capfd.readouterr().err
