"""The controller's loop: how long it waits after syncs that fail and syncs that succeed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf.commands.controller.watch_loop import watch
from mtf.project.project import open_project
from mtf.reconcile.gather import Options
from tests.repos import make_remote, make_repo

if TYPE_CHECKING:
    from pathlib import Path

INTERVAL_S = 0.2


@pytest.fixture(autouse=True)
def git_waits_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what `watch` sets where it is missing, so that it leaves the environment as it was."""
    for name in ("GIT_HTTP_LOW_SPEED_LIMIT", "GIT_HTTP_LOW_SPEED_TIME", "GIT_SSH_COMMAND"):
        monkeypatch.setenv(name, "1")


def waits(folder: Path, works: list[bool]) -> list[float]:
    """Return a controller's waits after its syncs; ``works`` says if each finds the remote."""
    repo = make_repo(folder / "lab", {"mtf.yaml": "executor: local\n", ".gitignore": "/runs/\n"})
    remote, away = make_remote(folder / "lab.git", repo), folder / "away.git"
    project = open_project(repo.path)
    left = iter(works)
    waited: list[float] = []
    is_new = False

    def pause(seconds: float) -> bool:
        nonlocal is_new
        if seconds == 0:  # a sync follows
            is_here = next(left, None)
            if is_here is None:
                return True
            if is_here != remote.exists():
                (away if is_here else remote).rename(remote if is_here else away)
            is_new = True
        elif is_new:
            waited.append(seconds)
            is_new = False
        return False

    watch(project, Options(), publish=True, interval_s=INTERVAL_S, say=lambda _: None, pause=pause)
    return waited


def test_the_wait_doubles_while_syncs_fail_and_a_sync_that_succeeds_resets_it(
    tmp_path: Path,
) -> None:
    found = waits(tmp_path, [True, False, False, False, True, False, True])
    expected = [1, 1, 2, 4, 1, 1, 1]
    assert [round(seconds / INTERVAL_S) for seconds in found] == expected
