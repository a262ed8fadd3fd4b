"""The examples of the Python interface, each run as written, whatever the executor is.

`tests/framework/test_as_written.py` runs them with the local executor and `tests/slurm` with SLURM.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mtf import (
    ConfigurationError,
    ConfigValidator,
    ExecutionMode,
    ExperimentConfig,
    GridSearchExecutor,
    ModelConfig,
    ModelTrainingFramework,
    MtfError,
    OptimizerConfig,
    ParameterGrid,
    ParameterGridSearch,
    Run,
    SLURMConfig,
    SLURMLauncher,
    TrainerConfig,
    TrainingConfig,
)
from tests.cli.lab import SETTINGS, make_lab, push

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.repos import Repo

RESNET: dict[str, Any] = {
    "experiment_name": "resnet_baseline",
    "model": {"type": "resnet50", "num_classes": 1000},
    "training": {"max_epochs": 100, "batch_size": 64},
    "optimizer": {"type": "adamw", "lr": 1e-3},
}
JOB = "def main(run):\n    print('ran', run.config.model.type, run.config.optimizer.lr)\n"
# what runs without data: the entry point brings its own
OWN: dict[str, Any] = {**RESNET, "entrypoint": "job:main", "slurm": {"time": "00:05:00"}}


@dataclass(frozen=True)
class Lab:
    """A repository, opened, and where its runs go."""

    repo: Repo
    framework: ModelTrainingFramework
    mode: ExecutionMode

    @property
    def is_local(self) -> bool:
        return self.mode is ExecutionMode.LOCAL

    def ledger(self) -> str:
        return self.repo.git("for-each-ref", "--format=%(objectname)", "refs/heads/mtf/ledger")

    def config(self, name: str) -> ExperimentConfig:
        return self.framework.create_experiment({**OWN, "experiment_name": name})


def make(folder: Path, mode: ExecutionMode) -> Lab:
    settings = SETTINGS.replace("executor: local", f"executor: {mode.value}")
    repo = make_lab(folder, {}, settings=settings)
    push(repo, {"job.py": JOB})
    return Lab(repo, ModelTrainingFramework(Path(repo.path)), mode)


def a_framework_knows_its_repository(lab: Lab) -> None:
    assert lab.framework.project_root == lab.repo.path
    assert lab.framework.config_manager.list() == []
    assert lab.framework.launcher.project_root == lab.repo.path
    assert lab.framework.grid_search.launcher is lab.framework.launcher


def an_experiment_is_created_without_data_and_resolved(lab: Lab) -> None:
    config = lab.framework.create_experiment(RESNET)
    assert isinstance(config, ExperimentConfig)
    assert (config.experiment_name, config.model.type) == ("resnet_baseline", "resnet50")
    assert config.model.further == {"num_classes": 1000}
    assert (config.slurm, config.data) == (None, None)
    assert (config.training.max_epochs, config.training.batch_size) == (100, 64)
    assert config.optimizer.weight_decay == 0.01  # a default
    trainer = {
        **{k: v for k, v in RESNET.items() if k != "training"},
        "model": {"type": "resnet50", "hidden_size": 64},
        "trainer": RESNET["training"],
    }
    assert lab.framework.create_experiment(trainer).training == config.training


def what_cannot_train_says_so_when_it_is_to_run(lab: Lab) -> None:
    config = lab.framework.create_experiment(RESNET)
    before = lab.ledger()
    for mode in (lab.mode, ExecutionMode.DRY_RUN):
        with pytest.raises(ConfigurationError) as caught:
            lab.framework.run_single_experiment(config, mode=mode)
        lines = str(caught.value).splitlines()
        assert lines[0].startswith("data is missing. Add data.dataset_name, or an entrypoint")
        assert lines[1].startswith("model.type: unknown name 'resnet50'")
    assert lab.ledger() == before


def a_configuration_is_made_from_parts(lab: Lab) -> None:
    made = ExperimentConfig(
        experiment_name="parts",
        model=ModelConfig(type="resnet50", num_classes=1000),
        training=TrainingConfig(max_epochs=100, batch_size=64),
        optimizer=OptimizerConfig(type="adamw", lr=1e-3),
        entrypoint="job:main",
        slurm=SLURMConfig(time="00:05:00"),
    )
    same = {**OWN, "experiment_name": "parts"}
    run = lab.framework.run_experiment(made, local=lab.is_local)
    assert lab.framework.run_experiment(same, local=lab.is_local) == run
    assert TrainerConfig is TrainingConfig


def an_experiment_runs_and_is_its_job(lab: Lab) -> None:
    config = lab.config("single")
    result = lab.framework.run_single_experiment(config, mode=lab.mode)
    assert (result.experiment_name, result.success, result.reason) == ("single", True, "")
    run = lab.framework.run_experiment(config, local=lab.is_local)
    assert run == result.run
    assert run == result.job_id == str(run) == f"{run}"
    by_job: dict[str, int] = {run: 1}
    assert by_job[str(run)] == 1
    assert str(run) == run.job_id
    assert len(run.wait(0.2, progress=False).attempts) == 1
    assert run.state == "completed"


def a_grid_search_runs_all_members(lab: Lab) -> None:
    grid = (
        ParameterGrid("lr_search", "why")
        .add_parameter("optimizer.lr", [1e-3, 1e-2])
        .add_nested_parameter("optimizer.weight_decay", [0.0])
    )
    assert grid.parameters == {"optimizer.lr": [1e-3, 1e-2], "optimizer.weight_decay": [0.0]}
    assert grid.generate_permutations() == [
        {"optimizer.lr": 1e-3, "optimizer.weight_decay": 0.0},
        {"optimizer.lr": 1e-2, "optimizer.weight_decay": 0.0},
    ]
    assert [c.optimizer.lr for c in grid.generate_configs(OWN)] == [1e-3, 1e-2]

    planned = lab.framework.run_grid_search(OWN, [grid], mode=ExecutionMode.DRY_RUN)
    assert (len(planned), planned.best(), len(planned.failures)) == (2, None, 0)
    result = lab.framework.run_grid_search(OWN, [grid], local=lab.is_local)
    assert len(result) == 2
    assert all(isinstance(run, Run) for run in result)
    assert {record.state for record in result.wait(0.2, progress=False)} == {"completed"}
    assert (len(result.successes), result.failures) == (2, [])

    # the same members, one by one: they are the runs that there are already
    again = lab.framework.run_grid_search(lab.framework.create_experiment(OWN), [grid])
    assert again.ids == result.ids
    members = lab.framework.launcher.submit_experiments(grid.generate_configs(OWN))
    assert [run.id for run in members] == list(result.ids)


def a_search_generates_experiments_with_names(lab: Lab) -> None:
    search = ParameterGridSearch(OWN).add_grid("left", {"training.seed": [1, 2]})
    search.add_grid("right", {"optimizer.lr": [0.5]})
    configs = search.generate_experiments()
    names = [search.get_experiment_name(config) for config in configs]
    assert names == ["left/training.seed=1", "left/training.seed=2", "right/optimizer.lr=0.5"]
    (run,) = lab.framework.launcher.submit_experiments(configs[2:])
    assert (run.record.grid, run.record.experiment) == ("right", "optimizer.lr=0.5")


def the_parts_of_a_grid_search_work_together(lab: Lab) -> None:
    launcher = SLURMLauncher(project_root=lab.repo.path)
    executor = GridSearchExecutor(launcher, lab.framework.config_manager)
    grid = ParameterGrid("parts_of", {"training.seed": [5]})
    result = executor.execute_grid_search(lab.config("parts_base"), [grid], lab.mode)
    assert [record.experiment for record in result.records] == ["training.seed=5"]


def a_launcher_submits_batches(lab: Lab) -> None:
    launcher = SLURMLauncher(project_root=lab.repo.path)
    configs = [lab.config("first"), lab.config("second")]
    batch = launcher.submit_experiment_batch(configs)
    assert (batch.success, len(batch), batch.refused) == (True, 2, {})
    jobs = launcher.submit_experiments(configs)
    assert jobs == batch.job_ids
    assert len({*jobs}) == 2
    assert launcher.submit_single_experiment(configs[0]) in jobs


def a_dry_run_writes_nothing_and_shows_the_script(lab: Lab) -> None:
    before = lab.ledger(), sorted(p.name for p in lab.repo.path.glob("runs/*"))
    result = lab.framework.run_single_experiment(lab.config("dry"), mode=ExecutionMode.DRY_RUN)
    assert (result.run, result.job_id, result.success) == (None, None, True)
    assert result.run_id is not None
    assert result.script is not None
    assert "mtf.trainer" in result.script
    assert (lab.ledger(), sorted(p.name for p in lab.repo.path.glob("runs/*"))) == before


def bad_input_is_one_error_with_the_key(lab: Lab) -> None:
    before = lab.ledger()
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"model": {"type": dict}}, "model.type: .*got the class dict. Write package.module:Name"),
        ({"model": {"type": lambda: 1}}, "model.type: .*got the function"),
        ({"model": {"type": "mlp", "x": {1}}}, "model.x: .*a set.* Write a list"),
        ({"model": {"type": "mlp", 3: 4}}, "model: keys must be text, got 3"),
        ({"trainign": {}}, "Did you mean 'training'?"),
        ({"training": {"max_epochs": "3"}}, 'training.max_epochs: expected an integer, got "3"'),
        ({"optimizer": {"type": "adamw", "lr": float("nan")}}, "optimizer.lr: .*finite"),
        ({"experiment_name": "a b"}, "experiment_name: "),
        ({"entrypoint": "job:mian"}, "entrypoint: job:mian: "),
    )
    for change, message in wrong:
        with pytest.raises(MtfError, match=message):
            lab.framework.run_experiment({**OWN, "experiment_name": "wrong", **change})
    anything: Any
    for anything in (3, "resnet", None, [OWN]):
        with pytest.raises(MtfError, match="configuration: expected a mapping of keys, got"):
            lab.framework.create_experiment(anything)
    anything = "slrum"
    with pytest.raises(MtfError, match="mode: expected an ExecutionMode, got 'slrum'"):
        lab.framework.run_single_experiment(OWN, mode=anything)
    anything = 0.1
    with pytest.raises(MtfError, match=r"optimizer.lr: expected a list of values, got 0.1"):
        ParameterGrid("scalar").add_parameter("optimizer.lr", anything)
    with pytest.raises(MtfError, match=r"unknown key 'optimiser\.lr'. Did you mean"):
        lab.framework.run_grid_search(OWN, [ParameterGrid("g", {"optimiser.lr": [1]})])
    assert lab.ledger() == before


def resources_are_checked_only_where_there_is_a_cluster(lab: Lab) -> None:
    config = lab.config("checked")
    assert ConfigValidator.validate_config(config).is_valid
    assert ConfigValidator.validate_config(RESNET).is_valid
    check = ConfigValidator.check_resource_requirements(config)
    assert check.is_feasible is (None if lab.is_local else True)
    assert str(check).startswith("not checked" if lab.is_local else "feasible")


EXAMPLES: list[Callable[[Lab], None]] = [
    a_framework_knows_its_repository,
    an_experiment_is_created_without_data_and_resolved,
    what_cannot_train_says_so_when_it_is_to_run,
    a_configuration_is_made_from_parts,
    an_experiment_runs_and_is_its_job,
    a_grid_search_runs_all_members,
    a_search_generates_experiments_with_names,
    the_parts_of_a_grid_search_work_together,
    a_launcher_submits_batches,
    a_dry_run_writes_nothing_and_shows_the_script,
    bad_input_is_one_error_with_the_key,
    resources_are_checked_only_where_there_is_a_cluster,
]
