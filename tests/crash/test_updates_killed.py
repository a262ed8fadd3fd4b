"""A sync that withdraws waiting jobs, or lets runs follow a canary, is killed at its effects.

`python -m tests.soak.updates` does the same on SLURM, in every way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash import updates
from tests.executor.local.bench import end_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def base(tmp_path: Path) -> Iterator[updates.Base]:
    yield updates.Base(tmp_path)
    end_all(tmp_path)


def test_a_killed_update_of_a_waiting_run_is_completed_by_the_next_sync(
    base: updates.Base,
) -> None:
    assert len(updates.update_waiting(base)) > 1


def test_a_killed_withdrawal_after_too_many_failures_is_completed_by_the_next_sync(
    base: updates.Base,
) -> None:
    assert len(updates.hold_back(base)) > 1


def test_a_killed_sync_after_a_canary_submits_the_others_once(base: updates.Base) -> None:
    assert len(updates.follow_canary(base)) > 1
