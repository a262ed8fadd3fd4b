"""Job requests: grouped by resources, split at the cluster's limit; folders that jobs find."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from mtf.commands.batches import Start, make_batches, prepare_folders
from mtf.core.ids import CommitId, RunId, RunKey
from tests.executor.contract import resources

if TYPE_CHECKING:
    from pathlib import Path


def start(root: Path, number: int, mem: str = "1G", name: str = "grid") -> Start:
    run = RunId(f"{name}/20260101T120000Z/cccccccc/seed={number}")
    config = {"training": {"seed": number}, "slurm": dict(resources(mem=mem))}
    return Start(run, RunKey(str(number)), CommitId("c" * 40), name, config, 3, root)


def tokens() -> object:
    numbers = itertools.count()
    return lambda: f"{next(numbers):016x}"


def test_runs_of_equal_needs_share_a_request_and_others_get_their_own(tmp_path: Path) -> None:
    starts = [
        start(tmp_path, 1),
        start(tmp_path, 2, "2G"),
        start(tmp_path, 3),
        start(tmp_path, 4, name="other"),
    ]
    made = make_batches(starts, 1000, tokens())  # type: ignore[arg-type]
    assert [[s.config["training"]["seed"] for s in b.starts] for b in made] == [[1, 3], [2], [4]]
    assert len({b.request.token for b in made}) == 3
    assert [t.index for t in made[0].request.tasks] == [0, 1]
    assert made[0].request.max_parallel == 3


def test_a_group_above_the_array_limit_is_split(tmp_path: Path) -> None:
    made = make_batches([start(tmp_path, n) for n in range(25)], 10, tokens())  # type: ignore[arg-type]
    assert [len(b.starts) for b in made] == [10, 10, 5]
    assert all(t.index < 10 for b in made for t in b.request.tasks)


def test_a_task_finds_its_run_folder_and_configuration_by_its_index(tmp_path: Path) -> None:
    (batch,) = make_batches([start(tmp_path, 7), start(tmp_path, 8)], 10, tokens())  # type: ignore[arg-type]
    prepare_folders(batch, tmp_path / "repo")
    for index, one in batch.indices():
        found = tmp_path / "grid/20260101T120000Z/cccccccc/.jobs" / batch.request.token / str(index)
        assert found.resolve() == tmp_path / one.run
        assert f'run: "{one.run}"' in (found / "config.yaml").read_text()


def test_preparing_again_keeps_what_is_there(tmp_path: Path) -> None:
    (batch,) = make_batches([start(tmp_path, 7)], 10, tokens())  # type: ignore[arg-type]
    prepare_folders(batch, tmp_path / "repo")
    config = tmp_path / batch.starts[0].run / "config.yaml"
    inode = config.stat().st_ino
    prepare_folders(batch, tmp_path / "repo")
    assert config.stat().st_ino == inode
