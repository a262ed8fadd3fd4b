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


_PREFIX = "mtf-slurm-"


def _sweep() -> None:
    """Stop clusters that killed test runs left behind; their folders' names contain the pids."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        if not Path("/proc", folder.name.removeprefix(_PREFIX).partition("-")[0]).exists():
            Cluster(folder).down()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[Cluster]:
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    folder.chmod(0o755)
    cluster = Cluster(folder)
    try:
        cluster.up()
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
    """The cluster with an empty queue, its sbatch on PATH."""
    monkeypatch.setenv("SLURM_CONF", str(running_cluster.conf))
    yield running_cluster
    running_cluster.run("scancel", "--me")
