"""What is said and recorded of a submission, whatever becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mtf.errors import (
    ExecutorUnavailableError,
    SubmissionRefusedError,
    SubmissionUncertainError,
)
from mtf.reconcile.handover import Handover
from mtf.reconcile.job_requests import make_batches
from tests.reconcile.test_job_requests import start, tokens

if TYPE_CHECKING:
    from pathlib import Path


class RaisingExecutor:
    """Stands for an executor whose submission raises an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def submit(self, *_: Any) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "outcome", "said"),
    [
        (SubmissionRefusedError("no QOS"), "refused", ["refused  grid: no QOS"] * 2),
        (
            SubmissionUncertainError("sbatch did not answer"),
            "uncertain",
            [
                "unclear  grid: sbatch did not answer. The next mtf sync checks for the jobs",
                "put off  grid: 1 run, for the same reason",
            ],
        ),
        (
            ExecutorUnavailableError("squeue: no route"),
            "put_off",
            [
                "put off  grid: squeue: no route. A later mtf sync submits it",
                "put off  grid: 1 run, for the same reason",
            ],
        ),
        (
            OSError(28, "No space left on device", "/runs"),
            "uncertain",
            ["failed   /runs: No space left on device. The next mtf sync tries again"] * 2,
        ),
    ],
)
def test_each_end_of_a_submission_is_said_and_noted_for_its_runs(
    error: Exception, outcome: str, said: list[str], tmp_path: Path
) -> None:
    """Two batches: after an executor that does not answer, the second one is not tried."""
    lines: list[str] = []
    starts = [start(tmp_path, 1), start(tmp_path, 2, mem="2G")]
    handover = Handover(tmp_path, lines.append)
    executor: Any = RaisingExecutor(error)
    for batch in make_batches(starts, 10, tokens()):  # type: ignore[arg-type]
        handover.submit(executor, batch, "#!/bin/sh\n")
    assert lines == said
    noted = getattr(handover, outcome)
    assert starts[0].run in noted
    assert {*handover.runs} == {s.run for s in starts}
    assert not handover.submitted
