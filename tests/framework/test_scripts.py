"""`mtf plan --scripts` and `mtf show RUN --script`: the job scripts, before and after."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf import ModelTrainingFramework, MtfError, SBATCHTemplate, SLURMLauncher
from mtf.executor.template_names import shipped_templates
from tests.cli.lab import SETTINGS, make_lab, runs, spec
from tests.cli.mtf import mtf, mtf_json

if TYPE_CHECKING:
    from tests.repos import Repo

GRID = """\
kind: grid
name: search
base: one.yaml
parameters: {training.seed: [1, 2, 3]}
"""


def without_ids(script: str) -> str:
    """Return a script without what each job has anew: the token and the time."""
    return re.sub(r"[0-9a-f]{16}|\d{8}T\d{6}Z", "ID", script)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """A lab on a SLURM whose programs accept everything and run nothing."""
    texts = {
        "scontrol": "echo MaxArraySize = 1001",
        "squeue": "exit 0",
        "sacct": "exit 0",
        "sbatch": "echo 4711",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    specs = {"one.yaml": spec("one"), "search.yaml": GRID}
    return make_lab(
        tmp_path, specs, settings=SETTINGS.replace("executor: local", "executor: slurm")
    )


def test_a_plan_shows_the_scripts_that_the_sync_submits(lab: Repo) -> None:
    text = mtf(lab.path, "plan", "--scripts").stdout
    planned = mtf_json(lab.path, "plan", "--scripts", "--format", "json")["scripts"]
    assert runs(lab) == {}
    assert len(planned) == 4
    assert len({*planned.values()}) == 2  # one array, and one job
    assert all(
        script.rstrip() in without_ids(text) for script in map(without_ids, planned.values())
    )
    assert "scripts" not in mtf_json(lab.path, "plan", "--format", "json")
    assert "#SBATCH" in mtf(lab.path, "plan", "--scripts", "--format", "markdown").stdout

    mtf(lab.path, "sync")
    for name in ("one", "search/training.seed=2"):
        shown = mtf(lab.path, "show", name, "--script").stdout
        group = name.partition("/")[0]
        script = next(t for run, t in planned.items() if run.partition("/")[0] == group)
        assert without_ids(shown) == without_ids(script)


def test_the_launcher_writes_the_script_that_is_submitted(lab: Repo) -> None:
    config = ModelTrainingFramework(lab.path).config_manager.load("one")
    launcher = SLURMLauncher(project_root=lab.path)
    path = launcher.generate_sbatch_script(config)
    assert isinstance(path, Path)
    assert lab.git("status", "--porcelain") == ""
    mtf(lab.path, "sync", "--only", "one")
    submitted = mtf(lab.path, "show", "one", "--script").stdout
    assert without_ids(path.read_text()) == without_ids(submitted)
    record = next(iter(launcher.submit_experiments([config]))).record
    given = {"run": record.run, "token": record.attempt.token}
    assert launcher.generate_sbatch_script(config, given).read_text() == submitted


def test_a_template_of_ones_own_makes_the_scripts(lab: Repo, tmp_path: Path) -> None:
    own = tmp_path / "own.sbatch.j2"
    text = shipped_templates()["job.sbatch.j2"]
    own.write_text(text.replace("#!/bin/bash", "#!/bin/bash\n# for {{ purpose | default('all') }}"))
    launcher = SLURMLauncher(template_path=own, project_root=lab.path)
    config = ModelTrainingFramework(lab.path).config_manager.load("one")
    path = launcher.generate_sbatch_script(config, {"purpose": "a test"})
    assert path.read_text().splitlines()[1] == "# for a test"
    run = launcher.submit_single_experiment(config)
    assert run == "4711"
    assert mtf(lab.path, "show", "one", "--script").stdout.splitlines()[1] == "# for all"

    own.write_text("#!/bin/bash\n{{ command ")
    for broken in (own, tmp_path / "missing.j2"):
        with pytest.raises(MtfError, match=rf"{broken}.*(unexpected end|cannot be read)"):
            SLURMLauncher(broken, lab.path).generate_sbatch_script(config)
    assert SBATCHTemplate().text == text


def test_a_run_without_a_job_has_no_script(lab: Repo) -> None:
    assert "one: no such run" in mtf(lab.path, "show", "one", "--script", code=1).stderr
