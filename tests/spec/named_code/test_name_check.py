"""Mistakes in names and keys are found in the text of specs and sources, at their places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from mtf.spec.load import load_specs
from mtf.spec.named_code import name_check
from mtf.spec.named_code.known_signatures import listed_names
from mtf.spec.named_code.source_files import EntryKind, SourceFiles
from mtf.spec.schema.settings import parse_settings
from tests.spec.samples import STAMP

if TYPE_CHECKING:
    from collections.abc import Mapping

HEAD = "kind: experiment\nexperiment_name: one\n"
DATA = "data: {dataset_name: digits}\n"
ONE = f"{HEAD}model: {{type: mlp}}\n{DATA}"
NETS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, input_shape, num_classes, width=3, hiden_size=4):
        super().__init__()

class Tuned(Net):
    def configure_optimizers(self, config):
        ...

def make(width=1):
    return Net((1,), 2, width)

def main(run): ...
def alone(): ...
def two(run, other): ...
"""


def files_of(texts: Mapping[str, str], others: tuple[str, ...] = ()) -> SourceFiles:
    """Return source files by path; ``others`` are links and submodules."""

    def folder(path: str) -> dict[str, EntryKind]:
        found = {}
        for name in (*texts, *others):
            above = f"{path}/" if path else ""
            if name.startswith(above):
                first, slash, _ = name.removeprefix(above).partition("/")
                kind = EntryKind.OTHER if name in others else EntryKind.FILE
                found[first] = EntryKind.FOLDER if slash else kind
        return found

    return SourceFiles(folder, lambda path, _: texts[path].encode() if path in texts else None)


def problems(
    spec: str,
    code: SourceFiles | None = None,
    settings: str = "",
    **more: str,
) -> list[str]:
    texts = {"one.yaml": spec, **{f"{name}.yaml": text for name, text in more.items()}}
    raw = {path: text.encode() for path, text in texts.items()}
    code = code or files_of({"lab/__init__.py": "", "lab/nets.py": NETS})
    loaded = load_specs(raw, parse_settings(settings.encode()), STAMP, code=code)
    return [str(p) for p in loaded.problems]


