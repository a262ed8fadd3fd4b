"""No test is skipped silently: each run says how many and why, and CI allows none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import slurm_cluster

ROOT = Path(__file__).parents[1]
TESTS = """
import pytest
def test_fine(): pass
def test_one(): pytest.skip("no test SLURM here: no munge")
def test_two(): pytest.skip("no test SLURM here: no munge")
def test_disk(): pytest.skip("a disk can only be mounted by root")
@pytest.mark.xfail(strict=True)
def test_known(): raise ValueError
"""


def run_pytest(tmp_path: Path, *options: str, ci: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "test_skips.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "--rootdir", "."]
    return subprocess.run(
        [*command, *options, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("options", [(), ("-n", "1")])
def test_a_run_ends_with_the_number_of_skipped_tests_and_the_reasons(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    done = run_pytest(tmp_path, *options, ci="")
    assert done.returncode == 0, done.stdout
    assert "2 tests were skipped: no test SLURM here: no munge\n" in done.stdout
    assert "1 test was skipped: a disk can only be mounted by root\n" in done.stdout
    assert "1 passed, 3 skipped, 1 xfailed" in done.stdout


def test_a_skipped_test_fails_in_ci_unless_it_needs_root(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, ci="true")
    assert done.returncode == 1
    assert "must not be skipped in CI: no test SLURM here: no munge" in done.stdout
    assert "2 failed, 1 passed, 1 skipped, 1 xfailed" in done.stdout


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Leave only these programs on PATH, and have the tests for SLURM lack a package."""
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(slurm_cluster, "PACKAGES", {"no-such-program": "no-such-package"})
    monkeypatch.setattr("os.getuid", lambda: 1000)


def test_packages_are_installed_with_sudo_where_it_asks_for_no_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    programs(tmp_path, monkeypatch, **{"apt-get": "", "sudo": f'echo "sudo $*" >> {log}'})
    slurm_cluster.install_packages()
    asked, installed = log.read_text().split("\n", 1)
    assert asked == "sudo -n true"
    assert installed.startswith("sudo -n sh -c ")
    assert installed.endswith(" install no-such-package\n")


@pytest.mark.parametrize("sudo", ["exit 1", None], ids=["asks for a password", "is missing"])
def test_without_root_and_sudo_the_reason_for_skipping_says_what_to_install(
    sudo: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path, monkeypatch, **{"apt-get": ""}, **({"sudo": sudo} if sudo else {}))
    with pytest.raises(slurm_cluster.ClusterError, match="run apt-get install no-such-package as"):
        slurm_cluster.install_packages()
