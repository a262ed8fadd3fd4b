"""Loading the specs of a commit: all errors at once, bases by path, names, ``init_from``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.core.vocabulary.experiments import run_key
from mtf.spec.grid.naming import parse_experiment_name
from mtf.spec.load import load_some, load_specs
from mtf.spec.schema.dotted_keys import SECTIONS
from mtf.spec.schema.settings import Settings, parse_settings
from tests.spec.samples import BASE, EXPERIMENT, STAMP, load, problems

GRID = "kind: grid\nname: g\nbase: base.yaml\nparameters: {optimizer.lr: [0.1, 0.2]}\n"
EXAMPLES = Path(__file__).parents[2] / "experiments"


def test_an_experiment_is_loaded_with_its_control_keys() -> None:
    (one,) = load(
        one=EXPERIMENT + "cluster: big\ngeneration: 3\nrerun_on: [src/models]\non_change: cancel\n"
    ).desired
    (experiment,) = one.experiments
    assert (one.name, one.path) == ("one", "experiments/one.yaml")
    assert (one.cluster, one.max_parallel, one.on_change) == ("big", None, "cancel")
    (kept,) = load(one=EXPERIMENT).desired
    assert kept.on_change == "keep"
    assert kept.experiments[0].config == experiment.config  # no part of a run's key
    assert (experiment.name, experiment.grid, experiment.parameters) == ("one", None, {})
    assert (experiment.generation, experiment.rerun_on) == (3, ("src/models",))
    assert experiment.resources == experiment.config["slurm"]


IDENTITY = {
    "model": "{type: mlp, heads: 3}",
    "data": "{dataset_name: digits, num_workers: 3}",
    "training": "{max_epochs: 3}",
    "optimizer": "{lr: 0.5}",
    "scheduler": "{type: cosine}",
    "init_from": "other",
    "callbacks": "{ema: {}}",
}
EXECUTION = {
    "checkpoint": "{every_n_steps: 3, keep_last: 9, monitor: val_accuracy, mode: max}",
    "logging": "{csv: true}",
    "slurm": "{mem: 2G, time: 30, requeue: false}",
}


@pytest.mark.parametrize(("section", "value"), [*IDENTITY.items(), *EXECUTION.items()])
def test_a_runs_identity_leaves_out_checkpoint_logging_and_slurm(section: str, value: str) -> None:
    lines = [line for line in EXPERIMENT.splitlines() if not line.startswith(section)]
    (before,) = load(one=EXPERIMENT).desired
    (after,) = load(one="\n".join([*lines, f"{section}: {value}", ""])).desired
    one, other = before.experiments[0], after.experiments[0]
    assert one.config[section] != other.config[section]
    assert (run_key(one, {}) == run_key(other, {})) == (section in EXECUTION)


def test_the_identity_is_tested_for_every_section() -> None:
    assert {*IDENTITY, *EXECUTION} == SECTIONS.keys()


def test_only_yaml_files_are_specs_and_a_base_does_not_run() -> None:
    files = {
        "experiments/base.yaml": BASE.encode(),
        "experiments/sub/g.yml": GRID.replace("base.yaml", "../base.yaml").encode(),
        "experiments/README.md": b"# not a spec",
        "experiments/net.py": b"import this",
    }
    loaded = load_specs(files, Settings(), STAMP)
    assert not loaded.problems
    assert [one.path for one in loaded.desired] == ["experiments/sub/g.yml"]


def test_slurm_settings_are_defaults_of_the_slurm_section() -> None:
    settings = (
        "slurm: {partition: low, mem: 1G, variables: {A: 1}}\n"
        "environment: {conda: c, variables: {A: 0, B: 2}}\n"
    )
    slurm = "slurm: {mem: 2G, venv: v, variables: {C: 3}}\n"
    one, grid = (
        desired.experiments[0].resources
        for desired in load(
            settings,
            a=EXPERIMENT + slurm,
            base=BASE + slurm,
            g=GRID + "linked: [[{slurm.mem: 4G}]]\n",
        ).desired
    )
    for resources in (one, grid):
        assert resources["partition"] == "low"
        assert (resources["venv"], resources["conda"]) == ("v", None)
        assert resources["variables"] == {"A": "1", "B": "2", "C": "3"}
    assert (one["mem"], grid["mem"]) == ("2G", "4G")


def test_specs_without_errors_are_resolved_beside_others() -> None:
    loaded = load(bad="kind: experiment\n", good=EXPERIMENT, worse="a: [", base=BASE, g=GRID)
    assert [one.name for one in loaded.desired] == ["g", "one"]
    assert {p.path for p in loaded.problems} == {"experiments/bad.yaml", "experiments/worse.yaml"}


def test_every_error_of_every_file_is_reported_in_file_order() -> None:
    assert problems(
        a="kind: experimnt\nexperiment_name: a/b\nmodel: {type: mlp}\nmodle: {}\n"
        "data: {dataset_name: d, dataset_name: e}\ntraining: {seed: x}\n",
        b="",
        c="- 1\n",
        d="experiment_name: d\nmodel: {}\n",
        e="kind: experiment\n  bad: indent\n",
    ) == [
        'a.yaml:1:7: kind: expected experiment, grid or base, got "experimnt". Did you mean '
        "'experiment'?",
        'a.yaml:2:18: experiment_name: "a/b" must begin with a letter or digit and contain only '
        "letters, digits, '.', '_' and '-'",
        "a.yaml:4:1: unknown key 'modle'. Did you mean 'model'?",
        "a.yaml:5:25: duplicate key 'dataset_name', first used in line 5. Remove one",
        'a.yaml:6:18: training.seed: expected an integer, got "x"',
        "b.yaml:1:1: the file is empty. Write kind: experiment or kind: grid",
        "c.yaml:1:1: expected a mapping of keys, got [1]. Begin with kind: experiment",
        "d.yaml:1:1: data is missing. Add data.dataset_name, or an entrypoint that needs none",
        "d.yaml:1:1: kind is missing. Write kind: experiment, kind: grid or kind: base",
        "d.yaml:2:1: model.type is missing",
        "e.yaml:2:6: invalid YAML: mapping values are not allowed here",
    ]


def test_two_specs_of_one_name_are_reported_at_both_and_neither_runs() -> None:
    loaded = load(base=BASE, a=EXPERIMENT.replace("one", "g"), g=GRID, z=EXPERIMENT)
    assert [str(p).removeprefix("experiments/") for p in loaded.problems] == [
        "a.yaml:2:18: the name 'g' is also used by experiments/g.yaml. Rename one",
        "g.yaml:2:7: the name 'g' is also used by experiments/a.yaml. Rename one",
    ]
    assert [one.name for one in loaded.desired] == ["one"]


def test_a_spec_with_errors_still_uses_its_name() -> None:
    found = problems(a=EXPERIMENT + "sedd: 1\n", b=EXPERIMENT)
    assert found[-1].startswith("b.yaml:2:18: the name 'one' is also used by")


def test_a_missing_base_is_reported_with_the_nearest_path() -> None:
    assert problems(basis=BASE, g=GRID.replace("base.yaml", "bases.yaml")) == [
        "g.yaml:3:7: base: the file experiments/bases.yaml does not exist. Did you mean 'basis.yaml'?"
    ]
    assert problems(g=GRID.replace("base.yaml", "../../../etc/passwd"))[0].startswith(
        "g.yaml:3:7: base: the file ../../etc/passwd does not exist."
    )


def test_a_base_must_be_a_path_or_sections_of_an_experiment() -> None:
    assert problems(g=GRID.replace("base.yaml", "g.yaml")) == [
        "g.yaml:3:7: base: expected an experiment or a base, experiments/g.yaml is a grid"
    ]
    assert problems(g=GRID.replace("base.yaml", "[a]")) == [
        'g.yaml:3:7: base: expected a path or a mapping of sections, got ["a"]'
    ]
    assert problems(g=GRID.replace("base: base.yaml\n", "")) == ["g.yaml:1:1: base is missing"]
    assert problems(g=GRID.replace("base.yaml", "")) == [
        "g.yaml:3:1: base: expected a path or a mapping of sections, got null"
    ]


def test_errors_of_a_base_are_reported_in_its_file() -> None:
    assert problems(base=BASE + "sedd: 1\ngeneration: 2\non_change: cancel\n", g=GRID) == [
        "base.yaml:4:1: unknown key 'sedd'. Known: callbacks, checkpoint, cluster, data, description, "
        "entrypoint, experiment_name, generation, init_from, kind, logging, model, on_change, optimizer, owner, "
        "rerun_on, scheduler, slurm, training",
        "base.yaml:5:1: generation: not allowed in a base, which never runs itself. Move it to the grid",
        "base.yaml:6:1: on_change: not allowed in a base, which never runs itself. Move it to the grid",
        "g.yaml:3:7: base: experiments/base.yaml has errors. Fix them first",
    ]


def test_training_and_trainer_cannot_be_combined() -> None:
    assert problems(a=EXPERIMENT + "training: {}\ntrainer: {seed: 1}\n") == [
        "a.yaml:6:1: trainer is another name for training, which is given as well. Keep one of them"
    ]
    assert problems(a=EXPERIMENT + "trainer: {sed: 1}\n") == [
        "a.yaml:5:11: unknown key 'sed' in training. Did you mean 'seed'?"
    ]


def test_load_some_does_not_read_the_other_specs() -> None:
    grid = "experiments/g.yaml"
    files = {"experiments/base.yaml": BASE.encode(), "experiments/bad.yaml": b"a: ["}
    loaded = load_some([grid], {**files, grid: GRID.encode()}, Settings(), STAMP)
    assert not loaded.problems
    assert [len(one.experiments) for one in loaded.desired] == [2]


@given(
    st.dictionaries(
        st.sampled_from(["kind", "name", "base", "parameters", "linked", "sample", "exclude",
                         "conditional", "model", "slurm", "experiment_name", "defaults"]),
        st.recursive(
            st.none() | st.integers() | st.sampled_from(["grid", "base", "base.yaml", "x", ""]),
            lambda inner: st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["optimizer.lr", "model", "type", "set", "when", "n", "low",
                                 "distribution", "kind", "model.x"]), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=6,
    ),
    st.sampled_from(["grid", "experiment", "base", None]),
)  # fmt: skip
def test_no_spec_makes_the_loader_fail(value: dict[str, object], kind: str | None) -> None:
    value = {"kind": kind, **value} if kind else value
    loaded = load(base=BASE, g=json.dumps(value))
    assert loaded.problems or value["kind"] == "base" or len(loaded.desired) == 1


def test_the_examples_of_this_repository_load() -> None:
    files = {f"experiments/{p.name}": p.read_bytes() for p in EXAMPLES.iterdir() if p.is_file()}
    loaded = load_specs(files, parse_settings(None), STAMP)
    assert not loaded.problems, "\n".join(map(str, loaded.problems))
    desired = {one.name: one for one in loaded.desired}
    assert {"digits_baseline", "digits_search"} <= desired.keys()
    search = desired["digits_search"].experiments
    assert len(search) >= 6
    for member in search:
        assert parse_experiment_name(member.name) == member.parameters


def test_specs_are_read_without_heavy_libraries() -> None:
    code = (
        "import sys, mtf.spec.load\n"
        "heavy = {'torch', 'lightning', 'numpy', 'git', 'jinja2', 'rich', 'click', 'hydra'}\n"
        "print(*sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run(
        (sys.executable, "-c", code), capture_output=True, text=True, check=True,
        cwd=EXAMPLES.parent,
    )  # fmt: skip
    assert done.stdout.split() == []


def test_specs_that_start_from_each_other_in_a_circle_are_refused() -> None:
    found = problems(
        one=EXPERIMENT + "init_from: two\n",
        two=EXPERIMENT.replace("one", "two") + "init_from: {run: three}\n",
        three=EXPERIMENT.replace("one", "three") + "init_from: one\n",
        four=EXPERIMENT.replace("one", "four") + "init_from: one\n",
    )
    assert [problem.split(": ", 1)[0] for problem in found] == [
        "one.yaml:5:12", "three.yaml:5:12", "two.yaml:5:18",
    ]  # fmt: skip
    assert "init_from: one waits for two waits for three waits for one, so none" in found[0]


def test_positions_of_init_from_are_those_in_the_grid_and_its_base() -> None:
    grid = (
        "kind: grid\nname: g\nbase: base.yaml\n"
        "parameters:\n  init_from: [null, one, {run: two, load: all}]\n"
    )
    base = BASE + "init_from: {load: weights, run: old}\n"
    (loaded,) = load(base=base, g=grid).desired
    assert loaded.named_at == {
        "one": ("experiments/g.yaml", 5, 21),
        "two": ("experiments/g.yaml", 5, 32),
        "old": ("experiments/base.yaml", 4, 33),
    }
    asked = [e.config["init_from"] and e.config["init_from"]["run"] for e in loaded.experiments]
    assert asked == [None, "one", "two"]


def test_a_grid_may_vary_what_init_from_loads() -> None:
    grid = "kind: grid\nname: g\nbase: base.yaml\nparameters: {init_from.load: [weights, all]}\n"
    (loaded,) = load(base=BASE + "init_from: old\n", g=grid).desired
    assert [e.config["init_from"]["load"] for e in loaded.experiments] == ["weights", "all"]
    assert {e.config["init_from"]["run"] for e in loaded.experiments} == {"old"}


def test_members_of_a_grid_may_start_from_each_other_but_not_in_a_circle() -> None:
    chain = (
        "kind: grid\nname: g\nbase: base.yaml\nlinked:\n"
        "  - - {training.seed: 1, init_from: null}\n"
        "    - {training.seed: 2, init_from: 'g/0001'}\n"
        "naming: sequential\n"
    )
    assert not problems(base=BASE, g=chain)
    closed = chain.replace("null", "'g/0002'")
    assert problems(base=BASE, g=closed) == [
        "g.yaml:5:37: init_from: g/0001 waits for g/0002 waits for g/0001, so none of them can start",
        "g.yaml:6:37: init_from: g/0002 waits for g/0001 waits for g/0002, so none of them can start",
    ]  # fmt: skip


def test_a_run_cannot_start_from_itself() -> None:
    (problem,) = problems(one=EXPERIMENT + "init_from: one\n")
    assert problem.startswith("one.yaml:5:12: init_from: one waits for one, so none")


def test_names_that_differ_only_in_case_are_refused() -> None:
    loaded = load(a=EXPERIMENT, b=EXPERIMENT.replace("one", "One"))
    assert [str(p).removeprefix("experiments/") for p in loaded.problems] == [
        "a.yaml:2:18: the name 'one' differs from 'One' only in case. Rename one",
        "b.yaml:2:18: the name 'One' differs from 'one' only in case. Rename one",
    ]
    assert not loaded.desired


def test_grids_that_are_too_large_are_refused_before_they_are_expanded() -> None:
    thousand = ", ".join(map(str, range(1000)))
    grid = GRID.replace(
        "{optimizer.lr: [0.1, 0.2]}", f"{{training.seed: [{thousand}], model.x: [{thousand}]}}"
    )
    assert problems(base=BASE, g=grid) == [
        "g.yaml:1:1: the grid has 1,000,000 members, max_runs allows 10,000. Remove values"
    ]
    assert problems(base=BASE, g=grid + "max_runs: 2000000\n") == [
        "g.yaml:5:11: max_runs: expected a number of at most 100000, got 2000000"
    ]


def test_wrong_values_are_reported_beside_an_unknown_key_of_a_grid() -> None:
    grid = "kind: grid\nname: g\nbase: base.yaml\nslurm: {}\nparameters: {optimizer.lr: [1e-3, fast], model.hiden: [4]}\n"  # fmt: skip
    found = problems(base=BASE, g=grid)
    assert [one.split(": ", 1)[0] for one in found] == ["g.yaml:4:1", "g.yaml:5:35"]
