"""`mtf sync --wait`: all that was done until the end is reported, and runs that fail are an error."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.ids import name_of
from tests.cli.mtf import mtf
from tests.crash.repositories import grid, make_world
from tests.executor.local.bench import end_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.repos import Repo

WAIT = ("sync", "--wait", "--json", "--interval", "0.2")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Repo]:
    """A repository with a grid of two runs that were submitted."""
    lab = make_world(tmp_path, executor="local", remote=False)
    mtf(lab.path, "sync")
    yield lab
    end_all(tmp_path)


def test_a_sync_that_waits_reports_all_that_was_done_and_exits_with_3_if_a_run_failed(
    lab: Repo,
) -> None:
    fails = {"templates/local.sh.j2": "#!/bin/bash\nexit 1 # mtf.trainer\n"}
    lab.commit({**fails, "experiments/fails.yaml": grid("fails", seeds=1)})
    done = mtf(lab.path, *WAIT, code=3)
    assert "error: 1 of 3 runs did not complete (1 failed)" in done.stderr
    found = json.loads(done.stdout)
    named = {deed: sorted(map(name_of, found[deed])) for deed in ("submitted", "completed")}
    assert named == {"submitted": ["fails"], "completed": ["many", "many"]}
    ((run, why),) = found["failed"].items()
    assert (name_of(run), why != "") == ("fails", True)
    assert found["executor"] == "local"

    # the failure that an earlier sync has reported is none of a later one
    again = mtf(lab.path, *WAIT)
    assert json.loads(again.stdout)["failed"] == {}
