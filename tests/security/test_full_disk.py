"""Disks that take no more: one sentence with the way out, the right cause, and nothing half-done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf import rundir
from mtf.core.vocabulary.causes import STORAGE_EXIT_CODE
from mtf.executor.local.job_process import launch, read_exit
from mtf.trainer.job import run_job
from tests.cli.lab import QUICK, SETTINGS, make_lab, runs, stop_jobs
from tests.cli.mtf import mtf
from tests.repos import Repo

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEC = QUICK.replace("kind: base", "kind: experiment\nexperiment_name: quick")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder with a file system of its own, of 4 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    stop_jobs(tmp_path)
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    file = folder / "fill"
    with file.open("wb", buffering=0) as f:
        for size in (65536, 4096, 1):
            try:
                while f.write(b"x" * size) == size:
                    pass
            except OSError:
                continue
    return file


JOURNAL = """\
import sys
from pathlib import Path
from mtf.trainer.storage.journal import Journal
journal = Journal(Path(sys.argv[1]))
journal.started(token="a" * 16)
journal.progress(1, 1, 2)
journal.metrics(1, 1, {"loss": 0.5})
try:
    journal.finished(1, 2, {})
except OSError:
    raise SystemExit(5)
"""


def test_a_training_goes_on_while_neither_journal_nor_output_can_be_written(tmp_path: Path) -> None:
    (tmp_path / rundir.JOURNAL).symlink_to("/dev/full")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", JOURNAL, str(tmp_path)], stdout=full, stderr=full
        )
    assert done.returncode == 5  # only its end cannot be left unsaid


def test_a_job_whose_run_folder_cannot_be_written_says_so_by_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MTF_TOKEN", "a" * 16)
    monkeypatch.setenv("MTF_JOB_ID", "7")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / rundir.CLAIMS).write_text("a file in place of the folder")
    assert run_job.main([str(tmp_path / "run")]) == STORAGE_EXIT_CODE
    assert "the run folder cannot be used" in capfd.readouterr().err


def test_the_exit_code_of_a_job_that_filled_the_disk_is_known(small: Path) -> None:
    script = small / "job.sh"
    script.write_text(f"cat /dev/zero > {small}/fill 2> /dev/null\nexit 42\n")
    base = small / "1.0"
    launch(base, str(script), small, (small / "out", small / "err"), dict(os.environ))
    end = time.monotonic() + 60
    while (found := read_exit(base)) is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert found[0] == 42
    assert os.statvfs(small).f_bavail == 0


def make_read_only(folder: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", str(folder)], check=True)


@pytest.mark.parametrize("how", ["full", "read-only"])
@pytest.mark.parametrize("where", ["clone", "run root", "remote"])
def test_a_sync_on_a_disk_that_takes_no_more_leaves_nothing_half_done(
    where: str, how: str, tmp_path: Path, small: Path
) -> None:
    settings = SETTINGS.replace("runs_root: runs", f"runs_root: {small}/runs")
    lab = make_lab(
        tmp_path, {"quick.yaml": SPEC}, settings=settings if where == "run root" else SETTINGS
    )
    if where == "clone":
        shutil.move(lab.path, small / "lab")
        lab = Repo(small / "lab")
        lab.git("remote", "set-url", "origin", str(tmp_path / "lab.git"))
    if where == "remote":
        shutil.move(tmp_path / "lab.git", small / "lab.git")
        lab.git("remote", "set-url", "origin", str(small / "lab.git"))
    filled = fill(small) if how == "full" else None
    if filled is None:
        make_read_only(small, "ro")
    done = mtf(lab.path, "sync", code=None)
    assert done.returncode in (1, 3)
    why, cure = {
        "full": ("No space left on device", "Free some space there"),
        "read-only": ("ead-only file system", "Make the file system writable"),
    }[how]
    if (where, how) == ("remote", "read-only"):  # its git says only this
        why, cure = "unable to create temporary object directory", "Make the remote writable"
    if where == "run root":
        cure = "The run root must have space and be writable"
    assert why in done.stderr + done.stdout
    if (where, how) == ("clone", "full"):
        assert f"error: {small}/lab/.git/mtf/" in done.stderr  # where to free space
    assert "this is a bug" not in done.stderr
    assert cure in done.stderr or (where, how) == ("run root", "full"), done.stderr
    if filled is None:
        make_read_only(small, "rw")
    else:
        filled.unlink()
    mtf(lab.path, "sync", "--wait", code=None)
    found = runs(lab)["quick"]
    jobs = [attempt["job_id"] for attempt in found["attempts"] if attempt["job_id"]]
    assert (found["state"], len(jobs)) == ("completed", 1)
    lab.git("fsck", "--strict")
