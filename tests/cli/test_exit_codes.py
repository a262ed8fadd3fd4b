"""Exit codes and error messages of the `mtf` program itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.ids import CommitId
from mtf.git.repo import GitRepo
from mtf.ledger.store import Change, LedgerStore
from tests.cli.lab import wait_until
from tests.cli.mtf import mtf
from tests.cli.specs import SINGLE
from tests.core.planner.worlds import experiment, record
from tests.repos import Repo, make_repo

if TYPE_CHECKING:
    from pathlib import Path

ALONE = "experiments/alone.yaml"
UNUSUAL = SINGLE.replace("num_workers: 0", "num_workers: 64")
BROKEN = SINGLE.replace("max_epochs", "max_epoch")


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    return make_repo(tmp_path / "r", {"mtf.yaml": "", ALONE: SINGLE})


def add_run(repo: Repo) -> None:
    """Record a pending run in the ledger."""
    pin = CommitId(repo.git("rev-parse", "HEAD"))
    store = LedgerStore(GitRepo(repo.path), None)
    run = record(experiment(), f"alone/20260101T000000Z/{pin[:8]}", commit=pin)
    store.append(store.read(), Change(runs=(run,)), "one")


def test_an_error_beside_a_warning_exits_with_1(repo: Repo) -> None:
    repo.write({ALONE: UNUSUAL, "experiments/bad.yaml": BROKEN.replace("alone", "bad")})
    assert mtf(repo.path, "validate", code=1).stderr == "1 error, 1 warning in 3 files\n"


def test_a_sync_with_warnings_alone_submits_and_exits_with_0(repo: Repo) -> None:
    repo.commit({ALONE: UNUSUAL})
    assert "1 to submit" in mtf(repo.path, "sync", "--dry-run").stdout
    assert mtf(repo.path, "plan", "--base", "HEAD~1").stdout.count("warning: data.num_workers") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["statsu"], "No such command 'statsu'. Did you mean 'status'?"),
        (["status", "--jsn"], "No such option '--jsn'"),
        (["show"], "Missing argument 'RUN'."),
        (["plan", "--format", "xml"], "Invalid value for '--format': 'xml' is not one of"),
        (["validate", ALONE, "--staged"], "give files or one of --staged, --rev and --range"),
        (["validate", "--rev", "main", "--range", "a..b"], "not several"),
        (
            ["validate", "--staged", "--feasibility"],
            "--feasibility cannot be combined with --staged",
        ),
        (["sync", "--watch", "--wait", "--json"], "--wait, --json cannot be combined with --watch"),
        (["sync", "--interval", "0"], "Invalid value for '--interval'"),
        (["cancel"], "name a RUN, or select runs"),
        (["retry"], "name a RUN, or select runs"),
        (["retry", "--where", "cause=zzz"], "no cause 'zzz'"),
    ],
)
def test_a_wrong_command_line_exits_with_64_and_ends_in_the_error(
    args: list[str], message: str, repo: Repo
) -> None:
    done = mtf(repo.path, *args, code=64)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert done.stdout == ""


def test_without_a_command_the_help_is_shown(repo: Repo) -> None:
    assert "Look at runs:" in mtf(repo.path, code=64).stderr


def test_a_failure_exits_with_1_and_begins_with_error(tmp_path: Path) -> None:
    done = mtf(tmp_path, "status", code=1)
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""


def test_a_broken_spec_is_reported_by_its_place_alone(repo: Repo) -> None:
    repo.write({"mtf.yaml": "exekutor: local\n"})
    repo.git("commit", "-qam", "x")
    assert mtf(repo.path, "plan", code=1).stderr.startswith("mtf.yaml:1:1: ")


def test_ctrl_c_exits_with_130_and_no_traceback(repo: Repo, tmp_path: Path) -> None:
    add_run(repo)
    log = tmp_path / "stderr"
    # a shell starts background processes with INT ignored
    command = ["env", "--default-signal=INT", sys.executable, "-m", "mtf.cli", "status", "--watch"]
    with log.open("w") as stderr:
        process = subprocess.Popen(command, cwd=repo.path, stderr=stderr)
        wait_until(lambda: "1 pending" in log.read_text(), log.read_text)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert log.read_text().endswith("interrupted\n")
    assert "Traceback" not in log.read_text()


def test_a_closed_pipe_ends_a_command_quietly(repo: Repo) -> None:
    add_run(repo)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "mtf.cli", "status"]
    done = subprocess.run(command, cwd=repo.path, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_bug_prints_its_traceback_and_asks_for_a_report(repo: Repo) -> None:
    program = "import mtf.cli.main as m; m.cli.main = lambda **_: 1 / 0; m.main()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=repo.path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: this is a bug in mtf. Please report it")
