"""The state in a checkpoint is plain, versioned and whole."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import pytest
import torch

from mtf.errors import MtfError
from mtf.trainer.compute.rng import RNGState, TemporarilySeeded, seed_all, seed_at
from mtf.trainer.loop.phases import Phase
from mtf.trainer.loop.state import FORMAT, ResumeState, TrainMicroState, ValMicroState
from mtf.trainer.loop.step_values import Loss
from mtf.trainer.resume import snapshot

CPU = torch.device("cpu")


def draw() -> tuple[Any, ...]:
    return (
        random.random(),
        random.gauss(0, 1),
        float(np.random.rand()),
        float(np.random.randn()),
        torch.rand(2).tolist(),
    )


def through_a_file(plain: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(plain, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def test_generators_continue_after_a_round_trip_through_a_file_without_code() -> None:
    seed_all(7)
    draw()  # one gaussian of python and of numpy is in store now
    state = RNGState.capture()
    expected = draw(), draw()
    seed_all(8)
    RNGState(**through_a_file(state.plain())).restore()
    assert (draw(), draw()) == expected


def test_temporary_seeds_repeat_their_numbers_and_leave_no_trace() -> None:
    seed_all(7)
    draw()
    state = RNGState.capture()
    expected = draw()
    state.restore()
    with TemporarilySeeded(3):
        first = draw()
    assert draw() == expected
    with TemporarilySeeded(3):
        assert draw() == first


def test_seeds_of_places_differ() -> None:
    seeds = {seed_at(a, b, c) for a in range(3) for b in range(11) for c in range(11)}
    assert len(seeds) == 3 * 11 * 11
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_state_reads_back_from_a_file_without_code() -> None:
    state = ResumeState(
        phase=Phase.VAL_BATCH_LOAD,
        epoch=2,
        global_step=31,
        train=TrainMicroState(
            batch=7,
            window=3,
            window_total=64,
            window_count=torch.tensor(48.0),
            window_is_measured=True,
            recent_loss=1.5,
            recent_count=2,
            recent_others={"train_a": (torch.tensor(1.0).double(), 2)},
            epoch_others={"train_a": (3.0, 4)},
        ),
        val=ValMicroState(2, {"val_loss": torch.tensor(3.0).double()}, {"val_loss": 8.0}),
        rng=RNGState.capture(),
        timestamp=1735689600.5,
        metrics={"train_loss": float("nan")},
    )
    back = ResumeState()
    back.load(through_a_file(state.plain()), CPU)
    assert back.position() == state.position() == (Phase.VAL_BATCH_LOAD, 2, 31, 7, 2)
    assert isinstance(back.phase, Phase)
    assert back.train == state.train
    assert back.val == state.val
    assert (back.version, back.timestamp) == ("v2.0", 1735689600.5)


def test_a_time_that_an_earlier_version_saved_as_text_is_read_as_seconds() -> None:
    state = ResumeState()
    state.load(ResumeState().plain() | {"timestamp": "2025-01-01T00:00:00+00:00"}, CPU)
    assert state.timestamp == 1735689600
    state.load(ResumeState().plain() | {"timestamp": ""}, CPU)
    assert state.timestamp == 0


@pytest.mark.parametrize("found", [FORMAT - 2, FORMAT - 1, FORMAT + 1])
def test_a_checkpoint_of_another_format_is_refused_in_one_sentence(found: int) -> None:
    file = io.BytesIO()
    torch.save({"version": found}, file)
    file.seek(0)
    with pytest.raises(MtfError) as raised:
        snapshot.read(file)
    assert str(raised.value) == (
        f"the checkpoint has format {found}, and this mtf reads format {FORMAT}: install the"
        " version of mtf that wrote it"
    )


def test_a_checkpoint_whose_losses_were_summed_over_batches_is_read_between_epochs() -> None:
    old = {"recent_loss": 0.0, "recent_count": 0, "epoch_loss": 0.0, "epoch_count": 0, "offset": 0}
    plain = ResumeState(epoch=3).plain() | {"version": 2, "train": {"batch": 0, "window": 0, **old}}
    file = io.BytesIO()
    torch.save({"version": 2, "ranks": [plain]}, file)
    file.seek(0)
    state = ResumeState()
    state.load(snapshot.read(file)["ranks"][0], CPU)
    assert (state.epoch, state.version, state.train) == (3, "v2.0", TrainMicroState())
    plain["train"]["batch"] = 4
    file = io.BytesIO()
    torch.save({"version": 2, "ranks": [plain]}, file)
    file.seek(0)
    with pytest.raises(MtfError, match="has format 2, and this mtf reads format 3"):
        snapshot.read(file)


def test_validation_sums_weigh_batches_by_their_size() -> None:
    val = ValMicroState()
    val.add({"val_loss": (torch.tensor(30.0), 3.0)})
    val.add({"val_loss": (torch.tensor(2.0), 1.0)})
    assert val.pairs() == {"val_loss": (torch.tensor(32.0), 4.0)}


def test_the_means_of_an_epoch_do_not_depend_on_how_often_they_were_logged() -> None:
    often, never = TrainMicroState(), TrainMicroState()
    for loss, samples in ((1.0, 4), (2.0, 4), (6.0, 1)):
        others = {"train_a": (2 * loss, None)} if samples == 4 else {"train_b": (7.0, 3)}
        value = Loss(torch.tensor(loss), others=others)
        often.add(value, samples)
        never.add(value, samples)
        assert often.close_recent()["train_loss"] == (loss * samples, samples)
    assert often.epoch_sums() == never.epoch_sums() == never.epoch_sums()
    assert often.epoch_sums() == {
        "train_loss": (18.0, 9),
        "train_a": (24.0, 8),
        "train_b": (7.0, 3),
    }
