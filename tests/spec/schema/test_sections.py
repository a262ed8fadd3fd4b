"""The sections of an experiment: defaults, further keys, refused values, the job's config."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from mtf import rundir
from mtf.core.vocabulary.jobs import Resources
from mtf.spec.schema import sections
from mtf.spec.schema.run_config import ExperimentConfig
from mtf.spec.yaml.reader import load_yaml
from tests.spec.samples import EXPERIMENT, load, problems

RUN = {
    "run": "one/20250101T120000Z/01234567", "submission": "one/20250101T120000Z/01234567",
    "experiment": "one", "grid": None, "key": "k", "commit": "c", "code_dir": "/c",
    "manifest": "/c.json", "repository": "/r",
}  # fmt: skip


def resolved(text: str = "") -> dict[str, object]:
    loaded = load(one=EXPERIMENT + text)
    assert not loaded.problems, loaded.problems
    return dict(loaded.desired[0].experiments[0].config)


def slurm_problem(text: str) -> str:
    (problem,) = problems(one=f"{EXPERIMENT}slurm: {{{text}}}\n")
    return problem


def test_every_default_is_the_documented_one() -> None:
    assert resolved() == {
        "experiment_name": "one",
        "model": {
            "type": "mlp", "hidden_size": 512, "num_layers": 6, "dropout": 0.1,
            "activation": "relu",
        },
        "data": {
            "dataset_name": "digits", "train_split": "train", "val_split": "validation",
            "num_workers": 4, "pin_memory": True,
        },
        "training": {
            "max_epochs": 100, "batch_size": 32, "gradient_accumulation_steps": 1,
            "limit_train_batches": None, "limit_val_batches": None, "max_grad_norm": 1.0, "use_amp": True, "seed": 0, "max_grad_value": None,
            "on_nonfinite": None, "compile": False, "combine": None,
            "find_unused_parameters": False,
        },
        "optimizer": {"type": "adamw", "lr": 1e-4, "weight_decay": 0.01, "betas": [0.9, 0.999]},
        "scheduler": None,
        "init_from": None,
        "callbacks": {"early_stopping": None, "ema": None},
        "checkpoint": {
            "every_n_epochs": 1, "every_n_steps": None, "every_n_minutes": None, "keep_last": 3,
            "monitor": None, "mode": "min", "keep_best": 1, "on_error": "continue",
        },
        "logging": {
            "use_wandb": None, "wandb_project": None, "wandb_entity": None,
            "log_scalars_every_n_steps": 50, "tensorboard": False, "csv": False,
            "log_images_every_n_steps": 500, "log_gradients": False, "log_model_parameters": False,
            "log_histograms_every_n_steps": 500,
        },
        "slurm": {
            "partition": None, "account": None, "qos": None, "nodes": 1, "ntasks_per_node": 1,
            "gpus_per_node": 0, "cpus_per_task": 1, "mem": None, "time": None,
            "constraint": None, "reservation": None, "signal_lead": 90, "signal": "USR1",
            "requeue": True,
            "modules": [], "venv": None, "conda": None, "container": None, "variables": {},
            "extra": [],
        },
        "entrypoint": None,
    }  # fmt: skip


def test_the_slurm_section_is_what_executors_expect() -> None:
    section = resolved()["slurm"]
    assert isinstance(section, dict)
    assert section.keys() == Resources.__annotations__.keys()


def test_numbers_keep_their_type() -> None:
    config = resolved("optimizer: {lr: 1e-3, momentum: 1, eps: 1e-8, betas: [0, 0.5]}\n")
    text = '{"type": "adamw", "lr": 0.001, "weight_decay": 0.01, "betas": [0.0, 0.5], '
    assert json.dumps(config["optimizer"]) == text + '"momentum": 1, "eps": 1e-08}'


def test_further_keys_of_open_sections_are_kept() -> None:
    config = resolved("scheduler: {type: cosine, t_max: 5, nested: {a: [1, null]}}\n")
    assert config["scheduler"] == {"type": "cosine", "t_max": 5, "nested": {"a": [1, None]}}
    model = sections.ModelConfig.model_validate({"type": "x:Y", "heads": 4})
    assert model.further == {"heads": 4}


def test_trainer_is_an_alias_of_training() -> None:
    assert resolved("trainer: {max_epochs: 3}\n")["training"]["max_epochs"] == 3  # type: ignore[index]


def test_the_job_loads_what_was_resolved() -> None:
    config = resolved(
        "description: |\n  two\n  lines\nowner: me\nscheduler: {type: cosine, t: 1}\n"
    )
    text = rundir.render_yaml({**config, "mtf": RUN})
    value, _ = load_yaml(text.encode(), "config.yaml")
    loaded = ExperimentConfig.model_validate(value)
    assert loaded.mtf.code_dir == "/c"
    assert loaded.optimizer.betas == (0.9, 0.999)
    assert loaded.model_dump(mode="json", exclude={"mtf"}) == config


def test_a_config_without_its_run_is_refused() -> None:
    with pytest.raises(ValidationError, match="mtf"):
        ExperimentConfig.model_validate(resolved())


@pytest.mark.parametrize(
    ("text", "value"),
    [("90", "90"), ("'90'", "90"), ("00:10:00", "00:10:00"), ("'1-12:00:00'", "1-12:00:00"),
     ("1-12", "1-12"), ("10:00", "10:00"), ("UNLIMITED", "UNLIMITED"), ("'10:0'", "10:0"),
     ("7-0:0:0", "7-0:0:0"), ("infinite", "UNLIMITED"), ("-1", "UNLIMITED"), ("0", "UNLIMITED"),
     ("'0:00'", "UNLIMITED")],
)  # fmt: skip
def test_time_limits_are_accepted_as_slurm_writes_them(text: str, value: str) -> None:
    assert resolved(f"slurm: {{time: {text}}}\n")["slurm"]["time"] == value  # type: ignore[index]


@pytest.mark.parametrize(
    "text",
    [
        "partition: 'low\\n#SBATCH --wrap=x'", 'partition: "low\\n#SBATCH --array=1-9"',
        "partition: -low", "partition: 'low; rm -rf x'", "partition: ''", "account: '$(id)'",
        "qos: 'a b'", "time: 1h", "time: -5", "time: 1.5", "time: '1:2:3:4'", "mem: 2GiB", "mem: 2B",
        "mem: 1.5G", "mem: 2P", "mem: -1", "gpus_per_node: a100", "gpus_per_node: 'a b:1'",
        "gpus_per_node: 'a100:1 --x'", "gpus_per_node: true", "signal: TERM", "requeue: 'x y'", "mem: lots", "constraint: 'a; b'", "constraint: '--x'", "reservation: '`x`'",
        "venv: '~/venv'", "venv: '/a b'", "venv: '$HOME/x'", "conda: 'x;y'", "modules: ['a b']",
        "modules: ['-x']", "container: \"a'b\"", "extra: [exclusive]", "extra: ['-N 3']",
        "extra: ['--gres=gpu:1 --wrap=x']", 'extra: ["--exclusive\\n#SBATCH --array=1"]',
        "extra: ['--comment=x']", "extra: ['--arr=1-3']", "extra: ['--partition=x']",
        "extra: ['--err=x']", "variables: {'A B': x}", "variables: {MTF_TOKEN: x}",
        'variables: {A: "x\\ny"}', "variables: {A: true}", "variables: {A: null}", "nodes: 0",
        "cpus_per_task: -1", "gpus_per_node: -1", "signal_lead: 0", "requeue: yes",
    ],
)  # fmt: skip
def test_no_value_can_inject_text_into_a_job_script(text: str) -> None:
    assert slurm_problem(text).startswith("one.yaml:5:")


@pytest.mark.parametrize(
    ("text", "cure"),
    [("gpu:a100:2", "a100:2"), ("gres/gpu:a100=2", "a100:2"), ("a100", "a100:1"), ("gpu=4", "4")],
)
def test_gpus_as_gres_spells_them_get_the_spelling_to_write(text: str, cure: str) -> None:
    assert slurm_problem(f"gpus_per_node: '{text}'").endswith(f". Write {cure}")


@pytest.mark.parametrize(
    "text",
    [
        "partition: 'low,high'", "account: proj_1@site", "constraint: '[rack1|rack2]&a100*2'",
        "mem: 800M", "mem: 2048", "venv: .venv", "venv: /opt/venvs/x", "conda: torch-2.6",
        "container: 'docker://nvcr.io#nvidia/pytorch:24.01-py3'", "modules: [cuda/12.1, gcc]",
        "extra: ['--exclusive', '--gres=gpu:a100:2', '--exclude=node[1-3,5]', '--mem-per-cpu=1G']",
        "variables: {OMP_NUM_THREADS: 1, X: 'a b; $c', Y: ''}",
    ],
)  # fmt: skip
def test_common_values_of_clusters_are_accepted(text: str) -> None:
    assert problems(one=f"{EXPERIMENT}slurm: {{{text}}}\n") == []


@pytest.mark.parametrize(
    ("text", "value"),
    [("mem: 2g", "2G"), ("mem: 16GB", "16G"), ("mem: 0", "0"), ("mem: 2000M", "2000M"),
     ("gpus_per_node: 2", 2), ("gpus_per_node: '2'", 2), ("gpus_per_node: a100:2", "a100:2"),
     ("gpus_per_node: 'a100:1,h100:2'", "a100:1,h100:2"), ("gpus_per_node: 1g.5gb:3", "1g.5gb:3"),
     ("requeue: expedite", "expedite"), ("requeue: false", False), ("signal: USR2", "USR2")],
)  # fmt: skip
def test_amounts_and_choices_are_read_as_sbatch_takes_them(text: str, value: object) -> None:
    section = resolved(f"slurm: {{{text}}}\n")["slurm"]
    assert isinstance(section, dict)
    assert section[text.partition(":")[0]] == value


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("time: 24h", "Write 24:00:00"),
        ("time: 3 days", "Write 3-0"),
        ("time: 90min", "Write 90"),
        ("mem: 2GiB", "Write 2G"),
        ("requeue: always", "expected true, false or expedite"),
    ],
)
def test_a_spelling_that_sbatch_refuses_is_corrected(text: str, fix: str) -> None:
    assert fix in slurm_problem(text)


def test_a_refused_sbatch_option_names_the_key_to_use() -> None:
    assert slurm_problem("extra: ['--cpus=3']") == (
        'one.yaml:5:17: slurm.extra[0]: "--cpus=3" has a key of its own. Write slurm.cpus_per_task'
    )
    assert slurm_problem("extra: ['--output=x']") == (
        'one.yaml:5:17: slurm.extra[0]: "--output=x" is set by mtf itself. Remove it'
    )


@pytest.mark.parametrize("option", ["--ntasks=2", "--ntasks-per-gpu=2", "--ntasks-per-tres=gpu:2"])
def test_an_option_that_sets_the_number_of_processes_names_the_keys_to_use(option: str) -> None:
    assert slurm_problem(f"extra: ['{option}']") == (
        f'one.yaml:5:17: slurm.extra[0]: "{option}" sets the number of processes. Write slurm.nodes'
        " and slurm.ntasks_per_node"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("training: {batch_size: 0}", "5:24: training.batch_size: expected a number of at least "
         "1, got 0"),
        ("training: {batch_size: '32'}", '5:24: training.batch_size: expected an integer, got '
         '"32". Remove the quotes'),
        ("training: {max_epochs: 1e2}", "5:24: training.max_epochs: expected an integer, got "
         "100.0. Write 100"),
        ("training: {use_amp: yes}", '5:21: training.use_amp: expected true or false, got "yes"'),
        ("training: {max_epochs: true}", "5:24: training.max_epochs: expected an integer, got "
         "true"),
        ("training: {seed: -1}", "5:18: training.seed: expected a number of at least 0, got -1"),
        ("training: [1]", "5:11: training: expected a mapping, got [1]"),
        ("training:", "5:1: training: expected a mapping, got null"),
        ("optimizer: {lr: 0}", "5:17: optimizer.lr: expected a number greater than 0, got 0"),
        ("optimizer: {lr: fast}", '5:17: optimizer.lr: expected a number, got "fast"'),
        ("optimizer: {betas: [0.9, 1]}", "5:26: optimizer.betas[1]: expected a number less than 1, got 1"),
        ("scheduler: {t_max: 3}", "5:1: scheduler.type is missing"),
        ("scheduler: cosine", '5:12: scheduler: expected a mapping, got "cosine". Write {type: cosine}'),
        ("checkpoint: {mode: least}", "5:20: checkpoint.mode: expected 'min' or 'max', got "
         '"least"'),
        ("entrypoint: train.py", "5:13: entrypoint: expected an entry point like "
         'package.module:function, got "train.py"'),
        ("generation: 0", "5:13: generation: expected a number of at least 1, got 0"),
        ("rerun_on: src", '5:11: rerun_on: expected a list, got "src". Write ["src"]'),
        ("rerun_on: [../src]", "5:12: rerun_on[0]: expected a path in the repository, like "
         'src/models, got "../src"'),
        ("owner: 7", "5:8: owner: expected text, got 7. Put it in quotes"),
        ("sedd: 1", "5:1: unknown key 'sedd'. Known: callbacks, checkpoint, cluster, data, description, "
         "entrypoint, experiment_name, generation, init_from, kind, logging, model, on_change, optimizer, owner, "
         "rerun_on, scheduler, slurm, training"),
        ("defaults: [model: mlp]", "5:19: defaults: conf/model/mlp.yaml does not exist, nor does the "
         "folder conf/model"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_reported_at_its_position(text: str, problem: str) -> None:
    assert problems(one=f"{EXPERIMENT}{text}\n") == [f"one.yaml:{problem}"]


def test_keys_that_are_no_misspellings_go_to_the_model() -> None:
    text = EXPERIMENT.replace(
        "{type: mlp}",
        "{type: my.net:Net, hidden_sizes: [8], dropout2: 0.1, activations: gelu, heads: 2}",
    )
    assert problems(one=text) == []
