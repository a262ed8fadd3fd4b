"""Two real users of one run root, on a real cluster: nobody is in the other's way."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cli.lab import MODELS, spec, wait_until
from tests.other_users import GROUP, User, two_users

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that every user may look into, as they may not look into pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="mtf-two-users-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def users(cluster: Cluster, place: Path) -> Iterator[tuple[User, User]]:
    with two_users(place) as (ann, ben):
        for user in (ann, ben):
            cluster.run("sacctmgr", "-i", "add", "user", user.name, "account=root")
        yield ann, ben
        names = f"{ann.name},{ben.name}"
        cluster.run("scancel", f"--user={ann.name}")
        cluster.run("scancel", f"--user={ben.name}")
        wait_until(lambda: cluster.run("squeue", "-h", "-u", names) == "", lambda: "jobs")
        cluster.run("sacctmgr", "-i", "delete", "user", names)


def make_lab(place: Path, ann: User, ben: User) -> tuple[Path, Path]:
    """Return a clone of each user, of one remote and with one run root of their group."""
    for name in ("lab.git", "ann", "ben", "runs"):
        (place / name).mkdir()
        shutil.chown(place / name, (ben if name == "ben" else ann).name, GROUP)
        (place / name).chmod(0o2775)
    ann.run(place, "git", "init", "-q", "--bare", "--shared=group", "-b", "main", "lab.git")
    ann.run(place, "git", "clone", "-q", "lab.git", "ann")
    lab = place / "ann"
    settings = f"executor: slurm\nruns_root: {place}/runs\nretry: {{backoff: 0}}\n"
    files = {
        "mtf.yaml": settings,
        "models.py": MODELS,
        "experiments/long.yaml": spec("long", pause=0.05, epochs=5000),
    }
    for name, text in files.items():
        (lab / name).parent.mkdir(exist_ok=True)
        (lab / name).write_text(text)
    ann.run(lab, "sh", "-c", "git add . && git commit -qm one && git push -q origin HEAD:main")
    for path in lab.rglob("*"):
        os.chown(path, lab.stat().st_uid, lab.stat().st_gid, follow_symlinks=False)
    ben.run(place, "git", "clone", "-q", "lab.git", "ben")
    return lab, place / "ben"


def running(cluster: Cluster) -> str:
    """Return the users of the running jobs."""
    return cluster.run("squeue", "-h", "-t", "running", "-o", "%u").strip()


def test_two_users_train_cancel_continue_and_prune_each_others_runs(
    cluster: Cluster, place: Path, users: tuple[User, User]
) -> None:
    ann, ben = users
    anns, bens = make_lab(place, ann, ben)
    ann.mtf(anns, "sync")

    def checkpoints() -> int:
        return len(list(place.glob("runs/long/*/*/checkpoints/*.ckpt")))

    wait_until(lambda: checkpoints() > 0, lambda: ann.mtf(anns, "status"))
    ben.mtf(bens, "sync")
    assert running(cluster) == ann.name
    done = ben.mtf(bens, "cancel", "long")
    assert f"is {ann.name}'s, whose next mtf sync ends it" in done
    assert running(cluster) == ann.name  # SLURM lets only her
    ann.mtf(anns, "sync")
    wait_until(lambda: running(cluster) == "", lambda: running(cluster))

    def is_cancelled() -> bool:
        ben.mtf(bens, "sync")
        return "1 run: 1 cancelled" in ben.mtf(bens, "status")

    wait_until(is_cancelled, lambda: ben.mtf(bens, "status"))
    ben.mtf(bens, "retry", "long")
    wait_until(lambda: running(cluster) == ben.name, lambda: ben.mtf(bens, "status"))
    journal = next(place.glob("runs/long/*/*/journal.jsonl"))
    wait_until(lambda: journal.read_text().count('"started"') == 2, journal.read_text)
    assert '"resumed_from": "checkpoints/' in journal.read_text()
    log = subprocess.run(
        ["git", "-c", "safe.directory=*", "log", "--format=%an %s", "mtf/ledger"],
        cwd=place / "lab.git",
        capture_output=True,
        text=True,
    ).stdout
    assert f"{ben.name} mtf: cancel 1 run" in log
    assert f"{ben.name} mtf: continue 1 run" in log
    assert f"{ann.name} mtf: claim 1 run" in log

    # without its spec, she prunes what he runs
    gone = "git rm -q experiments/long.yaml && git commit -qm two && git push -q origin HEAD:main"
    ben.run(bens, "sh", "-c", gone)
    pruned = ann.mtf(anns, "sync", "--prune")
    assert f"is {ben.name}'s, whose next mtf sync ends it" in pruned
    assert "Synced: 1 pruned" in pruned
    assert running(cluster) == ben.name
    assert "--prune" not in ben.mtf(bens, "sync")  # which it was already
    wait_until(lambda: running(cluster) == "", lambda: running(cluster))


def test_a_private_run_is_left_alone_and_holds_up_nothing_of_others(
    cluster: Cluster, place: Path, users: tuple[User, User]
) -> None:
    ann, ben = (replace(user, umask="077") for user in users)
    anns, bens = make_lab(place, ann, ben)
    ann.mtf(anns, "sync")
    wait_until(lambda: bool(list(place.glob("runs/long/*/*/journal.jsonl"))), lambda: "no journal")
    private = f"{ann.name} keeps the folders of runs private, which are left alone: see mtf doctor"
    for command in ("plan", "sync", "status"):
        assert private in ben.mtf(bens, command)
    assert private in ben.mtf(bens, "logs", "long", code=1)
    assert private in ben.mtf(bens, "sync", "--prune")
    assert "max_epochs: 5000" in ben.mtf(bens, "show", "long")
    assert f"by {ann.name} alone" in ben.mtf(bens, "doctor", code=None)
    own = spec("own", epochs=1)
    (bens / "experiments/own.yaml").write_text(own)
    os.chown(bens / "experiments/own.yaml", bens.stat().st_uid, -1)
    ben.run(bens, "sh", "-c", "git add . && git commit -qm two && git push -q origin HEAD:main")
    assert "own: 1 run -> slurm" in ben.mtf(bens, "sync")  # with the checkout of both
    journal = "runs/own/*/*/journal.jsonl"
    wait_until(lambda: bool(list(place.glob(journal))), lambda: ben.mtf(bens, "status"))
    assert private in ben.mtf(bens, "sync")
