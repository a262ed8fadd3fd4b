"""Seals every test: its own home, git identity, time zone; no editor, no prompt, no outside W&B."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# a busy machine is slow, not wrong
settings.register_profile("mtf", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mtf")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests on SLURM, which take longest and mostly wait."""
    items.sort(key=lambda item: item.get_closest_marker("slurm") is None)


_REMOVED = ("SLURM_", "SBATCH_", "MTF_", "GIT_", "WANDB_", "PYTHONPATH")


@pytest.fixture(autouse=True)
def sealed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Cut the test off from the machine it runs on, and fail it if it leaves its folder."""
    home: Path = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(_REMOVED) and name != "SLURM_CONF":
            monkeypatch.delenv(name)
    values = {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Test", "GIT_AUTHOR_EMAIL": "test@localhost",
        "GIT_COMMITTER_NAME": "Test", "GIT_COMMITTER_EMAIL": "test@localhost",
        "GIT_EDITOR": "false", "EDITOR": "false",
        "WANDB_MODE": "offline", "TZ": "UTC", "NO_COLOR": "1", "COLUMNS": "200",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    where = os.getcwd()
    yield
    assert os.getcwd() == where, "the test has left its folder"
