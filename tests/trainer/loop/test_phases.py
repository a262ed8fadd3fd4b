"""Phases, table and handlers are one machine."""

from __future__ import annotations

import pytest

from mtf.trainer.loop.loop import HANDLERS
from mtf.trainer.loop.phases import CUTS, NEXT, REPLAYED, Phase
from tests.trainer.hard_training import HARD, train
from tests.trainer.runs import make_run


def test_phases_table_and_handlers_are_the_same_set() -> None:
    assert set(NEXT) == set(Phase)
    assert set(HANDLERS) == set(Phase) - {Phase.TRAINING_COMPLETE}
    assert frozenset().union(*NEXT.values()) == set(Phase) - {Phase.INIT}


def test_every_phase_leads_to_the_end() -> None:
    reach = {Phase.TRAINING_COMPLETE}
    while more := {p for p in Phase if NEXT[p] & reach} - reach:
        reach |= more
    assert reach == set(Phase)


def test_only_phases_that_need_a_batch_or_a_graph_are_not_cuts() -> None:
    assert set(Phase) == CUTS | REPLAYED
    assert {p for p in Phase if p.endswith(("_FORWARD", "_BACKWARD"))} <= REPLAYED


def test_an_illegal_next_phase_is_caught(tmp_path_factory: pytest.TempPathFactory) -> None:
    run = make_run(tmp_path_factory.mktemp("illegal"), base=HARD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(HANDLERS, Phase.TRAIN_BATCH_LOAD, lambda _: Phase.EPOCH_END)
        with pytest.raises(AssertionError, match="TRAIN_BATCH_LOAD -> EPOCH_END"):
            train(run)
