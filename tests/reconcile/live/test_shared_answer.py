"""The executors' newest answer, which all viewers of a clone share."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtf.core.vocabulary.ids import JobId, Token
from mtf.core.vocabulary.jobs import JobView
from mtf.core.vocabulary.states import JobState
from mtf.reconcile.live.shared_answer import Answer, SharedAnswer

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

TOKEN = Token("a" * 16)
VIEW = JobView(
    JobId("8_3"), TOKEN, 3, JobState.PENDING, "PENDING", "waits", "scontrol release 8_3",
    expected_at=datetime(2030, 1, 1, tzinfo=UTC), restarts=2,
)  # fmt: skip


class Executors:
    """Answers after a pause, and counts how often it was asked."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.asked = 0
        self._pause_s = pause_s

    def ask(self) -> Answer:
        self.asked += 1
        now = time.time()
        time.sleep(self._pause_s)
        return Answer(now, {"slurm": {(TOKEN, 3): VIEW}}, {"local": "is away"})


def test_a_viewer_that_keeps_looking_takes_an_answer_that_is_new_enough(tmp_path: Path) -> None:
    executors, shared = Executors(), SharedAnswer(tmp_path / "mtf")
    first = shared.newest(["q"], 60, executors.ask)
    again = SharedAnswer(tmp_path / "mtf").newest(["q"], 60, executors.ask)
    assert executors.asked == 1
    assert again == first  # with every field of the views


def test_one_look_never_takes_an_answer_from_before_it_began(tmp_path: Path) -> None:
    executors, shared = Executors(), SharedAnswer(tmp_path)
    shared.newest(["q"], 0, executors.ask)
    shared.newest(["q"], 0, executors.ask)
    assert executors.asked == 2


def test_an_answer_to_another_question_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executors, shared = Executors(), SharedAnswer(tmp_path)
    shared.newest(["q"], 60, executors.ask)
    shared.newest(["q", "a run more"], 60, executors.ask)
    monkeypatch.setenv("SLURM_CONF", "/of/another/cluster")
    shared.newest(["q", "a run more"], 60, executors.ask)
    assert executors.asked == 3


def test_many_viewers_that_come_at_once_ask_twice_at_most(tmp_path: Path) -> None:
    executors, shared = Executors(pause_s=0.3), SharedAnswer(tmp_path)
    answers: list[Answer] = []
    viewers = [
        threading.Thread(target=lambda: answers.append(shared.newest(["q"], 0, executors.ask)))
        for _ in range(12)
    ]
    for viewer in viewers:
        viewer.start()
    for viewer in viewers:
        viewer.join()
    assert len(answers) == 12
    assert executors.asked <= 2


def test_a_file_that_cannot_be_read_or_written_means_that_everybody_asks(tmp_path: Path) -> None:
    executors, shared = Executors(), SharedAnswer(tmp_path / "mtf")
    shared.newest(["q"], 60, executors.ask)
    (answer,) = (tmp_path / "mtf").glob("look-*.json")
    answer.write_text('{"key": 3')
    shared.newest(["q"], 60, executors.ask)
    (tmp_path / "file").touch()
    SharedAnswer(tmp_path / "file" / "mtf").newest(["q"], 60, executors.ask)
    assert executors.asked == 3
