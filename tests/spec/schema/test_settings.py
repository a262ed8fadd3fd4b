"""mtf.yaml: defaults, errors, and the defaults of every spec's ``slurm``."""

from __future__ import annotations

import pytest

from mtf.errors import SpecError
from mtf.executor.local.machine_query import LocalLimits
from mtf.reconcile.executors import limits_of
from mtf.spec.schema.settings import Settings, merged_slurm, parse_settings


def problems(text: str) -> list[str]:
    with pytest.raises(SpecError) as raised:
        parse_settings(text.encode())
    return [str(problem) for problem in raised.value.problems]


@pytest.mark.parametrize("raw", [None, b"", b"# nothing yet\n"])
def test_an_empty_or_missing_file_gives_all_defaults(raw: bytes | None) -> None:
    settings = parse_settings(raw)
    assert settings == Settings()
    assert (settings.branch, settings.remote, settings.experiments) == (
        "main", "origin", "experiments",
    )  # fmt: skip
    assert (settings.runs_root, settings.executor, settings.cluster.name) == (
        "runs",
        "auto",
        "default",
    )
    assert (settings.local.max_parallel, settings.lease) == (2, 600)
    assert settings.retry.max_attempts == 3
    assert settings.retry.on == ["node-failure", "preempted", "time-limit"]
    assert settings.retry.backoff == 60
    assert settings.slurm_defaults() == {}


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("{}", LocalLimits(2)),
        ("{gpus: 2, cpus: 8, mem: 64G}", LocalLimits(2, 2, 8, 65536)),
        ("{gpus: [0, 3], mem: 0}", LocalLimits(2, ("0", "3"))),
        ("{gpus: [GPU-5c89-1, MIG-a1]}", LocalLimits(2, ("GPU-5c89-1", "MIG-a1"))),
        ("{gpus: 0}", LocalLimits(2, 0)),
    ],
)
def test_the_settings_say_what_the_local_executor_may_use(text: str, limits: LocalLimits) -> None:
    assert limits_of(parse_settings(f"local: {text}".encode()).local) == limits


@pytest.mark.parametrize("gpus", ["-1", "all", "[0, 0]", "[a b]", "1.5", "true", "'2'"])
def test_a_choice_of_gpus_that_is_none_is_refused(gpus: str) -> None:
    with pytest.raises(SpecError, match=r"local\.gpus"):
        parse_settings(f"local: {{gpus: {gpus}}}".encode())


@pytest.mark.parametrize("text", ["remote: none", "remote: null", "remote:"])
def test_none_and_null_mean_no_remote(text: str) -> None:
    assert parse_settings(text.encode()).remote is None


def test_only_keys_in_the_file_become_slurm_defaults() -> None:
    settings = parse_settings(
        b"slurm: {partition: low, variables: {A: 1}}\n"
        b"environment: {conda: x, modules: [cuda/12.1], variables: {A: 0, B: 2}}\n"
    )
    assert settings.slurm_defaults() == {
        "conda": "x",
        "modules": ["cuda/12.1"],
        "variables": {"A": "1", "B": "2"},
        "partition": "low",
    }


def test_a_venv_replaces_a_conda_environment() -> None:
    merged = merged_slurm({"conda": "x", "partition": "low"}, {"venv": "v"})
    assert merged == {"conda": None, "venv": "v", "partition": "low"}
    assert merged_slurm({"conda": "x"}, {"conda": None}) == {"conda": None}


def test_every_error_is_reported_at_its_position() -> None:
    assert problems(
        "branch: -x\npolices: {}\nretry: {on: [nodefailure], max_attempts: 0}\n"
        "policies: {max_gpus: 1}\nruns_root: ~/x\nslurm: {partitions: low}\nlease: 0\n"
        "environment: {venv: a, conda: b}\nexecutor: lokal\nbackoff: 3\n"
    ) == [
        'mtf.yaml:1:9: branch: expected a branch name, got "-x"',
        "mtf.yaml:2:1: unknown key 'polices'. Did you mean 'policies'?",
        "mtf.yaml:3:14: retry.on[0]: expected 'node-failure', 'preempted', 'time-limit', "
        "'host-oom', 'cuda-oom' or 'code-error', got \"nodefailure\"",
        "mtf.yaml:3:42: retry.max_attempts: expected a number of at least 1, got 0",
        "mtf.yaml:4:12: unknown key 'max_gpus' in policies. Did you mean 'max_gpu_hours'?",
        "mtf.yaml:5:12: runs_root: expected a folder without ~, $, %, quotes and backslashes, got "
        '"~/x". Write the whole path',
        "mtf.yaml:6:9: unknown key 'partitions' in slurm. Did you mean 'partition'?",
        "mtf.yaml:7:8: lease: expected a number of at least 1, got 0",
        "mtf.yaml:8:14: environment: venv and conda cannot be combined. Keep one of them",
        "mtf.yaml:9:11: executor: expected 'auto', 'slurm' or 'local', got \"lokal\"",
        "mtf.yaml:10:1: unknown key 'backoff'. Known: branch, cluster, clusters, environment, executor, "
        "experiments, lease, local, policies, remote, retry, runs_root, slurm",
    ]


@pytest.mark.parametrize(
    "branch", ["a..b", "a/", "/a", "a//b", "a.lock", "a/.b", "a b", "a.", "@{"]
)
def test_a_branch_name_that_git_refuses_is_refused(branch: str) -> None:
    assert "expected a branch name" in problems(f"branch: '{branch}'")[0]


@pytest.mark.parametrize("branch", ["main", "release/1.0", "a-b_c+d"])
def test_ordinary_branch_names_are_accepted(branch: str) -> None:
    assert parse_settings(f"branch: {branch}".encode()).branch == branch


@pytest.mark.parametrize("path", ["/x", "../x", "a/../b", "", "a//b", "./a"])
def test_the_folder_of_specs_must_be_in_the_repository(path: str) -> None:
    assert "expected a path in the repository" in problems(f"experiments: '{path}'")[0]


def test_a_file_without_a_mapping_is_refused() -> None:
    assert problems("hello") == ['mtf.yaml:1:1: expected a mapping, got "hello"']
    assert problems("branch: a\nbranch: b\n") == [
        "mtf.yaml:2:1: duplicate key 'branch', first used in line 1. Remove one"
    ]


FACTS = """\
cluster:
  name: big
  partitions:
    low: {default: true, time: 1-00:00:00, nodes: [{count: 2, cpus: 4, mem: 8G}]}
    gpu: {time: UNLIMITED, accounts: [lab], nodes: [{cpus: 64, mem: 512000, gpus: 8}]}
  accounts: [lab]
  max_array_size: 1001
"""


def test_a_cluster_is_given_by_its_name_or_by_a_section() -> None:
    assert parse_settings(b"cluster: big").cluster.name == "big"
    assert parse_settings(b"cluster: big").cluster.facts() is None
    facts = parse_settings(FACTS.encode()).cluster.facts()
    assert facts is not None
    low, gpu = facts.partitions
    assert (low.is_default, low.max_time_s, low.nodes[0].memory_mb) == (True, 86400, 8192)
    assert (gpu.max_time_s, gpu.accounts, gpu.nodes[0].gpus) == (None, frozenset({"lab"}), 8)
    assert facts.chosen(None) == [low]
    with pytest.raises(SpecError, match=r"mtf\.yaml:1:37: unknown key 'cpu'.*Did you mean 'cpus'"):
        parse_settings(b"cluster: {partitions: {a: {nodes: [{cpu: 1, mem: 1G}]}}}")
