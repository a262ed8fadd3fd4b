"""A changed template is shown and judged before it is merged, in a plan that asks no cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.packaged_files import data_dir
from tests.cli.mtf import mtf, mtf_json
from tests.cli.specs import SINGLE
from tests.repos import make_repo

if TYPE_CHECKING:
    from pathlib import Path

RULES = "executor: slurm\nremote: null\npolicies: {partitions: [low], max_gpu_hours: 1}\n"
LOW = SINGLE.replace('{time: "00:05:00"}', '{partition: low, time: "60"}')
JOB = (data_dir("templates") / "job.sbatch.j2").read_text()


def template(line: str) -> str:
    """Return mtf's template with a line after the options of mtf."""
    return JOB.replace("{% endfor %}", "{% endfor %}\n" + line, 1)


def test_a_changed_template_is_shown_and_judged_in_the_review(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "r", {"mtf.yaml": RULES, "experiments/alone.yaml": LOW})
    repo.git("switch", "-q", "-c", "pr")
    changed = template("#SBATCH -phigh -G3\n# ``` @all <b>\u202e\x1b[31m")
    repo.commit({"templates/job.sbatch.j2": changed})
    comment = mtf(repo.path, "plan", "--base", "main", "--format", "markdown", code=1).stdout
    assert "+#SBATCH -phigh -G3" in comment
    assert "````diff" in comment  # longer than what the template holds
    assert "\x1b" not in comment
    assert "\u202e" not in comment
    for words in ("high is not allowed. Allowed: low", "up to 3 GPU-hours"):
        assert words in comment
        assert words in mtf(repo.path, "plan", "--base", "main", code=1).stdout
        assert words in mtf(repo.path, "validate", code=1).stdout
        assert words in mtf(repo.path, "validate", "--rev", "HEAD", code=1).stdout
    found = mtf_json(repo.path, "plan", "--base", "main", "--format", "json", code=1)
    assert found["templates"] == ["templates/job.sbatch.j2"]
    assert found["scripts"]["specs"] == 1
    assert {p["rule"] for p in found["problems"]} == {"partitions", "max_gpu_hours"}


def test_the_hours_in_a_review_are_those_of_the_script(tmp_path: Path) -> None:
    files = {"mtf.yaml": RULES, "templates/job.sbatch.j2": template("#SBATCH -N4")}
    repo = make_repo(tmp_path / "r", files)
    repo.git("switch", "-q", "-c", "pr")
    repo.commit({"experiments/alone.yaml": LOW})
    assert "4 nodes, 4 CPU" in mtf(repo.path, "plan", "--base", "main").stdout
    found = mtf_json(repo.path, "plan", "--base", "main", "--format", "json")
    assert found["totals"]["cpu_hours"] == 4


def test_a_copy_of_mtfs_template_is_no_change(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "r", {"mtf.yaml": RULES, "experiments/alone.yaml": LOW})
    repo.git("switch", "-q", "-c", "pr")
    repo.commit({"templates/job.sbatch.j2": JOB})
    assert "Templates" not in mtf(repo.path, "plan", "--base", "main").stdout


def test_a_template_that_cannot_be_rendered_is_a_mistake_at_its_line(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "r", {"mtf.yaml": RULES, "experiments/alone.yaml": LOW})
    repo.git("switch", "-q", "-c", "pr")
    repo.commit({"templates/environment.sh.j2": "\n{{ name.__class__.mro() }}\n"})
    shown = mtf(repo.path, "plan", "--base", "main", code=1).stdout
    assert "templates/environment.sh.j2:2:1: access to attribute '__class__'" in shown
    assert "cannot be rendered" in shown
