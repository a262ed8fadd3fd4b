"""The private SLURM for the tests marked ``slurm``: started once, taken down at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.slurm_cluster import Cluster, ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator


_PREFIX, _OWNER = "mtf-slurm-", "owner.pid"


def _sweep() -> None:
    """Take down what a killed test run has left behind."""
    for owner in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_OWNER}"):
        if not Path(f"/proc/{owner.read_text()}").exists():
            Cluster(owner.parent).down()
            shutil.rmtree(owner.parent, ignore_errors=True)


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[Cluster]:
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
    folder.chmod(0o755)
    cluster = Cluster(folder)
    try:
        cluster.up()
        (folder / _OWNER).write_text(str(os.getpid()))
    except ClusterError as e:
        cluster.down()
        if os.environ.get("CI") == "true":
            pytest.fail(f"the test SLURM must start in CI: {e}")
        pytest.skip(f"no test SLURM here: {e}")
    yield cluster
    cluster.down()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(running_cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """The cluster, with nothing in its queue, as the one whose sbatch is on PATH."""
    monkeypatch.setenv("SLURM_CONF", str(running_cluster.conf))
    yield running_cluster
    running_cluster.run("scancel", "--user=root") if os.getuid() == 0 else running_cluster.run(
        "scancel", "--me"
    )
