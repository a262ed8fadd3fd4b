"""Set-up for all tests: isolation from the machine, order of the files, and skipped tests.

The tests start four kinds of processes:

- commands: ``tests.cli.mtf`` runs ``mtf`` in a fork of a server that has already imported it
  (``tests.fork_server``);
- trainings: forks of the test itself, which are stopped and killed (``tests.trainer.hard_training``), and
  ranks that are started like those of a job (``tests.trainer.ranks``);
- crash campaigns: ``tests.crash`` kills a sync at each of its effects, and syncs again;
- a private SLURM, for ``tests/slurm`` only: ``tests.slurm_cluster``.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadFileScheduling

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from xdist.remote import Producer

# On a busy machine, an example that takes long is not an error. CI tries the same examples in each
# run, so that a change is not blamed for what a new example finds; everywhere else looks on.
settings.register_profile(
    "mtf",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=os.environ.get("CI") == "true",
)
settings.load_profile("mtf")


# -- order -----------------------------------------------------------------------------------------

# Folders with slow files go first, so that no worker is left with one of them at the end.
_SLOW = (
    "tests/slurm/",
    "tests/crash/",
    "tests/trainer/",
    "tests/cli/",
    "tests/executor/",
    "tests/docs/",
)
_PAGES = "tests/docs/test_blocks.py::test_a_page_does_what_it_says"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests: folders with slow files first."""
    items.sort(key=lambda item: [not item.nodeid.startswith(folder) for folder in _SLOW])


class _FileScheduling(LoadFileScheduling):
    """Gives each worker whole files, with two exceptions.

    All tests on SLURM go to one worker, since they share a cluster. Each page of the docs goes to
    the next free worker: together they would keep one busy for minutes after the others.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/slurm/"):
            return "slurm"
        return nodeid if nodeid.startswith(_PAGES) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> _FileScheduling:
    """Hand out files in the order above, not those with most tests first."""
    config.option.loadscopereorder = False
    return _FileScheduling(config, log)


# -- skipped tests ---------------------------------------------------------------------------------

_MAY_SKIP_IN_CI = ("a disk can only be mounted by root",)  # not even by that of a container


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let a skipped test fail in CI, where every part must be installed."""
    report = yield
    is_skipped = report.skipped and not hasattr(report, "wasxfail")
    if is_skipped and os.environ.get("CI") == "true":
        reason = _skip_reason(report)
        if not any(allowed in reason for allowed in _MAY_SKIP_IN_CI):
            report.outcome, report.longrepr = "failed", f"must not be skipped in CI: {reason}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many tests were skipped, and why."""
    reports = terminalreporter.stats.get("skipped", [])
    for reason, count in sorted(Counter(map(_skip_reason, reports)).items()):
        tests = "test was" if count == 1 else "tests were"
        terminalreporter.write_line(f"{count} {tests} skipped: {reason}", yellow=True)


def _skip_reason(report: pytest.TestReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


# -- isolation -------------------------------------------------------------------------------------

_REMOVED = ("SLURM_", "SBATCH_", "MTF_", "GIT_", "WANDB_", "PYTHONPATH")


@pytest.fixture(autouse=True)
def sealed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Isolate each test: its own home and git identity, UTC, no editor, no prompt, no key of W&B.

    Also fail a test that changes the working directory and does not change it back.
    """
    home: Path = tmp_path_factory.mktemp("home")
    for name in list(os.environ):
        if name.startswith(_REMOVED) and name != "SLURM_CONF":
            monkeypatch.delenv(name)
    values = {
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / "config"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "Test",
        "GIT_AUTHOR_EMAIL": "test@localhost",
        "GIT_COMMITTER_NAME": "Test",
        "GIT_COMMITTER_EMAIL": "test@localhost",
        "GIT_EDITOR": "false",
        "EDITOR": "false",
        "TZ": "UTC",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    folder = os.getcwd()
    yield
    assert os.getcwd() == folder, "the test changed the working directory"
