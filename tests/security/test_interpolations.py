"""A pull request is data: nothing in it reads the environment of whoever plans, or stops a sync."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from mtf.spec.compose.config_groups import Groups
from mtf.spec.load import Loaded, load_specs
from mtf.spec.schema.settings import Settings
from tests.cli.mtf import mtf
from tests.repos import make_repo

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2"
HEAD = "kind: experiment\nexperiment_name: evil\ndata: {dataset_name: digits}\n"
GOOD = "kind: experiment\nexperiment_name: good\nmodel: {type: mlp}\ndata: {dataset_name: digits}\n"
SMALL = {"model/small.yaml": "type: mlp\n"}
READ = "${oc.env:TOKEN}"


def load(spec: str, conf: dict[str, str]) -> Loaded:
    files = {"experiments/evil.yaml": spec.encode(), "experiments/good.yaml": GOOD.encode()}
    groups = Groups(lambda: {f"conf/{path}": text.encode() for path, text in conf.items()})
    return load_specs(files, Settings(), "20250101T120000Z", groups)


LEAKS: dict[str, tuple[str, dict[str, str]]] = {
    "a resolver": (f"defaults: [_self_]\nmodel: {{type: mlp, v: '{READ}'}}\n", {}),
    "a name put together": (
        "defaults: [_self_]\nmodel: {type: mlp, k: env, v: '${oc.${model.k}:TOKEN}'}\n",
        {},
    ),
    "a name from a relative key": (
        "defaults: [_self_]\nmodel: {type: mlp, k: oc.env, v: '${${.k}:TOKEN}'}\n",
        {},
    ),
    "text that is decoded": (
        "defaults: [_self_]\nmodel: {type: mlp, d: $, e: '{oc.env:TOKEN}', v: '${oc.decode:${.d}${.e}}'}\n",
        {},
    ),
    "text that is joined": (
        "defaults: [_self_]\nmodel: {type: mlp, d: $, e: '{oc.env:TOKEN}', v: '${.d}${.e}'}\n",
        {},
    ),
    "an escape": (f"defaults: [_self_]\nmodel: {{type: mlp, v: '\\{READ}'}}\n", {}),
    "an argument": (
        "defaults: [_self_]\nmodel: {type: mlp, v: '${oc.select:nothing,${oc.env:TOKEN}}'}\n",
        {},
    ),
    "a list of words": (
        f"defaults: [_self_]\nmodel: {{type: mlp, v: [1, [2, 'x {READ} y']]}}\n",
        {},
    ),
    "a created mapping": (
        "defaults: [_self_]\nmodel: {type: mlp, v: '${oc.create:{a:${oc.env:TOKEN}}}'}\n",
        {},
    ),
    "white space": ('defaults: [_self_]\nmodel: {type: mlp, v: "${ \\n oc.env \\t: TOKEN}"}\n', {}),
    "an option": (f"defaults: [{{model: '{READ}'}}]\n", SMALL),
    "one of several options": (f"defaults: [{{model: [small, '{READ}']}}]\n", SMALL),
    "an optional option": (f"defaults: [{{optional model: '{READ}'}}]\n", SMALL),
    "an option that overrides": (
        f"defaults: [{{model: small}}, {{override model: '{READ}'}}]\n",
        SMALL,
    ),
    "a configuration": (f"defaults: ['model/{READ}']\n", SMALL),
    "a package": (f"defaults: [{{'model@{READ}': small}}]\n", SMALL),
    "a package of a configuration": (f"defaults: ['model/small@{READ}']\n", SMALL),
    "a group": (f"defaults: [{{'{READ}': small}}]\n", SMALL),
    "the whole list": (f"defaults: '{READ}'\n", SMALL),
    "a list by reference": (f"defaults: '${{lists.one}}'\nlists: {{one: ['{READ}']}}\n", SMALL),
    "an entry's own defaults": (
        "defaults: [{model: '${defaults.1.b}'}, {b: '${oc.env:TOKEN}'}]\n",
        SMALL,
    ),
    "a file's name": (f"defaults: [{{model: '{READ}'}}]\n", {f"model/{READ}.yaml": "type: mlp\n"}),
    "a file's package": ("defaults: [q]\n", {"q.yaml": f"# @package {READ}\ntype: mlp\n"}),
    "a file's list": (
        "defaults: [{model: small}]\n",
        {"model/small.yaml": f"defaults: [{{b: '{READ}'}}]\ntype: mlp\n"},
    ),
    "a file's value": ("defaults: [{model: small}]\n", {"model/small.yaml": f"type: '{READ}'\n"}),
    "names that are joined": (
        "defaults: [inner, {optional z: '${x}'}]\n",
        {
            "inner.yaml": "# @package _global_\ndefaults: [{a: $}, {optional x: '${a}{oc.env:TOKEN}'}]\n",
            "a/$.yaml": "b: 1\n",
        },
    ),
    "a search path": (
        "defaults: [_self_, {override hydra/launcher: x}]\nhydra: {searchpath: ['file:///etc']}\n",
        {},
    ),
}


@pytest.mark.parametrize("kind", LEAKS)
def test_no_interpolation_reads_the_environment(kind: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    loaded = load(HEAD + LEAKS[kind][0], LEAKS[kind][1])
    assert SECRET not in str(loaded)
    assert [spec.name for spec in loaded.desired] == ["good"]
    for problem in map(str, loaded.problems):
        assert re.match(r"(experiments/evil|conf/.*)\.yaml:\d+:\d+: .*[.\w]", problem)


@pytest.mark.parametrize("value", [READ, "${oc.${model.k}:TOKEN}", "a ${oc.decode:x}"])
@pytest.mark.parametrize(
    "place",
    [
        "parameters: {model.v: [V]}",
        "linked: [[{model.v: V}]]",
        "sample: {model.v: {distribution: choice, values: [V], n: 1}}",
        "parameters: {model.w: [1]}\nconditional: [{set: {model.v: [V]}, when: {model.w: 1}}]",
        "parameters: {model.v: [{a: [V]}]}",
        "parameters: {model: [V]}",
    ],
)
def test_no_value_of_a_grid_reads_the_environment(place: str, value: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    base = "base:\n  defaults: [{model: small}, _self_]\n  data: {dataset_name: digits}\n  model: {u: '${model.type}'}\n"
    text = f"kind: grid\nname: evil\n{base}{place.replace('V', repr(value))}\n"
    loaded = load(text, {**SMALL, f"model/{READ}.yaml": "type: mlp\n"})
    assert SECRET not in str(loaded)
    assert [spec.name for spec in loaded.desired] == ["good"]
    assert any("interpolation" in str(problem) for problem in loaded.problems)


def test_a_spec_without_a_defaults_list_has_no_interpolations(monkeypatch: Any) -> None:
    monkeypatch.setenv("TOKEN", SECRET)
    loaded = load(f"{HEAD}model: {{type: mlp, v: '{READ}'}}\n", {})
    (evil,) = (e for spec in loaded.desired for e in spec.experiments if e.name == "evil")
    assert evil.config["model"]["v"] == READ


def levels(number: int, line: str) -> str:
    lines = [f"  b{i}: {line.replace('B', f'${{model.b{i - 1}}}')}\n" for i in range(1, number)]
    return f"defaults: [_self_]\nmodel:\n  type: mlp\n  b0: xxxxxxxxxx\n{''.join(lines)}"


BOMBS = {
    "text": (levels(30, f"'{'B' * 10}'"), {}),
    "lists": (levels(30, "['B', 'B', 'B', 'B', 'B', 'B', 'B', 'B']"), {}),
    "mappings": (levels(40, "{p: 'B', q: 'B'}"), {}),
    "a chain": (levels(4000, "'B'"), {}),
    "syntax": (f"defaults: [_self_]\nmodel: {{type: mlp, v: '{'${a' * 240}'}}\n", {}),
    "arguments": (f"defaults: [_self_]\nmodel: {{type: mlp, v: '{'${a:[' * 190}'}}\n", {}),
    "lists of lists": (
        "defaults: [q0]\n",
        {f"q{i}.yaml": f"defaults: [q{i + 1}@a, q{i + 1}@b]\n" for i in range(40)},
    ),
    "a list in itself": ("defaults: [q]\n", {"q.yaml": "defaults: [q]\n"}),
    "packages": ("defaults: [q]\n", {"q.yaml": f"# @package {'a.' * 30_000}a\nb: 1\n"}),
    "merged over a bomb": (
        levels(30, f"'{'B' * 10}'").replace("[_self_]", "[_self_, q]"),
        {"q.yaml": "# @package _global_\nmodel: {b29: {c: 1}}\n"},
    ),
    "values in groups": (
        "defaults: [{model: [" + ", ".join(f"m{i}" for i in range(99)) + "]}]\n",
        {f"model/m{i}.yaml": "".join(f"k{j}: {j}\n" for j in range(600)) for i in range(99)},
    ),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_spec_cannot_make_a_large_amount_of_work(kind: str) -> None:
    spec, conf = BOMBS[kind]
    loaded = load(HEAD + spec, conf)  # without a bound, each takes hours or all memory
    assert [spec.name for spec in loaded.desired] == ["good"]
    assert len(loaded.problems) == 1


def test_neither_the_plan_s_comment_nor_the_ledger_shows_the_environment(
    tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv("MTF_COMMENT_TOKEN", SECRET)
    repo = make_repo(tmp_path / "r", {"mtf.yaml": "remote: null\n", "experiments/good.yaml": GOOD})
    repo.git("switch", "-q", "-c", "pr")
    name, text = "experiments/evil.yaml", "description: '${oc.${model.k}:MTF_COMMENT_TOKEN}'\n"
    repo.commit({name: f"{HEAD}defaults: [_self_]\nmodel: {{type: mlp, k: env}}\n{text}"})
    done = mtf(repo.path, "plan", "--base", "main", "--rev", "pr", "--format", "markdown", code=1)
    assert f"{name}:6:14" in done.stdout
    assert SECRET not in done.stdout + done.stderr
    repo.git("switch", "-q", "main")
    repo.git("merge", "-q", "pr")
    done = mtf(repo.path, "sync", "--dry-run", code=1)
    assert "good" in done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
