"""Mistakes in names, keys and templates are found before the queue, in each way to check specs."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.cli.mtf import mtf, mtf_json
from tests.cli.specs import SINGLE
from tests.repos import Repo, make_repo

if TYPE_CHECKING:
    from pathlib import Path

NETS = """\
import not_installed_anywhere
from torch import nn

raise RuntimeError("this module is read, never run")

class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
"""
OWN = SINGLE.replace(
    "{type: mlp, hidden_size: 16, num_layers: 1}", "{type: 'lab.nets:Net', width: 4}"
)
RENAMED = NETS.replace("class Net", "class Network")
MISSING = "model.type: lab.nets:Net: lab/nets.py defines no 'Net'. Did you mean 'Network'?"
BASE = OWN.replace("kind: experiment", "kind: base").replace("experiment_name: alone\n", "")
GRID = "kind: grid\nname: g\nbase: base.yaml\nparameters: {training.seed: [1, 2]}\n"


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    files = {"mtf.yaml": "executor: local\n", "experiments/alone.yaml": OWN}
    code = {"lab/__init__.py": "", "lab/nets.py": NETS, ".gitignore": "runs/\n"}
    return make_repo(tmp_path / "r", {**files, **code})


def test_own_classes_are_read_in_the_state_that_is_checked(repo: Repo) -> None:
    first = repo.git("rev-parse", "HEAD")
    mtf(repo.path, "validate")
    repo.write({"lab/nets.py": RENAMED})
    assert MISSING in mtf(repo.path, "validate", code=1).stdout
    mtf(repo.path, "validate", "--rev", "HEAD")
    mtf(repo.path, "validate", "--staged")
    repo.git("add", "-A")
    assert MISSING in mtf(repo.path, "validate", "--staged", code=1).stdout
    second = repo.commit({})
    repo.write({"lab/nets.py": NETS})
    mtf(repo.path, "validate")
    assert MISSING in mtf(repo.path, "validate", "--rev", "HEAD", code=1).stdout
    assert MISSING in mtf(repo.path, "validate", "--range", f"{first}..{second}", code=1).stdout
    assert MISSING in mtf(repo.path, "plan", "--base", first, "--rev", second, code=1).stdout
    planned = mtf_json(repo.path, "plan", "--format", "json", code=1)
    assert planned["actions"] == []
    assert [p["message"] for p in planned["problems"]] == [MISSING]


def test_a_change_of_code_checks_the_specs_that_name_it_and_those_built_on_them(repo: Repo) -> None:
    repo.commit({"experiments/base.yaml": BASE, "experiments/g.yaml": GRID})
    repo.write({"lab/nets.py": NETS.replace("width=3", "size=3"), "lab/other.py": ""})
    repo.git("add", "-A")
    done = mtf(repo.path, "validate", "--staged", code=1)
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [
        "experiments/alone.yaml:3:31",
        "experiments/base.yaml:2:31",
    ]
    repo.write({"lab/nets.py": NETS.replace("width=3", "width=4, more=1")})
    repo.git("add", "-A")
    assert "no problems" in mtf(repo.path, "validate", "--staged").stderr
    repo.write({"lab/nets.py": f"{NETS}\n\n"})
    repo.git("add", "-A")
    assert "no specs to check here" in mtf(repo.path, "validate", "--staged").stderr


def test_a_change_of_code_that_only_a_config_group_names_checks_the_specs_made_of_it(
    repo: Repo,
) -> None:
    group = "type: lab.nets:Net\nwidth: 4\n"
    spec = OWN.replace("model: {type: 'lab.nets:Net', width: 4}", "defaults: [model: own]")
    assert "defaults" in spec
    first = repo.commit({"experiments/alone.yaml": spec, "conf/model/own.yaml": group})
    second = repo.commit({"lab/nets.py": RENAMED})
    expected = f"conf/model/own.yaml:1:7: {MISSING}\n"
    assert mtf(repo.path, "validate", "--range", f"{first}..{second}", code=1).stdout == expected
    assert MISSING in mtf(repo.path, "plan", "--base", first, "--rev", second, code=1).stdout
    repo.git("reset", "--quiet", "--soft", first)
    assert mtf(repo.path, "validate", "--staged", code=1).stdout == expected


def test_a_change_of_code_checks_the_specs_that_make_a_name_by_interpolation(repo: Repo) -> None:
    spec = OWN.replace("lab.nets:Net", "lab.${model.kind}:Net").replace(
        "width", "kind: nets, width"
    )
    repo.commit({"experiments/alone.yaml": f"defaults: []\n{spec}"})
    repo.write({"lab/nets.py": RENAMED})
    repo.git("add", "-A")
    done = mtf(repo.path, "validate", "--staged", code=1)
    assert "lab/nets.py defines no 'Net'" in done.stdout


def test_plan_and_sync_warn_about_what_they_submit_and_of_nothing_else(repo: Repo) -> None:
    doubtful = f"{OWN}scheduler: {{type: cosine, monitor: val_loss}}\n"
    base = f"{BASE}scheduler: {{type: step, monitor: val_loss}}\n"
    repo.commit({"experiments/alone.yaml": doubtful, "experiments/base.yaml": base})
    repo.commit({"experiments/g.yaml": GRID})
    expected = ["experiments/alone.yaml", "experiments/base.yaml"]
    planned = mtf_json(repo.path, "plan", "--format", "json")
    assert [p["path"] for p in planned["problems"]] == expected
    assert {p["severity"] for p in planned["problems"]} == {"warning"}
    done = mtf_json(repo.path, "sync", "--only", "g", "--json")
    assert [note.split(":")[0] for note in done["notes"]] == expected[1:]
    assert "scheduler.monitor is ignored: StepLR watches no metric" in done["notes"][0]
    assert mtf_json(repo.path, "sync", "--only", "g", "--json")["notes"] == []
    mtf(repo.path, "cancel", "g", "--yes")


def test_a_mistake_in_a_template_is_found_beside_all_others(repo: Repo) -> None:
    template = "#!/bin/bash\n\necho {{ nothing_of_that_name }}\n{{ command }}\n"
    wrong = OWN.replace("width", "widht")
    repo.write({"templates/local.sh.j2": template, "experiments/alone.yaml": wrong})
    expected = "templates/local.sh.j2:3:1: 'nothing_of_that_name' is undefined"
    for args in ((), ("experiments/alone.yaml",)):
        lines = mtf(repo.path, "validate", *args, code=1).stdout.splitlines()
        assert [line.partition(". ")[0] for line in lines] == [
            "experiments/alone.yaml:3:31: model.widht: Net takes no such key",
            expected,
        ]
    repo.git("add", "templates")
    assert expected in mtf(repo.path, "validate", "--staged", code=1).stdout
    repo.write({"experiments/alone.yaml": OWN})
    repo.commit({})
    done = mtf(repo.path, "plan", code=1)
    assert f"error: {expected}" in done.stdout + done.stderr
    assert expected in mtf(repo.path, "validate", "--range", "HEAD~1..HEAD", code=1).stdout


def test_checking_names_imports_neither_torch_nor_own_code(repo: Repo) -> None:
    code = (
        "import sys; from mtf.cli.main import main\n"
        "sys.argv = ['mtf', 'validate']\ntry: main()\nexcept SystemExit as e: assert not e.code\n"
        "assert 'mtf.spec.named_code.found_code' in sys.modules\n"
        "print([m for m in ('torch', 'lab', 'lab.nets', 'mtf.trainer') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo.path, capture_output=True, text=True
    )
    assert done.stdout == "[]\n", done.stderr


def test_a_spec_of_built_in_names_reads_no_source(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "r", {"mtf.yaml": "", "experiments/alone.yaml": SINGLE})
    code = (
        "import sys; from mtf.cli.main import main\n"
        "sys.argv = ['mtf', 'validate']\ntry: main()\nexcept SystemExit as e: assert not e.code\n"
        "print([m for m in ('ast', 'mtf.spec.named_code.found_code') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=repo.path, capture_output=True, text=True
    )
    assert done.stdout.startswith("["), done.stderr
    assert "found_code" not in done.stdout
