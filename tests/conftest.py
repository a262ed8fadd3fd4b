"""Seals every test: its own home, git identity, time zone; no editor, no prompt, no outside W&B."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from xdist.remote import Producer

# a busy machine is slow, not wrong
settings.register_profile("mtf", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("mtf")


# Begun first, so that no process is left alone with a long file at the end.
_LONG = ("tests/slurm/", "tests/crash/", "tests/trainer/", "tests/cli/", "tests/executor/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folders that take long."""
    items.sort(key=lambda item: [not item.nodeid.startswith(folder) for folder in _LONG])


class _ByFile(LoadFileScheduling):
    """Deals out files, and the tests on SLURM as if they were one file: they share a cluster."""

    def _split_scope(self, nodeid: str) -> str:
        return "slurm" if nodeid.startswith("tests/slurm/") else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _ByFile:
    """Deal out files in the order above, not those with most tests first."""
    config.option.loadscopereorder = False
    return _ByFile(config, log)


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
