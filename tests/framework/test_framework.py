"""`ModelTrainingFramework` as a script uses it: a real repository, real trainings."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from mtf.errors import MtfError, RepositoryError, SpecError
from mtf.framework import ModelTrainingFramework, ParameterGrid, Run, Submission
from tests.cli.lab import SETTINGS, make_lab, push, spec, stop_jobs
from tests.cli.mtf import mtf_json
from tests.repos import git, make_repo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BASE: dict[str, Any] = {
    "model": {"type": "mlp", "hidden_size": 16, "num_layers": 1},
    "data": {"dataset_name": "digits", "num_workers": 0},
    "training": {"max_epochs": 1, "use_amp": False, "seed": 0},
    "optimizer": {"type": "adamw", "lr": 1e-2},
    "checkpoint": {"monitor": "val_accuracy", "mode": "max"},
}
ENDLESS: dict[str, Any] = {
    **BASE,
    "experiment_name": "endless",
    "model": {"type": "models:Slow", "hidden_size": 8, "pause": 0.02},
    "training": {"max_epochs": 500, "use_amp": False},
    "logging": {"log_scalars_every_n_steps": 1},
}
RATES = ParameterGrid("rates", {"optimizer.lr": [1e-4, 1e-2, 1e-5]})  # the second is far better
ONE: dict[str, Any] = {"experiment_name": "one", **BASE}


SLURM = {
    "scontrol": "echo MaxArraySize = 1001",
    "squeue": "exit 0",
    "sacct": "exit 0",
}
ACCEPTS = "echo 1234"
REFUSES = "echo 'sbatch: error: Batch job submission failed: Invalid account' >&2; exit 1"


class Lab:
    """A repository of experiments, opened from Python, with a grid of three runs submitted."""

    def __init__(self, folder: Path, executor: str) -> None:
        settings = SETTINGS.replace("executor: local", f"executor: {executor}")
        self.repo = make_lab(folder, {}, settings=settings)
        self.framework = ModelTrainingFramework(self.repo.path)
        self.rates = self.framework.run_grid_search(BASE, [RATES])

    def ledger(self) -> str:
        return self.repo.git("rev-parse", "mtf/ledger")


_LABS: dict[str, Lab] = {}


def _shared(executor: str, factory: pytest.TempPathFactory) -> Lab:
    if executor not in _LABS:  # made by the first test that needs it, in its sealed environment
        _LABS[executor] = Lab(factory.mktemp(executor), executor)
    return _LABS[executor]


@pytest.fixture
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """Return a lab whose runs are trained here; all tests share it."""
    return _shared("local", tmp_path_factory)


@pytest.fixture
def queued(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Lab:
    """Return a lab whose runs wait in a SLURM queue for ever; all tests share it."""
    put_slurm_on_path(tmp_path, ACCEPTS, monkeypatch)
    return _shared("slurm", tmp_path_factory)


def put_slurm_on_path(folder: Path, sbatch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let shell scripts stand in for SLURM's programs."""
    for name, text in {**SLURM, "sbatch": sbatch}.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture(autouse=True, scope="module")
def stop_workers() -> Iterator[None]:
    yield
    for lab in _LABS.values():
        stop_jobs(lab.repo.path)
    _LABS.clear()


