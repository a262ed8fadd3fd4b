"""Records that a sync is about to write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.core.planner.plan import plan
from mtf.core.vocabulary.actions import Submit
from mtf.ledger import codec
from mtf.ledger.codec import DamagedRecordError, decode_submission, encode_submission
from mtf.reconcile import record_updates
from mtf.reconcile.claimant import Claimant
from mtf.reconcile.record_updates import submission_records, too_large
from tests.core.planner.worlds import COMMIT, NOW, POLICY, desired, experiment, world

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def submits(*sizes: int) -> Sequence[Submit]:
    members = [experiment(f"seed={i}", "many", note="x" * size) for i, size in enumerate(sizes)]
    found = plan(world(desired(*members)), POLICY, NOW).actions
    return [action for action in found if isinstance(action, Submit)]


def test_a_grid_whose_record_the_ledger_would_not_take_is_refused_at_its_spec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimant = Claimant("ann", NOW, COMMIT, "local", "default", 600.0, tmp_path)
    for module in (codec, record_updates):
        monkeypatch.setattr(module, "MAX_SUBMISSION", 5000)
    assert too_large(submits(10, 2000), claimant) == {}
    large = submits(3000, 3000)
    refused = too_large(large, claimant)
    assert set(refused) == {action.run for action in large}
    ((problem,), _) = refused.values()
    assert "many: the configurations of its 2 runs have more than 5,000 bytes" in problem.message
    (record,) = submission_records(large, claimant)
    with pytest.raises(DamagedRecordError, match="more than 5,000 bytes"):
        decode_submission(encode_submission(record))
