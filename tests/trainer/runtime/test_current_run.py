"""``current_run``: the same lines in a job and by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf import current_run
from tests.trainer.runs import Job, events, make_run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

SCRIPT = """
from mtf import current_run

def main(_):
    run = current_run()
    saved = run.resume()
    assert saved is None
    run.log({"train_loss": 0.5}, step=4, epoch=1)
    run.log({"val_loss": 0.25}, step=4)
    run.log(2, 8, {"val_loss": 0.125})
    run.checkpoint({"weight": 3.0}, step=8)
    run.stop_if_requested(2, 8)
    assert not run.stop_requested
"""


def test_in_a_job_it_is_the_run_of_the_job(tmp_path: Path) -> None:
    run = make_run(tmp_path, files={"lab.py": SCRIPT}, entrypoint="lab:main")
    code, output = Job(run).end()
    assert code == 0, output
    assert [(e["epoch"], e["step"], e["metrics"]) for e in events(run, "metrics")] == [
        (1, 4, {"train_loss": 0.5}),
        (1, 4, {"val_loss": 0.25}),
        (2, 8, {"val_loss": 0.125}),
    ]
    (saved,) = events(run, "checkpoint")
    assert (saved["epoch"], saved["step"]) == (2, 8)


def test_by_hand_it_prints_and_saves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = current_run()
    assert run.resume() is None
    run.log({"train_loss": 0.123456, "val_loss": 2}, step=4, epoch=1)
    run.checkpoint({"weight": 3.0}, step=8)
    run.stop_if_requested(1, 8)
    assert not run.stop_requested
    assert capsys.readouterr().out == (
        "epoch 1, step 4: train_loss 0.1235, val_loss 2\n"
        "step 8: no checkpoint outside of a job (it would hold weight)\n"
    )
    assert list(tmp_path.iterdir()) == []
