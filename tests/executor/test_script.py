"""Job scripts: their text, what is refused, and what a value can never do to them."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from mtf.core.ids import RunId, Token
from mtf.core.jobs import JobRequest, Task
from mtf.errors import MtfError
from mtf.executor.script import check_script, render, slurm_options
from tests.executor.contract import resources

GOLDEN = Path(__file__).parent / "golden"
FULL = JobRequest(
    token=Token("0123456789abcdef"),
    name="digits_search",
    tasks=tuple(Task(RunId(f"r/{i}"), i, f"/data/runs/s/{i}") for i in (0, 1, 2, 5)),
    resources=resources(
        partition="gpu", account="lab", qos="long", nodes=2, ntasks_per_node=4, gpus_per_node=4,
        cpus_per_task=8, mem="64G", time="12:00:00", constraint="a100&nvlink", reservation="maintenance",
        signal_lead=120, modules=["cuda/12.4"], venv="/opt/my envs/mtf", variables={"NCCL_DEBUG": "INFO"},
        extra=["--exclusive"],
    ),
    code_dir="/data/runs/.code/abc", job_dir="/data/runs/s/.jobs/0123456789abcdef", array=True,
    max_parallel=16, python="/usr/bin/python3",
)  # fmt: skip
PLAIN = replace(
    FULL, tasks=FULL.tasks[:1], array=False, resources=resources(time=None, requeue=False)
)


@pytest.mark.parametrize(
    ("name", "request_", "kind"),
    [
        ("array.sbatch", FULL, "slurm"),
        ("plain.sbatch", PLAIN, "slurm"),
        ("local.sh", FULL, "local"),
    ],
)
def test_the_script_is_the_golden_one(name: str, request_: JobRequest, kind: str) -> None:
    text = render(request_, kind)  # type: ignore[arg-type]
    assert text == (GOLDEN / name).read_text()
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_a_container_runs_the_trainer_with_the_run_root_bound() -> None:
    text = render(replace(FULL, resources=resources(container="/images/torch.sif")), "slurm")
    assert "srun --export=ALL --kill-on-bad-exit=1 apptainer exec --bind /data/runs" in text
    assert "/images/torch.sif python -m mtf.trainer" in text


NASTY = ["$(touch HIT)", "`touch HIT`", "a; touch HIT", "a\ntouch HIT", "'; touch HIT; '", '"$(touch HIT)"', "a && touch HIT"]  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("place", ["variables", "code_dir", "venv"])
def test_no_value_becomes_a_command(tmp_path: Path, text: str, place: str) -> None:
    nasty = {
        "variables": replace(FULL, resources=resources(variables={"A": text})),
        "code_dir": replace(FULL, resources=resources(), code_dir=text),
        "venv": replace(FULL, resources=resources(venv=text)),
    }[place]
    script = render(nasty, "local")
    # what the script would start is not there: all that counts is what it does before
    subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, env={"PATH": "/usr/bin:/bin"})  # fmt: skip
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ['a"b', "a\n#SBATCH --uid=0"])
def test_a_path_that_cannot_stand_in_a_directive_is_refused(text: str) -> None:
    with pytest.raises(MtfError, match="#SBATCH"):
        slurm_options(replace(FULL, job_dir=f"/runs/{text}"))


def test_a_percent_sign_in_a_path_is_no_pattern() -> None:
    request = replace(FULL, job_dir="/runs/100%j/s")
    assert "--output=/runs/100%%j/s/%a/%A_%a.out" in slurm_options(request)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ("echo mtf.trainer\n", "job.sbatch.j2:1: the first line must name the shell"),
        ("#!/bin/bash\necho hello\n", "nothing starts the trainer"),
        (
            "#!/bin/bash\ncd /\n#SBATCH --mem=1\nsrun mtf.trainer\n",
            r"job.sbatch.j2:3: sbatch ignores",
        ),
        ("#!/bin/bash\n#SBATCH --requeue=true\nsrun mtf.trainer\n", r"job.sbatch.j2:2: --requeue"),
        ("#!/bin/bash\npython -m mtf.trainer x\n", "without srun"),
        ("#!/bin/bash\n{{ nonsense }}\nsrun mtf.trainer\n", "'nonsense' is undefined"),
        ("#!/bin/bash\n\n{% if %}\n", r"job.sbatch.j2:3: "),
    ],
)
def test_a_template_of_the_user_that_could_not_work_is_refused_at_its_line(
    own: str, said: str
) -> None:
    with pytest.raises(MtfError, match=said):
        render(FULL, "slurm", {"job.sbatch.j2": own})


def test_a_template_of_the_user_replaces_a_part() -> None:
    text = render(FULL, "slurm", {"environment.sh.j2": "module load site-{{ name }}\n"})
    assert "module load site-digits_search" in text
    assert "cuda/12.4" not in text


def test_windows_line_ends_never_reach_sbatch() -> None:
    own = "#!/bin/bash\r\nsrun mtf.trainer\r\n"
    assert "\r" not in render(FULL, "slurm", {"job.sbatch.j2": own})
    with pytest.raises(MtfError, match=r"job\.sbatch\.j2:1: Windows line ends"):
        check_script(own, "slurm")


def test_a_script_that_is_fine_passes() -> None:
    check_script(
        "#!/bin/bash\n#SBATCH --mem=1\n\n# a note\nsrun python -m mtf.trainer x\n", "slurm"
    )