def test_all_mistakes_of_all_kinds_are_listed_at_once_and_once() -> None:
    spec = (
        f"{HEAD}model: {{type: mlp, hiden: 3}}\ndata: {{dataset_name: digits, val_split: val}}\n"
        "optimizer: {type: adamx, lrr: 3, lr: fast}\ntrainin: {}\nscheduler: {type: cosin}\n"
    )
    known = listed_names
    assert problems(spec) == [
        "one.yaml:3:20: model.hiden: mlp takes no such key. Did you mean 'hidden_size'? It takes "
        "activation, dropout, hidden_size, num_layers",
        "one.yaml:4:41: data.val_split: digits has no split 'val'. Use train or validation",
        "one.yaml:5:19: optimizer.type: unknown name 'adamx'. Did you mean 'adamax'? Known: "
        f"{', '.join(known('optimizers'))}. Name your own as package.module:Name",
        "one.yaml:5:26: optimizer.lrr: no optimizer of mtf or torch takes such a key. Did you mean 'lr'?",
        '''one.yaml:5:38: optimizer.lr: expected a number, got "fast"''',
        "one.yaml:6:1: unknown key 'trainin'. Did you mean 'training'?",
        "one.yaml:7:19: scheduler.type: unknown name 'cosin'. Did you mean 'cosine'? Known: "
        f"{', '.join(known('schedulers'))}. Name your own as package.module:Name",
    ]


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (
            "model: {type: lab.nets:Nett}",
            "5:15: model.type: lab.nets:Nett: lab/nets.py defines no 'Nett'. Did you mean 'Net'?",
        ),
        (
            "model: {type: lab.net:Net}",
            "5:15: model.type: lab.net:Net: no module 'lab.net': lab "
            "contains no 'net'. Did you mean 'nets'?",
        ),
        (
            "model: {type: lab.nets:Net, with: 4}",
            "5:29: model.with: Net takes no such key. Did you mean "
            "'width'? It takes hiden_size, width",
        ),
        (
            "model: {type: lab.nets:Net, hidden_size: 4}",
            "5:29: warning: model.hidden_size: 4 is ignored: Net takes no such key",
        ),
        ("model: {type: lab.nets:Net, width: wide, hiden_size: 2}", None),
        (
            "model: {type: labb.nets:Net}",
            "5:15: warning: model.type: labb.nets:Net: 'labb' is not in this "
            "repository. Did you mean 'lab'?",
        ),
        ("model: {type: others.nets:Net, whatever: 4}", None),
        (
            "model: {type: others.nets:Net, hiden_size: 4}",
            "5:32: warning: model.hiden_size is handed on as "
            "a key of your own. Did you mean 'hidden_size'?",
        ),
        (
            "model: {type: mlp, activation: rleu}",
            "5:32: model.activation: unknown name 'rleu'. Did you mean 'relu'?",
        ),
        ("model: {type: timm:resnet50, anything: 1}", None),
        (
            "model: {type: __main__:Net}",
            "5:15: model.type: __main__:Net: it is defined in a notebook or "
            "script, which a job does not run: move it to a module of the repository, and write "
            "package.module:Net",
        ),
        (
            "entrypoint: lab.nets:man\nmodel: {type: x, y: 1}",
            "5:13: entrypoint: lab.nets:man: lab/nets.py defines no 'man'. Did you mean 'main'?",
        ),
        ("entrypoint: lab.nets:main\nmodel: {type: x, y: 1}", None),
        (
            "entrypoint: lab.nets:alone\nmodel: {type: x}",
            "5:13: entrypoint: lab.nets:alone: it is called "
            "with the run alone. Define it as alone(run)",
        ),
        (
            "entrypoint: lab.nets:two\nmodel: {type: x}",
            "5:13: entrypoint: lab.nets:two: it is called "
            "with the run alone. Define it as two(run)",
        ),
        (
            "model: {type: mlp}\ncallbacks: {mine: {type: lab.nets:Nets}}",
            "6:26: callbacks.mine.type: "
            "lab.nets:Nets: lab/nets.py defines no 'Nets'. Did you mean 'Net'?",
        ),
        (
            "model: {type: mlp}\nscheduler: {type: step, gamma: half}",
            '6:32: warning: scheduler.gamma: StepLR expects float, got "half"',
        ),
        (
            "model: {type: mlp}\nscheduler: {type: lambdalr}",
            "6:19: scheduler: LambdaLR needs lr_lambda: add it to the section",
        ),
        (
            "model: {type: mlp}\noptimizer: {type: 'torch.optim:Adamm'}",
            "6:19: optimizer.type: "
            "torch.optim:Adamm: torch.optim has no 'Adamm'. Did you mean 'Adam'?",
        ),
        (
            "model: {type: mlp}\noptimizer: {type: sgd, num_wokers: 1, momentun: 0.9}",
            "6:39: "
            "optimizer.momentun: SGD takes no such key. Did you mean 'momentum'? It takes dampening, "
            "differentiable, foreach, fused, lr, maximize, momentum, nesterov, weight_decay",
        ),
    ],
)
def test_a_mistake_is_found_at_its_place_and_what_is_unknown_is_not_guessed(
    section: str, expected: str | None
) -> None:
    spec = f"{HEAD}#\n#\n{section}\n{DATA}"
    found = [problem.removeprefix("one.yaml:") for problem in problems(spec)]
    if expected is None:
        assert not any("warning" not in p for p in found)
    else:
        assert expected in found


def test_a_key_of_the_section_that_is_misspelled_is_named_with_it() -> None:
    spec = ONE.replace("digits}", "digits, num_wokers: 2}")
    assert problems(spec) == [
        "one.yaml:4:30: unknown key 'num_wokers' in data. Did you mean 'num_workers'?"
    ]


def test_a_model_that_builds_its_optimizers_may_get_any_section() -> None:
    tuned = f"{HEAD}model: {{type: 'lab.nets:Tuned'}}\n{DATA}optimizer: {{type: mine, steps: 3}}\n"
    assert problems(tuned) == []
    assert len(problems(tuned.replace("Tuned", "Net"))) == 2
    made = tuned.replace("Tuned", "make")  # what the function returns may be the tuned one
    assert problems(made) == []


def test_code_outside_of_what_can_be_read_is_not_judged() -> None:
    code = files_of({"lab/__init__.py": "", "lab/fast.pyx": ""}, others=("linked", "lab/sub"))
    for target in ("linked.nets:Net", "lab.sub:Net", "lab.sub.nets:Net", "lab.fast:Net"):
        spec = f"{HEAD}model: {{type: '{target}', a: 1}}\n{DATA}"
        assert problems(spec, code) == []
    hostile = files_of({"lab/__init__.py": "x = " + "-" * 300_000 + "1", "lab/a.py": "class ("})
    for target in ("lab:Net", "lab.a:Net"):
        spec = f"{HEAD}model: {{type: '{target}', a: 1}}\n{DATA}"
        assert problems(spec, hostile) == []


