"""`mtf controller`: the systemd unit and the crontab line, checked by systemd and a shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.lab import make_lab, stop_jobs, wait_until
from tests.cli.mtf import mtf, mtf_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.repos import Repo


@pytest.fixture(autouse=True)
def stop_everything(tmp_path: Path) -> Iterator[None]:
    yield
    stop_jobs(tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder whose name must be quoted everywhere."""
    there = tmp_path / "50% of $HOME's"
    there.mkdir()
    return there


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(folder: Path) -> None:
    lab = make_lab(folder, {})
    done = mtf(lab.path, "controller", "unit")
    unit = folder.parent / "mtf-lab.service"
    assert f"user/{unit.name}" in done.stderr
    unit.write_text(done.stdout)
    checked = subprocess.run(
        ["systemd-analyze", "--user", "verify", str(unit)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder.parent)},
    )
    assert (checked.returncode, unit.name in checked.stderr) == (0, False), checked.stderr
    assert (
        f'"{str(lab.path).replace("%", "%%").replace("$", "$$")}" "sync" "--watch"' in done.stdout
    )


def test_the_crontab_line_starts_one_controller_from_an_empty_environment(folder: Path) -> None:
    lab = make_lab(folder, {})
    line = mtf(lab.path, "controller", "crontab").stdout.splitlines()[-1]
    fields, command = line.split(" flock ", 1)
    assert fields == "*/5 * * * *"
    shell = "flock " + command.replace(r"\%", "%")  # as cron does
    home = {"HOME": str(folder), "LOGNAME": "me", "SHELL": "/bin/sh", "PATH": "/usr/bin:/bin"}
    log = lab.path / ".git" / "mtf" / "watch.log"
    cron = subprocess.Popen(["sh", "-c", shell], env=home)
    try:
        wait_until(
            lambda: mtf_json(lab.path, "controller", "status", "--json", code=None) != [],
            log.read_text,
        )
        (standing,) = mtf_json(lab.path, "controller", "status", "--json")
        assert (standing["alive"], standing["cluster"]) == (True, "default")
        assert subprocess.run(["sh", "-c", shell], env=home).returncode == 1  # flock: one is there
        pid = standing["who"].rpartition(":")[2]
        subprocess.run(["kill", pid], check=True)
        assert cron.wait(60) == 0
    finally:
        cron.kill()
    assert "none (stopped:" in mtf(lab.path, "controller", "status", code=1).stdout
    assert [line.split(" ", 1)[1][:8] for line in log.read_text().splitlines()] == [
        "watching",
        "stopped ",
    ]


def test_doctor_reports_a_unit_without_a_running_controller(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {})
    assert controller_findings(lab) == []  # nobody has asked for one
    units = Path(os.environ["XDG_CONFIG_HOME"]) / "systemd" / "user"
    units.mkdir(parents=True)
    unit = mtf(lab.path, "controller", "unit").stdout
    (units / "mtf-lab.service").write_text(unit.replace(sys.executable, "/gone/bin/python"))
    found = controller_findings(lab)
    assert [f["severity"] for f in found] == ["error", "error", "warning", "warning"]
    assert "no controller serves default" in found[0]["what"]
    assert "/gone/bin/python, which does not exist" in found[1]["what"]
    assert found[2]["repair"] == "systemctl --user enable --now mtf-lab.service"
    assert found[3]["repair"] == "loginctl enable-linger"


def controller_findings(lab: Repo) -> list[dict[str, str]]:
    found = mtf_json(lab.path, "doctor", "--json", code=None)["findings"]
    return [f for f in found if f["theme"] == "controller"]
