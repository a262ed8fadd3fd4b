"""Templates come with a commit: they reach nothing of the process, and their work is bounded."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.ids import RunId, Token
from mtf.core.vocabulary.jobs import JobRequest, Task
from mtf.errors import MtfError
from mtf.executor.sandbox import render_apart, render_texts
from mtf.executor.script import render, render_all
from mtf.executor.slurm.script_options import script_options
from mtf.packaged_files import data_dir
from tests.executor.contract import resources

if TYPE_CHECKING:
    from pathlib import Path

JOB = (data_dir("templates") / "job.sbatch.j2").read_text()
REQUEST = JobRequest(
    token=Token("0123456789abcdef"),
    name="digits",
    tasks=(Task(RunId("r"), 0, "/runs/r"),),
    resources=resources(partition="low", time="10"),
    code_dir="/runs/.code/abc",
    job_dir="/runs/s/.jobs/0123456789abcdef",
    array=False,
    max_parallel=None,
    python="python3",
)
ESCAPES = [
    "{{ cycler.__init__.__globals__.os.environ }}",
    "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context.environment }}",
    "{{ range.__self__ }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ (''|attr('__class__')).mro() }}",
    "{{ ('{0.__class__.__init__.__globals__}').format(namespace) }}",
    "{{ ['{0.__class__}']|map('format', namespace)|list }}",
    "{{ joiner().__init__.__globals__ }}",
    "{{ resources.__class__ }}",
    "{{ resources.update({'partition': 'high'}) }}",
    "{% include '/etc/passwd' %}",
    "{% include '../mtf.yaml' %}",
    "{% import 'os' as os %}{{ os.environ }}",
]
BOMBS = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ 'x' * 10 ** 10 }}",
    "{{ 'x'.ljust(10 ** 10) }}",
    "{{ '%9999999999d' % 1 }}",
    "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% for i in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
    "{% macro m(n) %}{{ m(n - 1) ~ m(n - 1) if n else '' }}{% endmacro %}{{ m(60) }}",
    "{% include 'x.j2' %}{% include 'x.j2' %}",
    "{{ 9 ** (9 ** 9) }}",
]


@pytest.mark.parametrize("text", ESCAPES)
def test_a_template_reaches_nothing_but_its_values(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_API_KEY", "hunter2")
    values = {"resources": {"partition": "low"}}
    for render_ in (render_texts, render_apart):
        (rendered,) = render_("x.j2", {"x.j2": text}, [values])
        out = str(rendered)
        assert "hunter2" not in out
        assert not any(word in out for word in ("environ(", "root:", "<class 'os.", "uid=", "high"))


@pytest.mark.parametrize("text", BOMBS)
def test_the_work_of_a_template_is_bounded(text: str) -> None:
    try:
        (found,) = render_apart("x.j2", {"x.j2": text}, [{}], cpu_s=1)
    except MtfError as e:  # the process was killed
        found = e
    assert isinstance(found, MtfError)
    assert str(found).startswith("templates/x.j2")


def test_a_template_that_fails_for_one_run_renders_the_others() -> None:
    own = {"job.sbatch.j2": JOB + "{% if name == 'bad' %}{{ nonsense }}{% endif %}\n"}
    good, bad, odd = render_all(
        [REQUEST, replace(REQUEST, name="bad"), replace(REQUEST, name="a\nb")], "slurm", own
    )
    assert isinstance(good, str)
    assert isinstance(bad, MtfError)
    assert "'nonsense' is undefined" in str(bad)
    assert isinstance(odd, MtfError)


@pytest.mark.parametrize("text", ["{{ '\\ud800' }}", "{{ 'a\\rb' }}"])
def test_text_that_could_not_be_submitted_is_an_error(text: str) -> None:
    with pytest.raises(MtfError, match=r"templates/job\.sbatch\.j2"):
        render(REQUEST, "slurm", {"job.sbatch.j2": JOB + text})


def test_a_process_that_renders_templates_has_no_environment(tmp_path: Path) -> None:
    script = tmp_path / "sitecustomize.py"
    script.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    os.environ["PYTHONPATH"] = str(tmp_path)
    try:
        assert render_apart("x.j2", {"x.j2": "{{ a | quote }}"}, [{"a": "b c"}]) == ["'b c'"]
    finally:
        del os.environ["PYTHONPATH"]
    assert not (tmp_path / "ran").exists()


def own(text: str) -> str:
    """Return the script of a template that has this after its first line."""
    first, rest = JOB.split("\n", 1)
    return render(REQUEST, "slurm", {"job.sbatch.j2": f"{first}\n{text}\n{rest}"})


def test_mtfs_own_options_are_accepted() -> None:
    options = script_options(REQUEST, render(REQUEST, "slurm"))
    assert options.values["partition"] == "low"
    array = replace(REQUEST, array=True, max_parallel=3)
    assert script_options(array, render(array, "slurm")).values["array"] == "0%3"


def test_what_a_template_overrides_is_what_is_read() -> None:
    late = JOB.replace("{% endfor %}", "{% endfor %}\n#SBATCH -phigh --t=1-0", 1)
    script = render(REQUEST, "slurm", {"job.sbatch.j2": late.replace("--t=", "--time=")})
    values = script_options(REQUEST, script).values
    assert (values["partition"], values["time"]) == ("high", "1-0")


@pytest.mark.parametrize(
    "line",
    ["#SBATCH --array=0-99", "#SBATCH --dep=x", "#SBATCH hetjob", "#SBATCH --t=5", "#PBS -q high"],
)
def test_a_template_cannot_set_what_mtf_sets(line: str) -> None:
    if "dep" in line:
        assert "dependency" in script_options(REQUEST, own(line)).values  # and policies refuse it
        return
    with pytest.raises(MtfError, match=r"templates/job\.sbatch\.j2: its script, line 2"):
        script_options(REQUEST, own(line))


@pytest.mark.parametrize("option", ["job-name", "comment", "output", "open-mode", "signal"])
def test_a_template_cannot_change_or_drop_what_mtf_finds_its_jobs_by(option: str) -> None:
    script = render(REQUEST, "slurm")
    lines = script.split("\n")
    (at,) = (i for i, line in enumerate(lines) if line.startswith(f"#SBATCH --{option}="))
    without = "\n".join([*lines[:at], *lines[at + 1 :]])
    with pytest.raises(MtfError, match=f"lacks --{option}="):
        script_options(REQUEST, without)
    changed = "\n".join([*lines[: at + 1], f"#SBATCH --{option}=other", *lines[at + 1 :]])
    with pytest.raises(MtfError, match=f"mtf sets --{option} itself"):
        script_options(REQUEST, changed)
