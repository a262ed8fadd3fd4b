"""The SLURM executor on a real cluster: the contract, refusals, accounting, signals."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from mtf.core.states import JobState
from mtf.errors import ExecutorUnavailableError, SubmissionRefusedError
from mtf.executor.slurm import SlurmExecutor, available
from tests.executor.contract import Bench, Contract

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm
TRAINER = """\
import os, signal, sys, time
folder = sys.argv[1]
def note(text):
    with open(os.path.join(folder, "heard"), "a") as f:
        f.write(text + "\\n")
def on(number, frame):
    note(signal.Signals(number).name)
    if number == signal.SIGUSR1:
        sys.exit(85)
for s in (signal.SIGTERM, signal.SIGUSR1):
    signal.signal(s, on)
note("life " + os.environ["MTF_RESTARTS"])
if os.environ["MTF_RESTARTS"] != "0":
    sys.exit(0)
end = time.time() + 300
while time.time() < end:
    time.sleep(0.1)
"""


@pytest.fixture
def make(cluster: Cluster, tmp_path: Path) -> Callable[[str], Bench]:
    tmp_path.chmod(0o755)

    def factory(snippet: str) -> Bench:
        shipped = Path(__file__).parents[2] / "templates" / "job.sbatch.j2"
        head = shipped.read_text().split("srun", 1)[0].rsplit("\n\n", 1)[0]
        text = f"{head}\n# srun {{{{ command }}}}\n: || \\\nsrun true\n{snippet}\n"
        return Bench(SlurmExecutor({"job.sbatch.j2": text}), tmp_path / "runs")

    return factory


@pytest.fixture
def real(cluster: Cluster, tmp_path: Path) -> Bench:
    """The shipped template, with a small program where the trainer would be."""
    bench = Bench(SlurmExecutor(), tmp_path / "runs")
    package = bench.root / ".code" / "c" / "mtf"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "trainer.py").write_text(TRAINER)
    return bench


class TestContract(Contract):
    """SLURM keeps the contract."""

    @pytest.fixture
    def make(self, make: Callable[[str], Bench]) -> Callable[[str], Bench]:
        return make


def test_this_cluster_is_available(cluster: Cluster) -> None:
    assert available()


def test_no_configuration_means_no_cluster(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", "/nonexistent/slurm.conf")
    assert not available()


@pytest.mark.parametrize(
    ("needs", "text"),
    [
        ({"partition": "nope"}, "Invalid partition name"),
        ({"reservation": "nope"}, "reservation"),
        ({"constraint": "nope"}, "feature"),
        ({"extra": ["--nonsense=1"]}, "unrecognized option"),
    ],
)
def test_a_refusal_is_final_and_keeps_slurms_words(make: Callable[[str], Bench], needs: dict[str, object], text: str) -> None:  # fmt: skip
    bench = make("exit 0")
    request = bench.request(**needs)
    with pytest.raises(SubmissionRefusedError, match=text):
        bench.submit(request)
    assert bench.views(request) == {}


def test_the_array_limit_is_the_clusters(make: Callable[[str], Bench]) -> None:
    assert make("exit 0").executor.limits().max_array_size == 1001


def test_a_controller_that_is_down_means_unavailable(make: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # fmt: skip
    conf = Path(os.environ["SLURM_CONF"]).read_text()
    port = next(line for line in conf.splitlines() if line.startswith("SlurmctldPort="))
    other = tmp_path / "slurm.conf"
    other.write_text(conf.replace(port, "SlurmctldPort=9") + "MessageTimeout=2\n")
    bench = make("exit 0")
    request = bench.request()
    monkeypatch.setenv("SLURM_CONF", str(other))
    with pytest.raises(ExecutorUnavailableError, match="controller"):
        bench.submit(request)
    with pytest.raises(ExecutorUnavailableError):
        bench.views(request)
    monkeypatch.undo()


def test_the_submitters_secrets_do_not_reach_the_job(make: Callable[[str], Bench], monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.setenv("SECRET_KEY", "hush")
    bench = make('env > "$MTF_RUN_DIR/env"')
    request = bench.request(variables={"LAB": "a b'c"})
    bench.submit(request)
    bench.wait_ended(request)
    env = bench.wait_file(request, "env")
    assert "hush" not in env
    assert "LAB=a b'c\n" in env


def test_preemption_reaches_the_trainer_as_term_and_the_job_comes_back(real: Bench) -> None:
    request = real.request(partition="low", cpus_per_task=4)
    real.submit(request)
    real.wait_file(request, "heard")
    rivals = real.request((0, 1, 2, 3), partition="high", cpus_per_task=4)
    real.submit(rivals)
    view = real.wait(request, lambda f: f[0].state is JobState.COMPLETED or f[0].restarts > 0, 60)[
        0
    ]
    assert view.restarts == 1
    assert real.wait_file(request, "heard").splitlines()[:2] == ["life 0", "SIGTERM"]
    real.executor.cancel([v.job_id for v in real.views(rivals).values()])
    assert real.wait(request, lambda f: f[0].state is JobState.COMPLETED, 150)[0].restarts == 1


def test_ahead_of_the_time_limit_the_trainer_is_warned_and_its_job_requeued(real: Bench) -> None:
    request = real.request(time="00:01:00", signal_lead=55)
    real.submit(request)
    view = real.wait(request, lambda f: f[0].state is JobState.COMPLETED, 200)[0]
    assert view.restarts == 1
    assert real.wait_file(request, "heard").splitlines() == ["life 0", "SIGUSR1", "life 1"]


def test_a_cancelled_trainer_hears_term_and_is_not_requeued(real: Bench) -> None:
    request = real.request()
    jobs = real.submit(request)
    real.wait_file(request, "heard")
    real.executor.cancel(list(jobs.values()))
    view = real.wait_ended(request)[0]
    assert (view.state, view.restarts) == (JobState.CANCELLED, 0)
    assert real.wait_file(request, "heard").splitlines() == ["life 0", "SIGTERM"]
