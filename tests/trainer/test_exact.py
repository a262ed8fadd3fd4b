"""An interrupted training ends in the same bits as an uninterrupted one."""

from __future__ import annotations

import os
import random
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from mtf.trainer.loop.phases import CUTS, Phase
from tests.trainer.hard_training import (
    COMPLETE,
    EPOCHS,
    HARD,
    STOPPED,
    difference,
    in_child,
    result,
    signal_at,
)
from tests.trainer.kinds import BESIDES, KINDS
from tests.trainer.runs import events, make_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SOFT = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# how often a phase occurs in the whole training
TIMES = {
    Phase.INIT: 1,
    Phase.TRAIN_START_EPOCH: EPOCHS,
    Phase.TRAIN_BATCH_LOAD: 11 * EPOCHS,
    Phase.TRAIN_BATCH_FORWARD: 11 * EPOCHS,
    Phase.TRAIN_BATCH_BACKWARD: 11 * EPOCHS,
    Phase.TRAIN_BATCH_OPTIM_STEP: 3 * EPOCHS,
    Phase.SCHEDULER_BATCH_STEP: 3 * EPOCHS,
    Phase.TRAIN_BATCH_END: 11 * EPOCHS,
    Phase.SCHEDULER_EPOCH_STEP: EPOCHS,
    Phase.VAL_START_EPOCH: EPOCHS,
    Phase.VAL_BATCH_LOAD: 3 * EPOCHS,
    Phase.VAL_BATCH_FORWARD: 3 * EPOCHS,
    Phase.VAL_BATCH_END: 3 * EPOCHS,
    Phase.EPOCH_END: EPOCHS,
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """Return the result of the uninterrupted training; each configuration is trained once."""
    results: dict[str, dict[str, Any]] = {}

    def of(**changes: Any) -> dict[str, Any]:
        key = repr(changes)
        if key not in results:
            run = make_run(tmp_path_factory.mktemp("whole"), base=HARD, **changes)
            assert in_child(run) == COMPLETE
            results[key] = result(run)
        return results[key]

    return of


def finish(run: Path) -> dict[str, Any]:
    assert in_child(run) == COMPLETE
    return result(run)


def test_every_phase_is_tested() -> None:
    assert set(TIMES) | {Phase.TRAINING_COMPLETE} == set(Phase)


@pytest.mark.parametrize("phase", TIMES)
def test_a_training_stopped_at_a_phase_resumes_exactly(
    phase: Phase, tmp_path: Path, whole: Callable[..., dict[str, Any]]
) -> None:
    half = TIMES[phase] // 2 + 1
    for nth, signum, after in ((1, SOFT[0], True), (half, SOFT[1], False), (half, SOFT[2], True)):
        run = make_run(tmp_path, base=HARD, **BESIDES)
        code = in_child(run, signal_at(phase, nth, signum, after=after))
        is_the_last_phase = (phase, nth) == (Phase.EPOCH_END, EPOCHS)
        assert code == (COMPLETE if is_the_last_phase else STOPPED), (nth, after)
        assert difference(finish(run), whole(**BESIDES)) is None, (nth, after)


@pytest.mark.parametrize("phase", TIMES)
def test_a_training_killed_at_a_phase_resumes_exactly(
    phase: Phase, tmp_path: Path, whole: Callable[..., dict[str, Any]]
) -> None:
    for nth, after in ((1, True), (TIMES[phase] // 2 + 1, False), (TIMES[phase], True)):
        run = make_run(tmp_path, base=HARD, **BESIDES)
        code = in_child(run, signal_at(phase, nth, signal.SIGKILL, after=after))
        assert code == -signal.SIGKILL, (nth, after)
        assert difference(finish(run), whole(**BESIDES)) is None, (nth, after)


def test_a_stop_in_the_replay_zone_waits_for_the_next_cut(tmp_path: Path) -> None:
    """At the zone's end the batch is done, so the resumed training does not compute it again."""
    for phase in sorted(set(TIMES) - CUTS):
        run = make_run(tmp_path, base=HARD)
        nth = 2
        assert in_child(run, signal_at(phase, nth, signal.SIGUSR1, after=False)) == STOPPED
        (stopped,) = events(run, "stopped")
        assert stopped["reason"] == "SIGUSR1"
        state = result(run)["content"]["ranks"][0]
        place = state["val"] if phase.startswith("VAL") else state["train"]
        assert place["batch"] == nth, phase


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_every_kind_of_training_resumes_exactly(
    changes: dict[str, Any], tmp_path: Path, whole: Callable[..., dict[str, Any]]
) -> None:
    for phase, nth, signum in (
        (Phase.TRAIN_BATCH_LOAD, 6, signal.SIGTERM),
        (Phase.TRAIN_BATCH_END, 9, signal.SIGKILL),
        (Phase.VAL_BATCH_LOAD, 2, signal.SIGUSR1),
        (Phase.SCHEDULER_EPOCH_STEP, 1, signal.SIGTERM),
        (Phase.EPOCH_END, 1, signal.SIGKILL),
    ):
        run = make_run(tmp_path, base=HARD, **changes)
        in_child(run, signal_at(phase, nth, signum, after=True))
        assert difference(finish(run), whole(**changes)) is None, (phase, signum)


def test_the_number_of_workers_may_change_at_a_resume(
    tmp_path: Path, whole: Callable[..., dict[str, Any]]
) -> None:
    run = make_run(tmp_path, base=HARD, data={"num_workers": 2})
    assert in_child(run, signal_at(Phase.TRAIN_BATCH_LOAD, 5, SOFT[0], after=False)) == STOPPED
    other = make_run(tmp_path, base=HARD)
    shutil.copytree(run / "checkpoints", other / "checkpoints", symlinks=True)
    shutil.copy(run / "scalars.jsonl", other)
    assert difference(finish(other), whole()) is None


def test_a_training_interrupted_again_and_again_is_exact(
    tmp_path: Path, whole: Callable[..., dict[str, Any]]
) -> None:
    draw = random.Random(5)
    longer = {"training": {"max_epochs": 10}, **BESIDES}
    run = make_run(tmp_path, base=HARD, **longer)
    often = [phase for phase in TIMES if TIMES[phase] > EPOCHS]
    interruptions = 0
    while True:
        phase, signum = draw.choice(often), draw.choice([*SOFT, signal.SIGKILL])
        probe = signal_at(phase, draw.randint(1, 3), signum, after=draw.random() < 0.5)
        if in_child(run, probe) == COMPLETE:
            break
        interruptions += 1
    assert interruptions >= 20
    assert difference(result(run), whole(**longer)) is None


def test_further_signals_do_not_break_the_save_in_progress(
    tmp_path: Path, whole: Callable[..., dict[str, Any]]
) -> None:
    run = make_run(tmp_path, base=HARD)
    stop = signal_at(Phase.TRAIN_BATCH_END, 7, signal.SIGUSR1, after=False)

    def prepare() -> None:
        stop()
        sync = os.fsync

        def interrupted_sync(fd: Any) -> None:
            for signum in SOFT:
                os.kill(os.getpid(), signum)
            sync(fd)

        os.fsync = interrupted_sync

    assert in_child(run, prepare) == STOPPED
    assert len(events(run, "stopped")) == 1
    assert difference(finish(run), whole()) is None


@pytest.mark.parametrize("amp", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_resumes_exactly(amp: str, tmp_path: Path) -> None:
    """On the CPU, through Fabric's wrappers as on a GPU; 16 bits with a gradient scaler."""
    whole = make_run(tmp_path, base=HARD)
    assert in_child(whole, precision=amp) == COMPLETE
    for phase, nth, signum in (
        (Phase.TRAIN_BATCH_BACKWARD, 3, signal.SIGUSR1),
        (Phase.TRAIN_BATCH_FORWARD, 4, signal.SIGINT),  # it resumes at the optimizer's step
        (Phase.VAL_BATCH_LOAD, 3, signal.SIGTERM),
        (Phase.TRAIN_BATCH_OPTIM_STEP, 3, signal.SIGKILL),
    ):
        run = make_run(tmp_path, base=HARD)
        assert in_child(run, signal_at(phase, nth, signum, after=True), amp) in (STOPPED, -signum)
        assert in_child(run, precision=amp) == COMPLETE
        assert difference(result(run), result(whole)) is None, (phase, nth)
    assert (result(whole)["content"]["scaler"] is not None) == (amp == "16-mixed")
