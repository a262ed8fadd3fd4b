"""The examples of the Python interface on a real cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mtf import ExecutionMode
from tests.framework import as_written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm
_LABS: list[as_written.Lab] = []


@pytest.fixture
def lab(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> as_written.Lab:
    """Return the lab that all examples share; the first one makes it, in its environment."""
    if not _LABS:
        _LABS.append(as_written.make(tmp_path_factory.mktemp("lab"), ExecutionMode.SLURM))
    return _LABS[0]


@pytest.fixture(autouse=True, scope="module")
def forget() -> Iterator[None]:
    yield
    _LABS.clear()


@pytest.mark.parametrize("example", as_written.EXAMPLES, ids=lambda e: e.__name__)
def test_an_example_runs_as_written(
    lab: as_written.Lab, example: Callable[[as_written.Lab], None]
) -> None:
    example(lab)
