"""`mtf controller`: what keeps `mtf sync --watch` running, checked by those who will run it."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cli.lab import make_lab
from tests.cli.mtf import mtf, mtf_json
from tests.cli.test_watch import wait_until

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name wants quoting everywhere."""
    there = tmp_path / "50% of $HOME's"
    there.mkdir()
    return there


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_takes_the_unit(folder: Path) -> None:
    lab = make_lab(folder, {})
    done = mtf(lab.path, "controller", "unit")
    unit = folder.parent / "mtf-lab.service"
    assert f"user/{unit.name}" in done.stderr
    unit.write_text(done.stdout)
    checked = subprocess.run(["systemd-analyze", "--user", "verify", str(unit)], capture_output=True, text=True)  # fmt: skip
    assert (checked.returncode, unit.name in checked.stderr) == (0, False), checked.stderr
    assert (
        f'"{str(lab.path).replace("%", "%%").replace("$", "$$")}" "sync" "--watch"' in done.stdout
    )


def test_the_crontab_line_starts_one_controller_from_an_empty_environment(folder: Path) -> None:
    lab = make_lab(folder, {})
    line = mtf(lab.path, "controller", "crontab").stdout.splitlines()[-1]
    fields, command = line.split(" flock ", 1)
    assert fields == "*/5 * * * *"
    shell = "flock " + command.replace(r"\%", "%")  # as cron does it
    home = {"HOME": str(folder), "LOGNAME": "me", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    log = lab.path / ".git" / "mtf" / "watch.log"
    cron = subprocess.Popen(["sh", "-c", shell], env=home)
    try:
        wait_until(lambda: mtf_json(lab.path, "controller", "status", "--json", code=None) != [], log.read_text)  # fmt: skip
        (standing,) = mtf_json(lab.path, "controller", "status", "--json")
        assert (standing["alive"], standing["cluster"]) == (True, "default")
        assert subprocess.run(["sh", "-c", shell], env=home).returncode == 1  # flock: one is there
        pid = standing["who"].rpartition(":")[2]
        subprocess.run(["kill", pid], check=True)
        assert cron.wait(60) == 0
    finally:
        cron.kill()
    assert "none (stopped:" in mtf(lab.path, "controller", "status", code=1).stdout
    assert [line.split(" ", 1)[1][:8] for line in log.read_text().splitlines()] == ["watching", "stopped "]  # fmt: skip
