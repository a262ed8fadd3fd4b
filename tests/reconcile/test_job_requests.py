"""Job requests: groups of runs, the limit of an array, and the files that jobs read."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from mtf import rundir
from mtf.core.vocabulary.ids import CommitId, JobId, RunId, RunKey
from mtf.reconcile.job_requests import Start, make_batches, prepare
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


def test_runs_that_need_equal_resources_share_a_job_request(tmp_path: Path) -> None:
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


def test_a_task_finds_its_configuration_by_its_index(tmp_path: Path) -> None:
    (batch,) = make_batches([start(tmp_path, 7), start(tmp_path, 8)], 10, tokens())  # type: ignore[arg-type]
    prepare(batch, tmp_path / "repo")
    job_dir = tmp_path / "grid/20260101T120000Z/cccccccc/.jobs" / batch.request.token
    for index, one in batch.indices():
        config = rundir.read_config(job_dir, index)
        assert config["training"] == one.config["training"]
        assert config["mtf"]["run"] == one.run
    with pytest.raises(ValueError, match="Expecting value"):
        rundir.read_config(job_dir, 2)


def test_the_number_of_files_of_a_request_does_not_depend_on_its_runs(tmp_path: Path) -> None:
    (batch,) = make_batches([start(tmp_path, n) for n in range(30)], 100, tokens())  # type: ignore[arg-type]
    prepare(batch, tmp_path / "repo")
    prepare(batch, tmp_path / "repo")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [rundir.CONFIGS]


def test_a_runs_folder_shows_its_configuration_script_and_output(tmp_path: Path) -> None:
    folder, job_dir, job = tmp_path / "run", tmp_path / "job", JobId("7_0")
    folder.mkdir()
    job_dir.mkdir()
    (job_dir / rundir.SCRIPT).write_text("#!/bin/sh")
    for err in (False, True):
        rundir.job_output(job_dir, job, err=err).write_text("said")
    for seed in (1, 1, 2):  # started, requeued, retried with another configuration
        rundir.fill_run_folder(folder, job_dir, job, {"training": {"seed": seed}})
        assert (folder / "config.yaml").read_text() == f"training:\n  seed: {seed}\n"
    with rundir.job_output(job_dir, job).open("a") as output:
        output.write(" more")
    assert (folder / "7_0.out").read_text() == "said more"
    assert (folder / "7_0.err").read_text() == "said"
    assert (folder / "7_0.sbatch").read_text() == "#!/bin/sh"
