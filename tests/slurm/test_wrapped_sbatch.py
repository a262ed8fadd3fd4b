"""An sbatch that a site has wrapped or filtered: the job is the one with our token."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.ids import job_name
from mtf.core.vocabulary.states import JobState
from mtf.errors import SubmissionRefusedError, SubmissionUncertainError
from mtf.executor.slurm.slurm_executor import SlurmExecutor
from tests.executor.contract import Bench

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm


@pytest.fixture
def wrapped(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Bench]:
    """Return an executor whose sbatch is a script; SBATCH stands for SLURM's own."""
    real = shutil.which("sbatch")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def make(script: str) -> Bench:
        (tmp_path / "bin").mkdir(exist_ok=True)
        program = tmp_path / "bin" / "sbatch"
        program.write_text(f"#!/bin/bash\n{script.replace('SBATCH ', f'{real} ')}\n")
        program.chmod(0o755)
        return Bench(SlurmExecutor(), tmp_path / "runs")

    return make


def queued(bench: Bench) -> list[str]:
    """Return the names of the jobs in the queue."""
    names = ",".join(bench.names.values())
    command = ["squeue", "--noheader", "--format=%j", f"--name={names}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    "script",
    [
        'echo 2026; SBATCH "$@" | sed "s/^/Submitted batch job /"',
        'echo "quota: 17 of 40 jobs"; SBATCH "$@"; echo 99',
        'printf "\\033[32m%s\\033[0m\\n" "$(SBATCH "$@")"',
        'SBATCH "$@" >&2',
        'SBATCH "$@" > /dev/null',
        'SBATCH "$@"; exit 3',
        'echo "authentication changes on Monday" >&2; SBATCH "$@" | tr -d "\\n"; echo " submitted"',
    ],
)
@pytest.mark.parametrize("array", [False, True])
def test_the_job_is_the_one_with_the_token_whatever_is_printed_around_its_id(
    wrapped: Callable[[str], Bench], script: str, array: bool
) -> None:
    bench = wrapped(script)
    request = bench.request((0, 2) if array else (0,), array=array, extra=["--hold"])
    jobs = bench.submit(request)
    views = bench.views(request)
    assert jobs == {index: view.job_id for index, view in views.items()}
    assert jobs.keys() == ({0, 2} if array else {0})
    assert {view.state for view in views.values()} == {JobState.HELD}


def test_an_answer_without_any_job_is_looked_up_later(wrapped: Callable[[str], Bench]) -> None:
    bench = wrapped("echo thank you")
    with pytest.raises(SubmissionUncertainError, match="no job id"):
        bench.submit(bench.request())
    assert queued(bench) == []


@pytest.mark.parametrize("form", ["$id;big", "Submitted batch job $id on cluster big"])
def test_a_job_of_another_cluster_is_refused_and_named(
    wrapped: Callable[[str], Bench], form: str
) -> None:
    bench = wrapped(f'id=$(SBATCH "$@"); echo welcome; echo "{form}"')
    with pytest.raises(SubmissionRefusedError, match=r"job [0-9]+ to cluster big.*scancel -M big"):
        bench.submit(bench.request(extra=["--hold"]))


def test_an_answer_that_names_our_own_cluster_is_one_of_ours(
    wrapped: Callable[[str], Bench],
) -> None:
    own = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=True)
    name = next(x.split()[-1] for x in own.stdout.splitlines() if x.startswith("ClusterName"))
    bench = wrapped(f'echo "$(SBATCH "$@");{name}"')
    request = bench.request(extra=["--hold"])
    assert bench.submit(request)[0] == bench.views(request)[0].job_id


def test_a_refusal_names_the_variables_that_are_not_passed_on(
    wrapped: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = wrapped(
        'echo "*** welcome ***" >&2\n'
        'grep -q -- --account "${@: -1}" || { echo "sbatch: error: Batch job submission failed:'
        ' Invalid account" >&2; exit 1; }\nSBATCH "$@"'
    )
    monkeypatch.setenv("SBATCH_ACCOUNT", "lab")
    monkeypatch.setenv("SQUEUE_FORMAT", "%i")
    with pytest.raises(SubmissionRefusedError) as e:
        bench.submit(bench.request())
    assert str(e.value) == (
        "Batch job submission failed: Invalid account. SBATCH_ACCOUNT is set here, and mtf passes"
        " no SBATCH_* on: set slurm.account in mtf.yaml"
    )
    assert queued(bench) == []


def test_expedite_is_refused_with_words_where_slurm_is_too_old(
    wrapped: Callable[[str], Bench],
) -> None:
    bench = wrapped('SBATCH "$@"')
    request = bench.request(requeue="expedite")
    with pytest.raises(SubmissionRefusedError, match=r"needs SLURM 25\.11, here is [0-9.]+"):
        bench.submit(request)
    assert "#SBATCH --requeue=expedite\n" in bench.script(request)
    assert job_name(request.name, request.token) not in queued(bench)


def test_expedite_reaches_an_sbatch_that_knows_it(
    wrapped: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = wrapped('grep -- --requeue "${@: -1}" > "$(dirname "$0")/asked"; echo thank you')
    scontrol = "#!/bin/bash\necho 'SLURM_VERSION = 25.11.1'; echo 'MaxArraySize = 9'\n"
    (bench.root.parent / "bin" / "scontrol").write_text(scontrol)  # stands for a newer SLURM's
    (bench.root.parent / "bin" / "scontrol").chmod(0o755)
    with pytest.raises(SubmissionUncertainError):
        bench.submit(bench.request(requeue="expedite"))
    asked = (bench.root.parent / "bin" / "asked").read_text()
    assert asked == "#SBATCH --requeue=expedite\n"
