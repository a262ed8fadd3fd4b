"""The pages whose blocks need a cluster, run on the private SLURM."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import blocks, pages, run

if TYPE_CHECKING:
    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm
ON_SLURM = {page: [b for b in blocks(page) if b.is_run and b.marks == "slurm"] for page in pages()}


@pytest.mark.parametrize("page", [page for page, found in ON_SLURM.items() if found])
def test_a_page_does_what_it_says_on_a_cluster(page: str, cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    problems = run(ON_SLURM[page], folder, env, timeout=300)
    assert not problems, "\n\n".join(problems)
