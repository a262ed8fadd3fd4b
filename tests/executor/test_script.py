"""Job scripts: golden texts, refused templates, and values that try to inject commands."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

import mtf
from mtf.core.vocabulary.ids import RunId, Token
from mtf.core.vocabulary.jobs import JobRequest, Task
from mtf.errors import MtfError
from mtf.executor.script import check_script, render, slurm_options
from tests.executor.contract import resources

PACKAGE = Path(mtf.__file__).parent
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
    assert text.replace(str(PACKAGE), "MTF") == (GOLDEN / name).read_text()
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


RUNTIME = '"$(command -v apptainer || command -v singularity || echo apptainer)"'


@pytest.mark.parametrize(
    ("image", "gpus", "launch"),
    [
        ("/images/torch.sif", 0, f"{RUNTIME} exec --bind /data/runs --pwd /data/runs/.code/abc /images/torch.sif python"),
        ("docker://torch:2", 1, f"{RUNTIME} exec --bind /data/runs --pwd /data/runs/.code/abc --nv docker://torch:2 python"),
    ],
)  # fmt: skip
def test_a_container_runs_the_trainer_with_the_run_root_bound(
    image: str, gpus: int, launch: str
) -> None:
    for kind in ("slurm", "local"):
        needs = resources(container=image, gpus_per_node=gpus)
        assert launch in render(replace(FULL, resources=needs), kind)


@pytest.mark.parametrize("image", ["nvcr.io#nvidia/pytorch:24.05", "/images/torch.sqsh"])
def test_an_image_for_pyxis_becomes_options_of_srun(image: str) -> None:
    request = replace(FULL, resources=resources(container=image))
    (line,) = [x for x in render(request, "slurm").splitlines() if x.startswith("srun")]
    assert (
        "--container-mounts=/data/runs:/data/runs --container-workdir=/data/runs/.code/abc" in line
    )
    assert f"--container-image={image}" in line.replace("'", "")
    with pytest.raises(MtfError, match="pyxis"):
        render(request, "local")


# values that a forged ledger could contain, but never a valid spec
NASTY = ["$(touch HIT)", "`touch HIT`", "a; touch HIT", "a\ntouch HIT", "'; touch HIT; '", '"$(touch HIT)"', "a && touch HIT", "a\rtouch HIT", "\u2028touch HIT", "-e touch HIT"]  # fmt: skip


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize(
    "place", ["variables", "code_dir", "venv", "conda", "modules", "token", "python", "container"]
)
def test_no_value_becomes_a_command(tmp_path: Path, text: str, place: str) -> None:
    injected = {
        "variables": replace(FULL, resources=resources(variables={"A": text})),
        "code_dir": replace(FULL, resources=resources(), code_dir=text),
        "venv": replace(FULL, resources=resources(venv=text)),
        "conda": replace(FULL, resources=resources(conda=text)),
        "modules": replace(FULL, resources=resources(modules=[text])),
        "container": replace(FULL, resources=resources(container=text)),
        "token": replace(FULL, resources=resources(), token=Token(text)),
        "python": replace(FULL, resources=resources(), python=text),
    }[place]
    try:
        script = render(injected, "local")
    except MtfError:
        return  # a refusal is fine, too
    if place not in ("code_dir", "venv", "conda", "modules"):  # these end the script, as intended
        script = script.replace("/data/runs/.code/abc", str(tmp_path))
    # the trainer does not exist here: only the commands before it run
    env = {"PATH": "/usr/bin:/bin", "MTF_RUN_DIR": "/"}
    subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, env=env)
    assert list(tmp_path.iterdir()) == []


LINES = [
    "a\n#SBATCH --uid=0",
    'a" --uid=0 "b',
    "a\\",
    "a\x00",
    "a\x85#SBATCH --uid=0",
    "a\u2028b",
    "\r",
]


@pytest.mark.parametrize("text", LINES)
@pytest.mark.parametrize(
    "place", ["name", "job_dir", "partition", "account", "time", "constraint", "mem", "extra"]
)
def test_no_value_becomes_another_option(text: str, place: str) -> None:
    injected = {
        "name": replace(FULL, name=text),
        "job_dir": replace(FULL, job_dir=f"/runs/{text}"),
        "extra": replace(FULL, resources=resources(extra=[f"--licenses={text}"])),
    }.get(place) or replace(FULL, resources=resources(**{place: text}))
    with pytest.raises(MtfError):
        render(injected, "slurm")


@pytest.mark.parametrize("text", ["a #b", "a;b", "$(b)", "a 'b'", "ü"])
def test_a_path_with_special_characters_is_quoted_in_a_directive(text: str) -> None:
    options = slurm_options(replace(FULL, job_dir=f"/runs/{text}"))
    assert f'--output="/runs/{text}/%A_%a.out"' in options


@pytest.mark.parametrize(
    "text", ["exclusive", "--exclusive --uid=0", "--a=$(b)", "--a\n--b", "-p", "--a=b #c", ""]
)
def test_an_extra_option_must_be_a_single_option(text: str) -> None:
    with pytest.raises(MtfError, match=r"slurm\.extra"):
        slurm_options(replace(FULL, resources=resources(extra=[text])))


@pytest.mark.parametrize("name", ["A;touch HIT", "A B", "A=1 B", "1A", "$(A)", "A\nB", ""])
def test_a_variable_needs_a_valid_name(name: str) -> None:
    with pytest.raises(MtfError, match=r"slurm\.variables"):
        render(replace(FULL, resources=resources(variables={name: "1"})), "slurm")


def test_a_percent_sign_in_a_path_is_escaped() -> None:
    request = replace(FULL, job_dir="/runs/100%j/s")
    assert "--output=/runs/100%%j/s/%A_%a.out" in slurm_options(request)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("echo mtf.trainer\n", "job.sbatch.j2:1: the first line must name the shell"),
        ("#!/bin/bash\necho hello\n", "no line starts the trainer"),
        (
            "#!/bin/bash\ncd /\n#SBATCH --mem=1\nsrun mtf.trainer\n",
            r"job.sbatch.j2:3: sbatch ignores",
        ),
        ("#!/bin/bash\n#SBATCH --requeue=true\nsrun mtf.trainer\n", r"job.sbatch.j2:2: --requeue"),
        ("#!/bin/bash\npython -m mtf.trainer x\n", "no line starts srun"),
        ("#!/bin/bash\n# srun {{ command }}\n", "no line starts the trainer"),
        (
            "#!/bin/bash\n{{ nonsense }}\nsrun mtf.trainer\n",
            r"templates/job.sbatch.j2:2: 'nonsense' is undefined",
        ),
        ("#!/bin/bash\n\n{{ 1 + token }}\n", r"templates/job.sbatch.j2:3: unsupported operand"),
        (
            "#!/bin/bash\n{% include 'nope.j2' %}\n",
            r"templates/job.sbatch.j2:2: the commit has no template 'nope.j2'",
        ),
        ("#!/bin/bash\n\n{% if %}\n", r"job.sbatch.j2:3: "),
    ],
)
def test_a_user_template_that_could_not_work_is_refused_at_its_line(own: str, message: str) -> None:
    with pytest.raises(MtfError, match=message):
        render(FULL, "slurm", {"job.sbatch.j2": own})


def test_a_user_template_replaces_an_included_part() -> None:
    text = render(FULL, "slurm", {"environment.sh.j2": "module load site-{{ name }}\n"})
    assert "module load site-digits_search" in text
    assert "cuda/12.4" not in text


def test_an_error_in_an_included_part_is_reported_at_its_own_line() -> None:
    with pytest.raises(MtfError, match=r"templates/environment\.sh\.j2:2: 'x' is undefined"):
        render(FULL, "slurm", {"environment.sh.j2": "\n{{ x }}\n"})


def test_windows_line_endings_never_reach_sbatch() -> None:
    own = "#!/bin/bash\r\nsrun mtf.trainer\r\n"
    assert "\r" not in render(FULL, "slurm", {"job.sbatch.j2": own})
    with pytest.raises(MtfError, match=r"job\.sbatch\.j2:1: sbatch refuses Windows line endings"):
        check_script(own, "slurm")


def test_a_valid_script_is_accepted() -> None:
    check_script(
        "#!/bin/bash\n#SBATCH --mem=1\n\n# a note\nsrun python -m mtf.trainer x\n", "slurm"
    )
