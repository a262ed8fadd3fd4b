"""`mtf sync --watch`: the controller in a process of its own."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.cli.controllers import lease, watching
from tests.cli.lab import SETTINGS, make_lab, push, spec, stop_jobs, wait_until
from tests.cli.mtf import mtf
from tests.repos import git

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


NEVER = "3600"  # seconds between syncs: an earlier sync was caused by a moved branch


@pytest.fixture(autouse=True)
def stop_worker(tmp_path: Path) -> Iterator[None]:
    yield
    stop_jobs(tmp_path)


def test_a_moved_branch_is_synced_at_once_and_each_event_logged_once(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a", epochs=1)})
    with watching(lab.path, "--interval", "0.5") as controller:
        controller.wait_for("submit   a: 1 run")
        controller.wait_for("record   a: running -> completed")
    with watching(lab.path, "--interval", NEVER) as controller:
        wait_until(lambda: lease(tmp_path)["released"] is False, lambda: controller.output)
        push(lab, {"experiments/b.yaml": spec("b", pause=0.1, epochs=500)})
        controller.wait_for("submit   b: 1 run")
        push(lab, {"experiments/bad.yaml": "kind: experiment\n"})
        controller.wait_for("error: experiments/bad.yaml:1:1")
        push(lab, {"mtf.yaml": "exekutor: local\n", "experiments/c.yaml": spec("c")})
        controller.wait_for("error: nothing new is submitted")
        assert "submit   c" not in controller.output
        lab.git("rm", "-q", "experiments/bad.yaml")
        push(lab, {"mtf.yaml": SETTINGS})
        controller.wait_for("submit   c: 1 run")
        assert controller.stop() == 0
        log = controller.output.splitlines()
    broken = [line.split(" ", 1)[1] for line in log if "bad.yaml" in line]
    assert len(broken) == len(set(broken))
    assert "fixed: committed specs are valid again" in controller.output
    assert log[-1].endswith("stopped  the jobs go on")
    assert lease(tmp_path)["released"]


def test_only_one_controller_of_all_clones_serves_a_cluster(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {})
    git(tmp_path, "clone", "-q", str(tmp_path / "lab.git"), "other")
    with watching(lab.path, "--interval", NEVER) as controller:
        wait_until(lambda: lease(tmp_path) != {}, lambda: controller.output)
        second = mtf(tmp_path / "other", "sync", "--watch", code=4)
        assert f":{controller.process.pid} controls cluster default" in second.stderr
        assert str(lab.path) in second.stderr
        mtf(lab.path, "sync")  # a person may sync at any time
        mtf(tmp_path / "other", "sync")
        controller.process.kill()
        controller.process.wait()
    with watching(
        tmp_path / "other", "--interval", NEVER
    ) as heir:  # a dead holder is known at once
        wait_until(
            lambda: lease(tmp_path)["folder"] == str(tmp_path / "other"), lambda: heir.output
        )
        assert heir.stop(signal.SIGINT) == 0
    with watching(lab.path, "--interval", NEVER) as last:
        wait_until(lambda: lease(tmp_path)["folder"] == str(lab.path), lambda: last.output)
        assert last.stop(signal.SIGHUP) == 0


def test_a_failure_and_its_recovery_are_logged_once(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {})
    with watching(lab.path, "--interval", "0.2") as controller:
        wait_until(lambda: lease(tmp_path) != {}, lambda: controller.output)
        (tmp_path / "lab.git").rename(tmp_path / "away.git")
        controller.wait_for("the sync failed")
        lab.commit({"experiments/a.yaml": spec("a", epochs=1)})  # moves a branch: it tries again
        (tmp_path / "away.git").rename(tmp_path / "lab.git")
        lab.git("push", "-q", "origin", "main")
        controller.wait_for("submit   a: 1 run")
        assert controller.stop() == 0
    log = controller.output
    assert log.count("does not appear to be a git repository") == 1
    assert log.count("will be retried") == log.count(" recovered after ")
