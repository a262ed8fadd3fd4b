"""Expanding grids: members and their order, and each error at the value that causes it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.core.vocabulary.experiments import run_key
from mtf.spec.grid.sample import draw
from mtf.spec.schema.specs import Sample
from tests.spec.samples import STAMP, grid_problems, load, members, parameters

BASE_INLINE = "kind: grid\nname: g\nbase: {model: {type: mlp}, data: {dataset_name: d}}\n"


def test_all_combinations_of_parameters_are_members_in_the_order_of_the_file() -> None:
    found = parameters("parameters: {optimizer.lr: [1e-4, 1e-3], model.hidden_size: [64, 128]}\n")
    assert [list(one.values()) for one in found] == [
        [1e-4, 64], [1e-4, 128], [1e-3, 64], [1e-3, 128],
    ]  # fmt: skip
    assert list(found[0]) == ["optimizer.lr", "model.hidden_size"]


def test_values_reach_the_resolved_configuration() -> None:
    one = members(
        "parameters: {optimizer.lr: [1], trainer.seed: [3], optimizer.nested.x: [[1, 2]],\n"
        "  slurm.variables.A: [1], scheduler.type: [cosine], slurm.mem: [2G]}\n"
    )[0]
    assert one.config["optimizer"]["lr"] == 1.0
    assert one.config["optimizer"]["nested"] == {"x": [1, 2]}
    assert one.config["training"]["seed"] == 3
    assert one.config["slurm"]["variables"] == {"A": "1"}
    assert one.config["scheduler"] == {"type": "cosine"}
    assert one.resources["mem"] == "2G"
    assert one.parameters["training.seed"] == 3, "trainer is read as training"
    assert one.config["experiment_name"] == one.name
    assert (one.grid, one.member, one.owner_name) == ("g", one.name, "g")


def test_a_whole_section_may_vary() -> None:
    found = members("parameters: {scheduler: [null, {type: cosine, t_max: 3}]}\n")
    assert [one.config["scheduler"] for one in found] == [None, {"type": "cosine", "t_max": 3}]


def test_linked_values_vary_together_and_groups_are_multiplied() -> None:
    found = parameters(
        "linked:\n"
        "  - [{training.batch_size: 32, optimizer.lr: 0.1}, {training.batch_size: 64, "
        "optimizer.lr: 0.2}]\n"
        "  - [{model.type: a}, {model.type: b}]\n"
    )
    assert [list(one.values()) for one in found] == [
        [32, 0.1, "a"], [32, 0.1, "b"], [64, 0.2, "a"], [64, 0.2, "b"],
    ]  # fmt: skip


def test_a_condition_multiplies_only_the_members_that_match() -> None:
    found = parameters(
        "parameters: {optimizer.type: [adamw, sgd]}\n"
        "conditional:\n"
        "  - {set: {optimizer.momentum: [0.9, 0.95]}, when: {optimizer.type: sgd}}\n"
        "  - {set: {optimizer.nesterov: [true]}, when: {optimizer.momentum: 0.95}}\n"
    )
    assert found == [
        {"optimizer.type": "adamw"},
        {"optimizer.type": "sgd", "optimizer.momentum": 0.9},
        {"optimizer.type": "sgd", "optimizer.momentum": 0.95, "optimizer.nesterov": True},
    ]


def test_a_condition_matches_values_of_the_base_and_defaults() -> None:
    grid = "parameters: {training.seed: [1]}\nconditional: [{set: {model.x: [1]}, when: {%s}}]\n"
    assert "model.x" in parameters(grid % "optimizer.type: adamw")[0]
    assert "model.x" in parameters(grid % "model.type: mlp")[0]
    assert "model.x" not in parameters(grid % "optimizer.type: sgd")[0]
    assert "model.x" not in parameters(grid % "scheduler.type: cosine")[0]
    assert "model.x" not in parameters(grid % "training.use_amp: 1")[0], "1 is not true"


def test_two_conditions_that_exclude_each_other_may_set_the_same_key() -> None:
    grid = (
        "parameters: {optimizer.type: [adamw, sgd]}\n"
        "conditional:\n"
        "  - {set: {optimizer.lr: [0.1]}, when: {optimizer.type: sgd}}\n"
        "  - {set: {optimizer.lr: [1e-3, 1e-4]}, when: {optimizer.type: %s}}\n"
    )
    assert [one["optimizer.lr"] for one in parameters(grid % "adamw")] == [1e-3, 1e-4, 0.1]
    assert grid_problems(grid % "sgd") == [
        "g.yaml:7:5: optimizer.lr: also set by conditional[0], and a member matches both."
        " Make the conditions exclude each other"
    ]


def test_excluded_combinations_are_left_out() -> None:
    found = parameters(
        "parameters: {optimizer.lr: [1, 2], model.hidden_size: [1, 2]}\n"
        "exclude: [{optimizer.lr: 2, model.hidden_size: 1}]\n"
    )
    assert [list(one.values()) for one in found] == [[1, 1], [1, 2], [2, 2]]


def test_sampled_keys_are_drawn_together_and_combined_with_the_rest() -> None:
    grid = (
        "parameters: {optimizer.type: [adamw, sgd]}\n"
        "sample:\n"
        "  model.dropout: {distribution: uniform, low: 0.0, high: 0.5, n: %d}\n"
        "  optimizer.lr: {distribution: loguniform, low: 1e-5, high: 1e-1, seed: 3}\n"
        "  model.num_layers: {distribution: int, low: 1, high: 3}\n"
        "  model.activation: {distribution: choice, values: [relu, gelu]}\n"
        "  model.init: {distribution: normal, mean: 0, std: 1}\n"
    )
    few, many = parameters(grid % 3), parameters(grid % 5)
    assert (len(few), len(many)) == (6, 10)
    assert few[:3] == many[:3], "a greater n keeps the existing draws"
    for one in many:
        assert 0 <= one["model.dropout"] <= 0.5
        assert 1e-5 <= one["optimizer.lr"] <= 1e-1
        assert one["model.num_layers"] in {1, 2, 3}
        assert one["model.activation"] in {"relu", "gelu"}


def test_draws_never_change_between_versions() -> None:
    (one,) = parameters(
        "sample: {model.dropout: {distribution: uniform, low: 0.0, high: 0.5, n: 1},\n"
        "  optimizer.lr: {distribution: loguniform, low: 1e-5, high: 1e-1}}\n"
    )
    assert one == {"model.dropout": 0.174566, "optimizer.lr": 0.000745126}


@given(
    st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(0, 9),
    st.sampled_from(["uniform", "loguniform", "int"]),
)  # fmt: skip
def test_draws_stay_within_their_bounds(low: float, width: float, seed: int, kind: str) -> None:
    low = abs(low) + 1e-6 if kind == "loguniform" else low
    high = low + width
    if kind == "int":
        low, high = math.floor(low), math.ceil(high)
    if low < high:
        sample = Sample.model_validate(
            {"distribution": kind, "low": low, "high": high, "seed": seed}
        )
        assert all(low <= value <= high for (value,) in draw({"k": sample}, 5))


def test_all_integers_between_the_bounds_are_drawn() -> None:
    sample = Sample(distribution="int", low=1, high=3)
    assert sorted(draw({"k": sample}, 3)) == [(1,), (2,), (3,)]


def test_each_naming_strategy_names_the_members() -> None:
    grid = "naming: %s\nparameters: {optimizer.lr: [0.1, 0.2]}\n"
    names = {way: [m.name for m in members(grid % way)] for way in ("parameters", "sequential")}
    assert names["parameters"] == ["optimizer.lr=0.1", "optimizer.lr=0.2"]
    assert names["sequential"] == ["0001", "0002"]
    assert [m.name for m in members(grid % "timestamp")] == [f"{STAMP}-0001", f"{STAMP}-0002"]
    hashed = [m.name for m in members(grid % "hash")]
    assert len(set(hashed)) == 2
    assert all(len(name) == 16 for name in hashed)


def test_adding_a_value_does_not_change_the_identity_of_other_members() -> None:
    few = members("parameters: {optimizer.lr: [0.1, 0.2]}\n")
    many = members("parameters: {optimizer.lr: [0.05, 0.1, 0.2]}\nnaming: sequential\n")
    assert [run_key(m, {}) for m in few] == [run_key(m, {}) for m in many[1:]]


def test_ten_thousand_members_expand_and_one_more_is_refused() -> None:
    axis = str(list(range(100)))
    grid = f"parameters: {{training.seed: {axis}, model.x: {axis}}}\nnaming: sequential\n"
    assert len(members(grid)) == 10_000
    assert grid_problems(f"{grid}linked: [[{{model.y: 1}}, {{model.y: 2}}]]\n") == [
        "g.yaml:1:1: the grid has 20,000 members, max_runs allows 10,000. Remove values"
    ]


def test_max_runs_can_be_lowered_and_raised() -> None:
    axis = str(list(range(101)))
    grid = f"parameters: {{training.seed: {axis}, model.x: {axis}}}\nmax_runs: %d\n"
    assert len(members(grid % 10_201)) == 10_201
    assert grid_problems(grid % 10_200) == [
        "g.yaml:1:1: the grid has 10,201 members, max_runs allows 10,200. Remove values"
    ]


def test_a_grid_that_would_not_fit_into_memory_is_refused_by_its_size() -> None:
    axis = str(list(range(1000)))
    keys = ", ".join(f"model.k{i}x: {axis}" for i in range(40))
    (problem,) = grid_problems(f"parameters: {{{keys}}}\n")
    assert problem.endswith("000 members, max_runs allows 10,000. Remove values")
    (problem,) = grid_problems(
        "sample: {model.x: {distribution: int, low: 0, high: 9, n: 10000000000}}\n"
    )
    assert problem == "g.yaml:4:59: n: expected at most 10,000 (max_runs), got 10,000,000,000"


def test_the_size_with_conditions_is_checked_before_expanding() -> None:
    axis = str(list(range(100)))
    assert grid_problems(
        f"parameters: {{training.seed: {axis}}}\n"
        f"conditional: [{{set: {{model.x: {axis}, model.y: [1, 2]}}, when: {{model.type: mlp}}}}]\n"
    ) == ["g.yaml:5:15: the grid has 20,000 members, max_runs allows 10,000. Remove values"]


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ("", ["1:1: the grid has no members. Add a key to parameters, linked or sample"]),
        ("parameters: {}\nlinked: []\n", ["1:1: the grid has no members. Add a key to "
         "parameters, linked or sample"]),
        ("parameters: {optimizer.lr: []}", ["4:28: parameters.optimizer.lr: expected at least one value, got []"]),
        ("parameters: {optimizer.lr: 0.1}", ["4:28: parameters.optimizer.lr: expected a list, "
         "got 0.1. Write [0.1]"]),
        ("linked: [[]]", ["4:10: linked[0]: expected at least one value, got []"]),
        ("linked: [[{}]]", ["4:11: linked[0][0]: expected at least one value, got {}"]),
        ("linked: [[{model.x: 1}, {model.y: 1}]]", ["4:25: every entry of a linked group must set "
         "the same keys: model.x"]),
        ("parameters: {lr: [1]}", ["4:14: unknown key 'lr'. Did you mean 'optimizer.lr'?"]),
        ("parameters: {optimizer.lrr.x: [1], training.max_epoch: [1]}", ["4:36: unknown key "
         "'training.max_epoch'. Did you mean 'training.max_epochs'?"]),
        ("parameters: {experiment_name: [a], x: [1]}", [
            "4:14: unknown key 'experiment_name'. Keys begin with one of: model, data, "
            "training, optimizer, scheduler, init_from, callbacks, checkpoint, logging, slurm",
            "4:36: unknown key 'x'. Keys begin with one of: model, data, training, optimizer, "
            "scheduler, init_from, callbacks, checkpoint, logging, slurm",
        ]),
        ("parameters: {training.seed.x: [1]}", ["4:14: unknown key 'training.seed.x'. Did you mean "
         "'training.seed'?"]),
        ("parameters: {model.x: [1]}\nexclude: [{optimzer.lr: 1}]", ["5:12: unknown key "
         "'optimzer.lr'. Did you mean 'optimizer.lr'?"]),
        ("parameters: {model.x: [1]}\nlinked: [[{model.x: 1}]]", ["5:12: model.x: already set in parameters. "
         "Set it in one place"]),
        ("parameters: {trainer.seed: [1], training.seed: [1]}", ["4:33: training.seed: already set in parameters. "
         "Set it in one place"]),
        ("parameters: {optimizer: [{}], optimizer.lr: [1]}", ["4:31: optimizer.lr: already set in parameters. "
         "Set it in one place"]),
        ("parameters: {model.x: [1]}\nsample: {model.x: {distribution: choice, values: [1], n: 1}}",
         ["5:10: model.x: already set in parameters. Set it in one place"]),
        ("parameters: {model.x: [1]}\nconditional: [{set: {model.x: [1]}, when: {model.type: a}}]",
         ["5:22: model.x: already set in parameters. Set it in one place"]),
        ("parameters: {model.x: [1]}\nconditional: [{set: {}, when: {}}]",
         ["5:21: conditional[0].set: expected at least one value, got {}", "5:31: conditional[0].when: expected at least one value, got {}"]),
        ("parameters: {model.x: [1]}\nexclude: [{model.x: 2}]", ["5:11: no member has model.x=2. "
         "Correct or remove this entry"]),
        ("parameters: {model.x: [1], optimizer.lr: [fast, 1]}\nexclude: [{model.x: 2}, {model.x: 3}]",
         ["4:43: optimizer.lr: expected a number, got \"fast\"", "5:11: no member has model.x=2. "
          "Correct or remove this entry", "5:25: no member has model.x=3. Correct or remove this entry"]),
        ("parameters: {model.x: [1, 2], optimizer.lr: [1, fast]}\nmax_runs: 3", ["1:1: the grid has "
         "4 members, max_runs allows 3. Remove values", "4:49: optimizer.lr: expected a number, got \"fast\""]),
        ("parameters: {model.x: [1]}\nexclude: [{model.x: 1}]", ["5:10: every member is excluded. "
         "Remove an entry"]),
        ("sample: {model.x: {distribution: int, low: 1, high: 2}}", ["4:10: n (the number of "
         "draws) is missing"]),
        ("sample: {model.x: {distribution: int, low: 1, high: 2, n: 2}, model.y: {distribution: "
         "int, low: 1, high: 2, n: 3}}", ["4:112: n: all keys are drawn together. Write n: 2 at "
         "one of them"]),
        ("sample: {model.x: {distribution: int, low: 1, high: 2, n: 3}}", ["4:9: n: only 2 "
         "different draws exist, got 3. Lower n"]),
        ("sample: {model.x: {distribution: uniform, low: 1, high: 0, n: 3}}", ["4:19: "
         "sample.model.x: low (1) must be less than high (0)"]),
        ("sample: {model.x: {distribution: loguniform, low: 0, high: 1, n: 3}}", ["4:19: "
         "sample.model.x: low must be greater than 0 for distribution loguniform"]),
        ("sample: {model.x: {distribution: int, low: 0.5, high: 1, n: 3}}", ["4:19: "
         "sample.model.x: low and high must be integers for distribution int"]),
        ("sample: {model.x: {distribution: normal, low: 0, n: 3}}", ["4:19: sample.model.x: "
         "distribution normal needs mean and std, and nothing else"]),
        ("sample: {model.x: {distribution: choice, values: [], n: 3}}", ["4:19: sample.model.x: "
         "values must not be empty"]),
        ("parameters: {optimizer.lr: [0.1, 1e-1]}", ["4:34: duplicate experiment: "
         "optimizer.lr=0.1 gives the same as line 4:29. Remove one"]),
        ("parameters: {optimizer.lr: [1, 1.0, 2]}", ["4:32: duplicate experiment: "
         "optimizer.lr=1.0 gives the same as line 4:29. Remove one"]),
        ("parameters: {model.x: [1], slurm.mem: [1G, 2G]}", ["4:44: members that differ only in "
         "slurm.mem are the same experiment: slurm.mem decides how a run is executed, not what it "
         "computes. Vary another key"]),
        ("parameters: {optimizer.lr: [0.1, -1, fast]}", [
            "4:34: optimizer.lr: expected a number greater than 0, got -1",
            '4:38: optimizer.lr: expected a number, got "fast"',
        ]),
        ("parameters: {scheduler: [3, {t_max: 1}], logging: [{use_wandbb: true}]}", [
            "4:26: scheduler: expected a mapping, got 3",
            "4:29: scheduler.type is missing",
            "4:53: unknown key 'use_wandbb' in logging. Did you mean 'use_wandb'?",
        ]),
        ("linked: [[{model.x: 1, training.seed: 1}, {model.x: 2, training.seed: -1}]]",
         ["4:71: training.seed: expected a number of at least 0, got -1"]),
        ("parameters: {model.type.x: [1]}", ["4:14: unknown key 'model.type.x'. Did you mean "
         "'model.type'?"]),
        ("parameters: {model.deep.x.y: [1], model.deep.x.z: [1]}\nlinked: [[{model.deep: 1}]]",
         ["5:12: model.deep: already set in parameters. Set it in one place"]),
        ("name: 3\nparameters: {model.x: [1], lr: [1]}\nmax_paralel: 2\nnaming: random", [
            "4:1: duplicate key 'name', first used in line 2. Remove one",
            "5:28: unknown key 'lr'. Did you mean 'optimizer.lr'?",
            "6:1: unknown key 'max_paralel'. Did you mean 'max_parallel'?",
            "7:9: naming: expected 'hash', 'parameters', 'timestamp' or 'sequential', got "
            '"random"',
        ]),
        ("parameters: {lr: [1], optimizer.lr: [-1], training.seed: [1, x]}", [
            "4:14: unknown key 'lr'. Did you mean 'optimizer.lr'?",
            "4:38: optimizer.lr: expected a number greater than 0, got -1",
            '4:62: training.seed: expected an integer, got "x"',
        ]),
    ],
)  # fmt: skip
def test_an_error_in_a_grid_is_reported_at_its_position(grid: str, expected: list[str]) -> None:
    assert grid_problems(f"{grid}\n") == [f"g.yaml:{one}" for one in expected]


def test_a_name_that_is_too_long_is_reported_at_a_value() -> None:
    assert grid_problems(f"parameters: {{model.x: [a, {'b' * 230}]}}\n") == [
        "g.yaml:4:27: the member's name model.x=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb... has 238 bytes, at "
        "most 200 are allowed. Write naming: hash"
    ]


def test_a_key_below_a_plain_value_of_the_base_is_refused() -> None:
    base = "kind: base\nmodel: {type: mlp, deep: 3}\ndata: {dataset_name: d}\n"
    assert grid_problems("parameters: {model.deep.x: [1]}\n", base) == [
        "g.yaml:4:29: model.deep.x: expected a mapping to set a key in, the base has 3"
    ]


def test_a_base_may_lack_required_keys_that_the_grid_sets() -> None:
    base = "kind: base\ndata: {dataset_name: d}\n"
    assert len(members("parameters: {model.type: [a, b]}\n", base)) == 2
    assert grid_problems("parameters: {model.x: [a, b]}\n", base) == [
        "g.yaml:4:24: model.type is missing",
        "g.yaml:4:27: model.type is missing",
    ]
    assert grid_problems("parameters: {training.seed: [1]}\n", base) == [
        "base.yaml:1:1: model.type is missing"
    ]


def test_a_grid_inherits_from_its_base_what_it_does_not_set() -> None:
    base = (
        "kind: experiment\nexperiment_name: one\nmodel: {type: mlp}\ndata: {dataset_name: d}\n"
        "owner: me\ndescription: base\nentrypoint: a.b:c\nrerun_on: [src]\ncluster: big\n"
        "generation: 4\n"
    )
    grid = "kind: grid\nname: g\nbase: base.yaml\nparameters: {training.seed: [1]}\n"
    own = grid + "owner: you\nrerun_on: [x]\ncluster: small\ngeneration: 2\nmax_parallel: 3\n"
    loaded = load(base=base, g=grid, h=own.replace("name: g", "name: h"))
    _, inherited, explicit = loaded.desired
    one, other = inherited.experiments[0], explicit.experiments[0]
    assert (one.config["owner"], one.config["description"]) == ("me", "base")
    assert (one.config["entrypoint"], one.rerun_on, one.generation) == ("a.b:c", ("src",), 1)
    assert (inherited.cluster, inherited.max_parallel) == ("big", None)
    assert (other.config["owner"], other.rerun_on, other.generation) == ("you", ("x",), 2)
    assert (explicit.cluster, explicit.max_parallel) == ("small", 3)


def test_errors_of_an_inline_base_have_positions_in_the_grid() -> None:
    text = (
        "kind: grid\nname: g\nbase:\n  model: {type: mlp, hidden_size: big}\n"
        "  data: {dataset_name: d}\n  generation: 2\n  trainr: {}\n"
        "parameters: {training.seed: [1]}\n"
    )
    assert [str(p) for p in load(g=text).problems] == [
        'experiments/g.yaml:4:35: base.model.hidden_size: expected an integer, got "big"',
        "experiments/g.yaml:6:3: generation: not allowed in a base, which never runs itself. "
        "Move it to the grid",
        "experiments/g.yaml:7:3: unknown key 'trainr' in base. Did you mean 'training'?",
    ]
    assert not load(g=BASE_INLINE + "parameters: {training.seed: [1]}\n").problems


def values(key: str, number: int) -> str:
    return f"  {key}: [{', '.join(map(str, range(number)))}]\n"


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (values("model.a", 5_000) + f"  model.b: ['{'x' * 400_000}']\n", "are too many"),
        (
            "".join(f"  model.b{i}: [1]\n" for i in range(4000)) + values("model.a", 5_000),
            "are too many",
        ),
        (
            values("model.a", 9_000)
            + "exclude:\n"
            + "".join(f"  - {{model.a: {i}}}\n" for i in range(5000)),
            "are too many",
        ),
        (
            values("model.a", 9_000)
            + "conditional:\n"
            + "".join(
                f"  - {{set: {{model.b: [1]}}, when: {{model.a: {i}}}}}\n" for i in range(3000)
            ),
            "are too many",
        ),
        (
            "  model.a: [1]\nsample:\n"
            + "".join(
                f"  model.s{i}: {{distribution: uniform, low: 0, high: 1}}\n" for i in range(3000)
            )
            + "  model.t: {distribution: uniform, low: 0, high: 1, n: 9000}\n",
            "9,000 draws of 3,001 keys",
        ),
    ],
    ids=["long value", "many keys", "exclusions", "conditions", "draws"],
)
def test_a_grid_whose_members_would_take_too_long_is_refused(grid: str, words: str) -> None:
    found = grid_problems(f"parameters:\n{grid}")
    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    "sample",
    [
        "{distribution: int, low: -1e308, high: 1e308, n: 3}",
        "{distribution: int, low: 0, high: 1e16, n: 3}",
        "{distribution: uniform, low: -1.7e308, high: 1.7e308, n: 3}",
        "{distribution: loguniform, low: 1e-308, high: 1e308, n: 3}",
        "{distribution: normal, mean: 0, std: 1e308, n: 3}",
    ],
)
def test_draws_from_a_range_without_an_end_are_refused(sample: str) -> None:
    (problem,) = grid_problems(f"sample: {{model.dropout: {sample}}}\n")
    assert problem.startswith("g.yaml:4:25: sample.model.dropout: the numbers are too large")
