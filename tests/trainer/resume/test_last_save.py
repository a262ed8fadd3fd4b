"""The last save of a process, when an earlier one is still being written."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from mtf.trainer.storage.checkpoint_store import CheckpointStore
from tests.trainer.hard_training import COMPLETE, HARD, in_child
from tests.trainer.runs import events, make_run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_the_last_state_is_written_after_the_write_under_way_and_not_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path, base=HARD, training={"max_epochs": 1})
    save, under_way, lock = CheckpointStore.save, tmp_path / "under way", threading.Lock()

    def slowly(self: CheckpointStore, *args: Any, **facts: Any) -> Any:
        if lock.locked():
            under_way.touch()
        with lock:
            time.sleep(0.3)
            return save(self, *args, **facts)

    monkeypatch.setattr(CheckpointStore, "save", slowly)  # in the job: a fork of this process
    assert in_child(run) == COMPLETE
    assert not under_way.exists()
    steps = [event["step"] for event in events(run, "checkpoint")]
    assert len(steps) > 1
    assert steps == sorted(steps)
