"""Programs of SLURM that do not answer hold up nobody but the one who has asked them."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from mtf.commands import act_on_runs
from mtf.errors import SubmissionUncertainError
from mtf.executor.slurm import slurm_executor
from mtf.executor.slurm.slurm_executor import SlurmExecutor
from mtf.project.project import open_project
from tests.cli.lab import make_lab, runs, spec, states, sync_until, wait_until
from tests.cli.mtf import mtf
from tests.executor.contract import Bench
from tests.slurm.test_sync_slurm import ON_SLURM, shim, shims

if TYPE_CHECKING:
    from pathlib import Path

    from tests.slurm_cluster import Cluster

pytestmark = pytest.mark.slurm
__all__ = ["shims"]
HELD = "slurm: {extra: [--begin=now+1hour], "


def hanging(folder: Path, name: str) -> Path:
    """Replace a program with one that never answers, whose child would call the real one later."""
    path = shim(folder, f"echo $$ >> {folder}/asked\n(sleep 300) & wait; exit 1")
    return path.rename(folder / name)


def test_a_cancellation_gets_through_while_a_sync_waits_for_squeue(
    cluster: Cluster, tmp_path: Path, shims: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = {f"{name}.yaml": spec(name).replace("slurm: {", HELD) for name in ("a", "b")}
    lab = make_lab(tmp_path, specs, settings=ON_SLURM)
    mtf(lab.path, "sync")
    jobs = {name: run["job_id"] for name, run in runs(lab).items()}

    def waits() -> set[str]:
        """Return the ids of our jobs that wait; other tests may leave some."""
        listed = cluster.run("squeue", "-h", "-o", "%i", "-t", "pending").split()
        return {*listed} & {*jobs.values()}

    said: list[str] = []
    monkeypatch.setattr(act_on_runs, "_PATIENCE_S", 5.0)  # for those that do answer

    def cancel(name: str) -> None:
        act_on_runs.cancel(open_project(lab.path), [name], publish=True, say=said.append)

    hanging(shims, "squeue")
    with subprocess.Popen([sys.executable, "-m", "mtf.cli", "sync"], cwd=lab.path) as sync:
        wait_until((shims / "asked").exists, lambda: "the sync asks nobody")
        cancel("a")  # scontrol and scancel answer
        wait_until(lambda: waits() == {jobs["b"]}, waits)
        assert sync.poll() is None
        sync.kill()
    assert said == []
    for name in ("scontrol", "scancel"):
        hanging(shims, name)
    monkeypatch.setattr(act_on_runs, "_PATIENCE_S", 0.5)
    cancel("b")
    (line,) = said
    assert line.startswith("recorded 1 cancelled run: scontrol did not answer within 0.5 s. The")
    assert waits() == {jobs["b"]}
    for path in shims.iterdir():
        path.unlink()
    mtf(lab.path, "sync")  # ends what was recorded
    assert waits() == set()
    sync_until(lab, lambda f: set(states(f).values()) == {"cancelled"})


@pytest.mark.parametrize("accepted", [True, False])
def test_a_sbatch_that_hangs_ends_with_its_children_and_its_jobs_are_looked_up(
    cluster: Cluster, tmp_path: Path, shims: Path, monkeypatch: pytest.MonkeyPatch, accepted: bool
) -> None:
    """A wrapper of a site that tries again in the background would submit a second time."""
    tmp_path.chmod(0o755)
    bench = Bench(SlurmExecutor({}), tmp_path / "runs")
    limit_s, late_s = (5.0, 8.0) if accepted else (1.0, 3.0)
    request = bench.request((0, 1))
    submits = '"$real" "$@" >/dev/null' if accepted else ":"
    shim(shims, f'{submits}\n(sleep {late_s:g}; "$real" "$@"; touch {shims}/late) & wait')
    monkeypatch.setattr(slurm_executor, "_SUBMIT_S", limit_s)
    if accepted:
        assert set(bench.submit(request)) == {0, 1}
    else:
        with pytest.raises(SubmissionUncertainError, match="sbatch did not answer within 1 s"):
            bench.submit(request)
    time.sleep(late_s - limit_s + 1)
    assert not (shims / "late").exists()
    assert len(bench.views(request)) == (2 if accepted else 0)