def test_a_module_of_a_namespace_package_or_below_src_is_found() -> None:
    code = files_of({"src/deep/inside/net.py": NETS, "scripts/net.py": NETS})
    for module in ("deep.inside.net", "scripts.net", "src.deep.inside.net"):
        spec = f"{HEAD}model: {{type: '{module}:Net'}}\n{DATA}"
        assert problems(spec, code) == []
        assert "Did you mean 'Net'?" in problems(spec.replace(":Net'", ":Nett'"), code)[0]


def test_a_folder_without_init_is_not_judged_where_an_installed_package_comes_first() -> None:
    code = files_of({"hypothesis/net.py": NETS, "drawings/net.py": NETS})
    spec = f"{HEAD}model: {{type: 'hypothesis.nett:Net'}}\n{DATA}"
    assert problems(spec, code) == []
    assert len(problems(spec.replace("hypothesis", "drawings"), code)) == 1


def test_an_unknown_plug_in_is_an_error_only_where_all_plug_ins_of_jobs_are_known() -> None:
    spec = ONE.replace("digits", "digts")
    expected = (
        "data.dataset_name: unknown name 'digts'. Did you mean 'digits'? Known: digits, synthetic. "
        "Name your own as package.module:Name"
    )
    assert problems(spec) == [f"one.yaml:4:22: {expected}"]
    assert problems(spec, settings="environment: {venv: /opt/lab}") == [
        f"one.yaml:4:22: warning: {expected}"
    ]
    declared = '[project.entry-points."mtf.datasets"]\ndigts = "lab.data:digts"\n'
    assert problems(spec, files_of({"pyproject.toml": declared})) == []


# -- grids -----------------------------------------------------------------------------------------

GRID = "kind: grid\nname: g\nbase:\n  model: {type: mlp}\n  data: {dataset_name: digits}\n"


def test_the_values_of_a_grid_are_checked_where_they_are_written() -> None:
    grid = GRID + (
        "  optimizer: {type: adamw, momentum: 0.9}\nparameters:\n"
        "  model.type: [mlp, 'lab.nets:Nett']\n  optimizer.type: [sgd, adam]\n"
        "  scheduler.type: [cosine]\n  scheduler.T_maxx: [3, 4]\n"
    )
    found = problems(grid)
    assert [p.split(": ", 2)[:2] for p in found] == [
        ["one.yaml:6:28", "optimizer.momentum"],
        ["one.yaml:8:21", "model.type"],
        ["one.yaml:11:3", "scheduler.T_maxx"],
    ]


def test_values_that_vary_together_are_checked_together() -> None:
    linked = (
        "linked:\n  - - {optimizer.type: sgd, optimizer.momentum: 0.9}\n"
        "    - {optimizer.type: rmsprop, optimizer.momentum: 0.5}\n"
    )
    assert problems(GRID + linked) == []
    when = "conditional: [{set: {optimizer.momentum: [0.9]}, when: {optimizer.type: sgd}}]\n"
    assert problems(GRID + "parameters: {optimizer.type: [sgd, adamw]}\n" + when) == []
    excluded = (
        "parameters: {optimizer.type: [sgd, adamw], optimizer.momentum: [0.9]}\n"
        "exclude: [{optimizer.type: adamw}]\n"
    )
    assert problems(GRID + excluded) == []


def test_a_grid_that_cannot_be_expanded_still_lists_its_names() -> None:
    grid = GRID.replace("mlp}", "mlpp}") + (
        "  training: {max_epochs: many}\nparameters:\n  optimzer.lr: [1]\n  optimizer.type: [adamx]\n"
    )
    assert [p.split(": ")[0] for p in problems(grid)] == [
        "one.yaml:4:17",
        "one.yaml:6:26",
        "one.yaml:8:3",
        "one.yaml:9:20",
    ]


def test_a_key_in_a_base_of_its_own_is_reported_there() -> None:
    base = "kind: base\nmodel: {type: mlp, hiden: 1}\ndata: {dataset_name: digits}\n"
    grid = "kind: grid\nname: g\nbase: base.yaml\nparameters: {training.seed: [1, 2]}\n"
    (found,) = problems(grid, base=base)
    assert found.startswith("base.yaml:2:20: model.hiden: mlp takes no such key")


def test_each_distinct_value_of_a_grid_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    original = name_check.NamedCode.findings

    def counted(self: name_check.NamedCode, section: str, *rest: Any) -> object:
        checked.append(section)
        return original(self, section, *rest)

    monkeypatch.setattr(name_check.NamedCode, "findings", counted)
    seeds, rates = list(range(40)), [0.1, 0.2, 0.3]
    grid = f"{GRID}parameters: {{training.seed: {seeds}, optimizer.lr: {rates}}}\n"
    assert problems(grid) == []
    assert sorted(checked) == ["callbacks", "data", "model", *["optimizer"] * 3, "scheduler"]
