"""No text in a spec becomes a shell command, an #SBATCH line, a ref or a path.

Each attack is put at each place of a spec that takes text. Either it is refused, or a real shell
runs the resulting scripts, which must do the same as with plain text.
"""

from __future__ import annotations

import json
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mtf import rundir
from mtf.core.vocabulary.ids import CommitId, RunId, Token, run_id, submission_id
from mtf.core.vocabulary.jobs import JobRequest, Task
from mtf.errors import MtfError
from mtf.executor.script import render
from mtf.spec.load import load_specs
from mtf.spec.schema.settings import Settings

if TYPE_CHECKING:
    from mtf.core.vocabulary.experiments import Experiment

ATTACKS = [
    "$(touch CANARY)", "`touch CANARY`", "x; touch CANARY", "x && touch CANARY", "x | tee CANARY",
    "x\ntouch CANARY", "x\r\ntouch CANARY", "x\n#SBATCH --wrap=touch", "'; touch CANARY; '",
    '"; touch CANARY; "', "\\'; touch CANARY #", "${IFS}touch${IFS}CANARY", "> CANARY", "!touch CANARY",
    "--wrap=touch CANARY", "-oProxyCommand=touch", "--upload-pack=touch CANARY", "--output=CANARY",
    "../../../CANARY", "/CANARY", "..", ".", "~/CANARY", "a/../../b", "refs/heads/main", "@{-1}", "a..b",
    "x.lock", "x:y", "x^{}", "{{ 7 * 7 }}", "{% raw %}", "{{ ''.__class__.__mro__ }}", "%j%a", "a\x00b",
    "a\x1b[31mb", "\u202egnp", "é" * 40, "a" * 300, " ", "#", "\\", "*", "?", "[a]",
]  # fmt: skip
_SPEC: dict[str, Any] = {
    "kind": "experiment",
    "experiment_name": "plain",
    "model": {"type": "mlp"},
    "data": {"dataset_name": "digits"},
    "slurm": {"time": "00:10:00"},
}
_GRID: dict[str, Any] = {"kind": "grid", "name": "plain", "base": {k: _SPEC[k] for k in ("model", "data")}}  # fmt: skip
PLACES = [
    ("experiment_name",), ("description",), ("owner",), ("entrypoint",), ("cluster",),
    ("init_from",), ("model", "type"), ("model", "name"), ("data", "dataset_name"),
    ("data", "train_split"), ("optimizer", "type"), ("scheduler", "type"), ("rerun_on", 0),
    ("logging", "wandb_project"), ("checkpoint", "monitor"),
    *(("slurm", key) for key in ("partition", "account", "qos", "mem", "time", "constraint",
                                 "reservation", "venv", "conda", "container")),
    ("slurm", "modules", 0), ("slurm", "extra", 0), ("slurm", "variables", "NAME"),
    ("slurm", "variables", None),
]  # fmt: skip
IN_GRIDS = [("name",), ("parameters", "model.name", 0), ("parameters", None, 0)]


def put(into: dict[str, Any], place: tuple[Any, ...], attack: str) -> dict[str, Any]:
    """Return the spec with the attack at a place; None there stands for a key."""
    made: Any = json.loads(json.dumps(into))
    at = made
    for part, following in pairwise(place):
        empty: Any = [None] if isinstance(following, int) else {}
        at = at.setdefault(attack if part is None else part, empty)
    last = place[-1]
    at[attack if last is None else last] = "x" if last is None else attack
    return dict(made)


def experiments(spec: dict[str, Any]) -> tuple[Experiment, ...]:
    raw = json.dumps(spec).encode()
    loaded = load_specs({"experiments/s.yaml": raw}, Settings(), "20260101T120000Z")
    return loaded.desired[0].experiments if loaded.desired else ()


def request_of(one: Experiment, root: Path) -> JobRequest:
    submission = submission_id(one.owner_name, "20260101T120000Z", CommitId("c" * 40))
    run = run_id(submission, one.member)
    folder = rundir.run_dir(root, run)
    assert folder.resolve().is_relative_to(root.resolve())
    assert len(folder.relative_to(root).parts) == run.count("/") + 1
    check_ref(f"refs/heads/slurm-job/{run}")
    return JobRequest(
        token=Token("a" * 16), name=one.owner_name, tasks=(Task(RunId(run), 0, str(folder)),),
        resources=one.resources, code_dir=str(root / "code"), job_dir=str(root / "job"),
        array=one.grid is not None, max_parallel=None, python=str(root / "python"),
    )  # fmt: skip


def check_ref(name: str) -> None:
    done = subprocess.run(["git", "check-ref-format", name])
    assert done.returncode == 0, name


def run_script(text: str, root: Path) -> list[str]:
    """Run a script with a stand-in for what it starts; return the words that this was given."""
    (root / "code").mkdir(exist_ok=True)
    stub = f"#!/bin/sh\nfor word; do printf '%s\\n' \"$word\"; done > {root}/words\n"
    for name in ("python", "module", "conda", "apptainer", "srun"):
        (root / name).write_text(stub)
        (root / name).chmod(0o755)
    (root / "s.sh").write_text(text)
    environment = {"PATH": f"{root}:/usr/bin:/bin", "MTF_RUN_DIR": "/runs/r", "SLURM_JOB_ID": "1",
                   "HOME": str(root), "SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_JOB_ID": "1"}  # fmt: skip
    subprocess.run(["bash", "s.sh"], cwd=root, env=environment, capture_output=True, timeout=60)
    return (root / "words").read_text().splitlines() if (root / "words").exists() else []


@pytest.mark.parametrize("place", [*PLACES, *IN_GRIDS], ids=lambda p: ".".join(map(str, p)))
def test_no_text_of_a_spec_is_executed(place: tuple[Any, ...], tmp_path: Path) -> None:
    seen = set()
    for attack in ATTACKS:
        for one in experiments(put(_GRID if place in IN_GRIDS else _SPEC, place, attack)):
            reaches = json.dumps([one.name, one.grid, one.resources])  # all that a script knows
            if reaches not in seen:
                seen.add(reaches)
                check_scripts(one, attack, tmp_path)
    assert not list(tmp_path.rglob("CANARY*"))
    assert not Path("CANARY").exists()


def check_scripts(one: Experiment, attack: str, root: Path) -> None:
    request = request_of(one, root)
    try:
        text, local = render(request, "slurm"), render(request, "local")
    except MtfError:
        return
    check_directives(text, attack)
    words = run_script(local, root)
    environment = ("venv", "conda", "container", "modules")
    if not any(one.resources[key] for key in environment):  # type: ignore[literal-required]
        assert words == ["-m", "mtf.trainer", "/runs/r"], attack


def check_directives(text: str, attack: str) -> None:
    """Every #SBATCH line is one that mtf writes, and nothing runs between them."""
    lines = text.splitlines()
    directives = [line for line in lines if line.startswith("#SBATCH")]
    assert lines[1 : 1 + len(directives)] == directives, attack
    names = [line.split()[1].split("=")[0] for line in directives]
    assert "--wrap" not in names
    assert len(names) == len(set(names)), names


def test_a_plain_spec_runs_its_commands(tmp_path: Path) -> None:
    (one,) = experiments(_SPEC)
    local = render(request_of(one, tmp_path), "local")
    assert run_script(local, tmp_path) == ["-m", "mtf.trainer", "/runs/r"]