def wait_for(holds: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


# -- a grid search -------------------------------------------------------------------------------


def test_a_grid_search_trains_every_member(lab: Lab) -> None:
    records = lab.rates.wait(0.2)
    assert len(lab.rates) == len(records) == 3
    assert [r.state for r in records] == ["completed"] * 3
    assert [r.run for r in records] == list(lab.rates.ids)
    assert {r.parameters["optimizer.lr"] for r in records} == {1e-4, 1e-2, 1e-5}
    assert {r.grid for r in records} == {"rates"}
    assert {r.commit for r in records} == {lab.repo.git("rev-parse", "HEAD")}
    assert git(lab.repo.path.with_name("lab.git"), "rev-parse", "mtf/ledger") == lab.ledger()


def test_a_submission_has_a_handle_on_each_of_its_runs(lab: Lab) -> None:
    lab.rates.wait(0.2)
    handles = list(lab.rates)
    assert all(isinstance(run, Run) for run in handles)
    assert tuple(run.id for run in handles) == lab.rates.ids
    assert [run.record for run in handles] == lab.rates.records
    assert [run.state for run in handles] == ["completed"] * 3
    assert [run.metrics for run in handles] == [r.metrics for r in lab.rates.records]
    assert all("val_accuracy" in run.metrics for run in handles)


def test_the_best_run_is_the_one_with_the_best_monitored_value(lab: Lab) -> None:
    records = lab.rates.wait(0.2)
    best = lab.rates.best()
    assert best is not None
    assert best.parameters["optimizer.lr"] == 1e-2
    assert best.run == records[1].run  # not merely the first or the last
    assert best.metrics["val_accuracy"] == max(r.metrics["val_accuracy"] for r in records)


def test_what_has_been_submitted_is_not_submitted_again(lab: Lab) -> None:
    lab.rates.wait(0.2)
    before = lab.ledger()
    again = lab.framework.run_grid_search(BASE, [RATES])
    assert again.ids == lab.rates.ids
    assert lab.ledger() == before


def test_a_grid_that_has_grown_submits_its_new_members_alone(queued: Lab) -> None:
    grown = ParameterGrid("rates", {"optimizer.lr": [1e-4, 1e-2, 1e-5, 1e-3]})
    runs = queued.framework.run_grid_search(BASE, [grown])
    assert len(runs) == 4
    assert set(queued.rates.ids) < set(runs.ids)


def test_several_grids_are_one_submission(queued: Lab) -> None:
    others = [ParameterGrid(name, {"training.seed": [7]}) for name in ("left", "right")]
    runs = queued.framework.run_grid_search(BASE, [RATES, *others])
    assert {r.grid for r in runs.records} == {"rates", "left", "right"}
    assert len(runs) == 5


def test_a_submission_of_runs_without_checkpoints_has_no_best(lab: Lab) -> None:
    assert Submission(lab.framework.project, ()).best() is None


def test_all_options_of_a_grid_spec_can_be_given() -> None:
    grid = ParameterGrid("pairs", linked=[[{"optimizer.lr": 1, "training.seed": 3}]])
    added = grid.add_parameter("model.dropout", (0.1,)).add_parameter("model.hidden_size", [8])
    assert added is grid
    base = {"model": {"type": "mlp"}}
    assert grid.as_spec(base) == {
        "kind": "grid",
        "name": "pairs",
        "base": base,
        "parameters": {"model.dropout": [0.1], "model.hidden_size": [8]},
        "linked": [[{"optimizer.lr": 1, "training.seed": 3}]],
    }


def test_a_grid_keeps_its_own_copy_of_the_values() -> None:
    values = [1, 2]
    given = {"training.seed": values}
    grid = ParameterGrid("seeds", given).add_parameter("optimizer.lr", values)
    values.append(3)
    given["model.dropout"] = [5]
    assert grid.parameters == {"training.seed": [1, 2], "optimizer.lr": [1, 2]}


# -- one experiment ------------------------------------------------------------------------------


def test_an_experiment_has_every_default_resolved(lab: Lab) -> None:
    made = lab.framework.create_experiment(ONE)
    assert made.experiment_name == "one"
    assert made.optimizer.weight_decay == 0.01
    assert made.training.max_epochs == 1


def test_every_mistake_in_a_configuration_is_reported(queued: Lab) -> None:
    before = queued.ledger()
    wrong = {**ONE, "optimizer": {"type": "adamw", "lr": "fast"}, "trainign": {}}
    for use in (queued.framework.create_experiment, queued.framework.run_experiment):
        with pytest.raises(SpecError) as caught:
            use(wrong)
        problems = "\n".join(map(str, caught.value.problems))
        assert "optimizer.lr: " in problems
        assert "Did you mean 'training'?" in problems
    assert queued.ledger() == before


def test_a_created_experiment_and_its_configuration_are_the_same_run(queued: Lab) -> None:
    run = queued.framework.run_experiment(ONE)
    assert queued.framework.run_experiment(queued.framework.create_experiment(ONE)) == run
    assert run.record.experiment == "one"


def test_a_submission_is_pushed_at_once(queued: Lab) -> None:
    queued.framework.run_experiment({**ONE, "experiment_name": "pushed"})
    remote = queued.repo.path.with_name("lab.git")
    assert git(remote, "rev-parse", "mtf/ledger") == queued.ledger()


def test_another_value_is_another_run(queued: Lab) -> None:
    run = queued.framework.run_experiment(ONE)
    other = queued.framework.run_experiment({**ONE, "optimizer": {"type": "adamw", "lr": 2e-2}})
    assert other.id != run.id
    assert run.record.key != other.record.key


def test_waiting_for_a_run_ends_when_it_is_over(lab: Lab) -> None:
    run = lab.framework.run_experiment(ONE)
    record = run.wait(0.2)
    assert record.run == run.id
    assert record.state == run.state == "completed"
    assert record.metrics == run.metrics


def test_waiting_for_a_run_submits_nothing_else_that_is_committed(tmp_path: Path) -> None:
    repo = make_lab(tmp_path, {"other.yaml": spec("other")})
    lab = ModelTrainingFramework(repo.path)
    try:
        assert lab.run_experiment(ONE).wait(0.2).state == "completed"
        assert [record.experiment for record in lab.status()] == ["one"]
    finally:
        stop_jobs(tmp_path)


def test_a_run_is_pinned_to_what_is_checked_out(queued: Lab) -> None:
    queued.repo.git("checkout", "-q", "-b", "idea")
    try:
        head = queued.repo.commit({"notes.txt": "another commit"})
        run = queued.framework.run_experiment({**ONE, "experiment_name": "pinned"})
        assert run.record.commit == head
    finally:
        queued.repo.git("checkout", "-q", "main")


def test_a_running_run_shows_its_progress_before_any_sync(lab: Lab) -> None:
    run = lab.framework.run_experiment(ENDLESS)
    before = lab.ledger()
    wait_for(lambda: (run.record.step or 0) > 0)
    (listed,) = (r for r in lab.framework.status() if r.run == run.id)
    (selected,) = Submission(lab.framework.project, (run.id,)).records
    assert (listed.step or 0) > 0
    assert (selected.step or 0) > 0
    assert lab.ledger() == before

    lab.rates.wait(0.2)  # waits for its own runs alone
    assert not run.record.is_over
    run.cancel()
    assert run.wait(0.2).state == run.state == "cancelled"
    assert lab.framework.run_experiment(ENDLESS) == run
    assert run.state == "cancelled"


def test_pruning_leaves_runs_from_python_alone(queued: Lab) -> None:
    queued.framework.run_experiment(ONE)
    planned = mtf_json(queued.repo.path, "plan", "--prune", "--format", "json")
    assert not [a for a in planned["actions"] if a["action"] == "cancel"]


def test_status_returns_every_run_of_the_ledger(queued: Lab) -> None:
    run = queued.framework.run_experiment(ONE)
    listed = {record.run for record in queued.framework.status()}
    assert {run.id, *queued.rates.ids} <= listed


def test_a_run_to_begin_from_must_exist(queued: Lab) -> None:
    before = queued.ledger()
    with pytest.raises(MtfError, match=r"^tuned .*'raets'\. Did you mean 'rates'\?"):
        queued.framework.run_experiment({**ONE, "experiment_name": "tuned", "init_from": "raets"})
    assert queued.ledger() == before


# -- where runs go -------------------------------------------------------------------------------


@pytest.fixture
def refusing_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_slurm_on_path(tmp_path, REFUSES, monkeypatch)


@pytest.mark.usefixtures("refusing_slurm")
def test_what_the_cluster_refuses_is_raised_for_every_run(tmp_path: Path) -> None:
    lab = ModelTrainingFramework(make_lab(tmp_path, {}).path)
    with pytest.raises(MtfError) as caught:
        lab.run_grid_search(BASE, [RATES], local=False)
    lines = str(caught.value).splitlines()
    assert [line.split("/")[0] for line in lines] == ["rates"] * 3
    assert all("Invalid account" in line for line in lines)
    assert {(r.executor, r.state) for r in lab.status()} == {("slurm", "failed")}


@pytest.mark.usefixtures("refusing_slurm")
@pytest.mark.parametrize(
    ("setting", "local", "executor"),
    [
        ("local", None, "local"),
        ("slurm", None, "slurm"),
        ("slurm", True, "local"),
        ("local", False, "slurm"),
    ],
)
def test_the_executor_is_the_one_asked_for_else_the_settings(
    tmp_path: Path, setting: str, local: bool | None, executor: str
) -> None:
    settings = SETTINGS.replace("executor: local", f"executor: {setting}")
    lab = ModelTrainingFramework(make_lab(tmp_path, {}, settings=settings).path)
    with suppress(MtfError):  # SLURM refuses
        lab.run_experiment(ENDLESS, local=local)
    stop_jobs(tmp_path)
    assert [r.executor for r in lab.status()] == [executor]


# -- the repository ------------------------------------------------------------------------------


def test_a_sync_submits_what_is_committed_and_names_what_is_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    specs = {
        "good.yaml": spec("good", pause=0.05, epochs=500),
        "tuned.yaml": f"{spec('tuned')}init_from: good\n",
    }
    repo = make_lab(tmp_path, specs)
    push(repo, {"experiments/broken.yaml": spec("broken").replace("lr: 1e-2", "lr: fast")})
    lab = ModelTrainingFramework(repo.path)
    try:
        with pytest.raises(SpecError) as caught:
            lab.sync()
        assert {p.path for p in caught.value.problems} == {"experiments/broken.yaml"}
        assert [r.experiment for r in lab.status()] == ["good"]
        repo.git("rm", "-q", "experiments/broken.yaml")
        push(repo, {})
        with caplog.at_level("INFO", "mtf"):
            found = lab.sync()
        assert not {"submitted", "failed"} & found.counts.keys()
        assert found.waiting == 1
        assert any(m.startswith("note: tuned waits for good") for m in caplog.messages)
        assert [r.experiment for r in lab.status()] == ["good"]
        ours, theirs = (
            git(r, "rev-parse", "mtf/ledger") for r in (repo.path, tmp_path / "lab.git")
        )
        assert ours == theirs
    finally:
        stop_jobs(tmp_path)


def test_settings_and_config_groups_are_those_committed(tmp_path: Path) -> None:
    pytest.importorskip("hydra")
    repo = make_repo(
        tmp_path,
        {
            "mtf.yaml": "executor: local\nslurm: {mem: 3G}\n",
            "conf/optimizer/quick.yaml": "type: sgd\nlr: 0.25\n",
        },
    )
    repo.write({"mtf.yaml": "slurm: {mem: 5G}\n", "conf/optimizer/quick.yaml": "lr: 0.5\n"})
    without = {key: value for key, value in ONE.items() if key != "optimizer"}
    chosen = {"defaults": [{"optimizer": "quick"}, "_self_"], **without}
    made = ModelTrainingFramework(repo.path).create_experiment(chosen)
    assert made.slurm is None  # it gives none itself
    assert (made.optimizer.type, made.optimizer.lr) == ("sgd", 0.25)
    given = ModelTrainingFramework(repo.path).create_experiment({**chosen, "slurm": {"nodes": 2}})
    assert given.slurm is not None
    assert (given.slurm.mem, given.slurm.nodes) == ("3G", 2)


def test_a_repository_opens_from_any_folder_in_it(tmp_path: Path) -> None:
    repo = make_repo(tmp_path, {"mtf.yaml": "executor: local\n", "a/b/c.txt": ""})
    assert ModelTrainingFramework(str(tmp_path / "a" / "b")).project.repo.root == repo.path
    assert ModelTrainingFramework(tmp_path).status() == []


@pytest.mark.parametrize("is_empty_repository", [False, True])
def test_a_folder_without_a_commit_is_refused(tmp_path: Path, is_empty_repository: bool) -> None:
    if is_empty_repository:
        make_repo(tmp_path)
    with pytest.raises(RepositoryError):
        ModelTrainingFramework(tmp_path)
