"""`mtf sync` on the local executor, end to end: real jobs, real training, a real remote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mtf import rundir
from mtf.spec.yaml.reader import load_yaml
from tests.cli.lab import (
    GRID,
    QUICK,
    make_lab,
    push,
    runs,
    spec,
    states,
    stop_jobs,
    sync_until,
)
from tests.cli.mtf import mtf, mtf_json
from tests.repos import git

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.repos import Repo

STATUS_KEYS = {
    "run",
    "submission",
    "experiment",
    "grid",
    "branch",
    "commit",
    "sync",
    "state",
    "reason",
    "executor",
    "job_id",
    "attempts",
    "epoch",
    "step",
    "checkpoint",
    "metrics",
    "claimed_at",
    "submitted_at",
    "started_at",
    "finished_at",
}


@pytest.fixture(autouse=True)
def stop_worker(tmp_path: Path) -> Iterator[None]:
    yield
    stop_jobs(tmp_path)


def test_a_committed_grid_is_trained_once_and_read_back_from_git(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"quick.yaml": QUICK, "search.yaml": GRID})
    head = lab.git("rev-parse", "HEAD")
    lab.write({"models.py": "raise SystemExit('the live work tree was imported')"})
    mtf(lab.path, "sync", "--wait", "--interval", "0.3")

    found = mtf_json(lab.path, "status", "--json")
    assert len(found) == 4
    for run in found:
        assert run.keys() >= STATUS_KEYS
        assert (run["state"], run["sync"], run["commit"]) == ("completed", "Synced", head)
        assert run["metrics"]["val_accuracy"] > 0.5
        checkpoint = run["checkpoint"]
        assert Path(checkpoint["path"]).stat().st_size == checkpoint["bytes"]
        folder = Path(run["run_dir"])
        assert (folder / "checkpoints" / "latest.ckpt").resolve() == Path(checkpoint["path"])
        assert {
            "config.yaml",
            "journal.jsonl",
            f"{run['job_id']}.out",
            f"{run['job_id']}.sbatch",
        } <= {p.name for p in folder.iterdir()}
        proof = next(f for f in rundir.read_journal(folder) if f["event"] == "proof")
        assert proof["commit"] == head
        assert proof["packages"]["torch"].startswith("2.")

    # pinned and recorded, here and on the remote
    branch = found[0]["branch"]
    assert git(tmp_path / "lab.git", "rev-parse", branch) == head
    assert git(tmp_path / "lab.git", "rev-parse", "mtf/ledger") == lab.git(
        "rev-parse", "mtf/ledger"
    )
    assert len(list((lab.path / "runs" / ".code").glob("[0-9a-f]*[0-9a-f]"))) == 1

    # nothing is done twice
    before = lab.git("rev-parse", "mtf/ledger")
    assert mtf_json(lab.path, "plan", "--format", "json")["actions"] == []
    mtf(lab.path, "sync")
    assert lab.git("rev-parse", "mtf/ledger") == before

    # another clone answers from git alone
    git(tmp_path, "clone", "-q", str(tmp_path / "lab.git"), "other")
    elsewhere = mtf_json(tmp_path / "other", "status", "--json")
    assert [r["run"] for r in elsewhere] == [r["run"] for r in found]
    best = mtf_json(tmp_path / "other", "results", "search", "--json")[0]
    assert best["best"]["value"] == max(r["best"]["value"] for r in found)
    assert "epoch" in mtf(tmp_path / "other", "show", best["run"]).stdout

    # a value more is a run more, and nothing else
    lab.git("checkout", "-q", "models.py")
    push(lab, {"experiments/search.yaml": GRID.replace("[1, 2]", "[1, 2, 3]")})
    actions = mtf_json(lab.path, "plan", "--format", "json")["actions"]
    assert [a["action"] for a in actions] == ["submit", "submit"]
    assert {a["experiment"].split(",")[1] for a in actions} == {"training.seed=3"}


def test_preempted_cancelled_and_broken_runs_get_their_states_and_causes(tmp_path: Path) -> None:
    lab = make_lab(
        tmp_path,
        {
            "slow.yaml": spec("slow", pause=0.06, epochs=3),
            "broken.yaml": spec("broken", model="Broken"),
        },
    )
    found = sync_until(
        lab, lambda f: f["slow"]["state"] == "running" and (f["slow"]["step"] or 0) > 0
    )
    mtf(lab.path, "preempt", "slow")
    sync_until(
        lab,
        lambda f: (
            f["slow"]["state"] == "preempted"
            or (f["slow"]["started_at"] and _starts(f["slow"]) > 1)
        ),
    )
    found = sync_until(
        lab, lambda f: f["slow"]["state"] == "completed" and f["broken"]["state"] == "failed"
    )
    assert found["broken"]["reason"].startswith("ValueError: the flux is out of range (models.py:")
    assert "the flux is out of range" in mtf(lab.path, "logs", "broken", "--err").stdout
    assert "errors are on stderr: mtf logs --err" in mtf(lab.path, "logs", "broken").stderr
    assert (found["broken"]["cause"], found["slow"]["cause"]) == ("code-error", "completed")

    # a class of ends is run again with other resources, and nothing else is
    assert "name a RUN" in mtf(lab.path, "retry", code=64).stderr
    assert (
        "no run with cause=host-oom"
        in mtf(lab.path, "retry", "--where", "cause=host-oom", code=1).stderr
    )
    mtf(lab.path, "retry", "--where", "cause=code-error", "--set", "slurm.mem=3G", "--yes")
    changed = runs(lab)["broken"]
    assert [a["changes"] for a in changed["attempts"]] == [{}, {"slurm.mem": "3G"}]
    request = Path(changed["run_dir"]) / rundir.JOBS / changed["attempts"][-1]["token"]
    assert rundir.read_config(request, 0)["slurm"]["mem"] == "3G"
    events = [f["event"] for f in rundir.read_journal(Path(found["slow"]["run_dir"]))]
    assert events.count("started") == 2
    assert "stopped" in events

    # the interrupted training is bit for bit what an uninterrupted one is
    push(
        lab,
        {
            "experiments/twin.yaml": spec("twin", pause=0.0, epochs=3),
            "experiments/endless.yaml": spec("endless", pause=0.05, epochs=500),
        },
    )
    found = sync_until(
        lab,
        lambda f: (
            "twin" in f and f["twin"]["state"] == "completed" and f["endless"]["state"] == "running"
        ),
    )
    assert found["twin"]["metrics"] == found["slow"]["metrics"]

    torn, whole = _idle_requests(found["endless"])
    mtf(lab.path, "cancel", "endless")
    found = sync_until(lab, lambda f: f["endless"]["state"] == "cancelled")
    assert found["endless"]["sync"] == "Synced"
    assert not whole.exists()
    assert f"rm -r {torn}" in mtf(lab.path, "doctor", code=None).stdout
    assert mtf_json(lab.path, "plan", "--format", "json")["actions"] == []  # it stays cancelled

    # a retry goes on from the checkpoint, as a new attempt of the same run
    mtf(lab.path, "retry", "endless")
    found = sync_until(
        lab, lambda f: f["endless"]["state"] == "running" and _starts(f["endless"]) > 1
    )
    assert len(found["endless"]["attempts"]) == 2
    starts = [
        f for f in rundir.read_journal(Path(found["endless"]["run_dir"])) if f["event"] == "started"
    ]
    assert starts[1]["step"] > 0

    # a removed spec cancels nothing, pruning does
    lab.git("rm", "-q", "experiments/endless.yaml")
    push(lab, {})
    mtf(lab.path, "sync")
    assert (runs(lab)["endless"]["state"], runs(lab)["endless"]["sync"]) == ("running", "OutOfSync")
    _prune_and_read(lab, found["endless"]["run"])
    sync_until(lab, lambda f: f["endless"]["state"] == "cancelled")
    assert mtf(lab.path, "retry", "slow", code=1).stderr.startswith("complete ")


def _prune_and_read(lab: Repo, run: str) -> None:
    """Prune one run; the sync says so, and counts the others as unchanged."""
    pruned = mtf(lab.path, "sync", "--prune", "--json")
    assert list(json.loads(pruned.stdout)["pruned"]) == [run]
    assert "pruned      endless: its spec is gone (--prune)" in pruned.stderr
    assert "Synced: 1 pruned, 3 unchanged\n" in pruned.stderr


def _idle_requests(run: dict[str, Any]) -> tuple[Path, Path]:
    """Return folders of requests without jobs, as killed syncs leave them: a torn and a whole."""
    torn, whole = (Path(run["run_dir"]) / rundir.JOBS / token for token in ("1" * 8, "2" * 8))
    for folder in (torn, whole):
        folder.mkdir()
        rundir.write_configs(folder, [{"mtf": {"run": run["run"]}}])
    configs = next(torn.iterdir())
    configs.write_bytes(configs.read_bytes()[:-5])
    return torn, whole


def _starts(run: dict[str, object]) -> int:
    return sum(f["event"] == "started" for f in rundir.read_journal(Path(str(run["run_dir"]))))


def test_a_run_with_two_processes_trains_with_both(tmp_path: Path) -> None:
    text = spec("pair", epochs=2).replace("slurm: {", "slurm: {ntasks_per_node: 2, ")
    lab = make_lab(tmp_path, {"pair.yaml": text})
    mtf(lab.path, "sync", "--wait", "--interval", "0.3")
    (run,) = mtf_json(lab.path, "status", "--json")
    assert run["state"] == "completed", run["reason"]
    started = [f for f in rundir.read_journal(Path(run["run_dir"])) if f["event"] == "started"]
    assert [fact["world_size"] for fact in started] == [2]

    # both have reported what they used, and the record has it
    used = run["resources"]
    assert used == run["attempts"][-1]["resources"]
    assert used.keys() == {"wait_s", "run_s", "peak_memory_mb", "cpu_s"}
    reports = [f for f in rundir.read_journal(Path(run["run_dir"])) if f["event"] == "resources"]
    assert {report["rank"] for report in reports} == {0, 1}
    assert used["peak_memory_mb"] > max(report["peak_memory_mb"] for report in reports) > 50
    assert "memory" in mtf(lab.path, "show", "pair").stdout
    table = mtf(lab.path, "results", "pair").stdout
    assert table.split("\n")[0].split()[-2:] == ["RAN", "MEMORY"]


def test_a_changed_checkout_is_refused_by_the_job(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a"), "b.yaml": spec("b", pause=0.001)})
    mtf(lab.path, "sync", "--only", "a", "--wait", "--interval", "0.3")
    assert states(runs(lab)) == {"a": "completed"}
    (code,) = (lab.path / "runs" / ".code").glob("[0-9a-f]*[0-9a-f]")
    model = code / "models.py"
    times = model.stat()
    model.chmod(0o644)
    model.write_text(model.read_text() + "# tampered\n")
    # with another time of change, the checkout would be written again
    os.utime(model, ns=(times.st_atime_ns, times.st_mtime_ns))
    found = sync_until(lab, lambda f: "b" in f and f["b"]["state"] == "failed")
    assert "models.py has other content" in found["b"]["reason"]
    assert found["b"]["attempts"][0]["outcome"] == "configuration"


def test_a_rejected_push_writes_nothing_and_the_next_sync_continues(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a")})
    hook = tmp_path / "lab.git" / "hooks" / "pre-receive"
    hook.write_text("#!/bin/sh\necho frozen for maintenance >&2\nexit 1\n")
    hook.chmod(0o755)
    assert "frozen for maintenance" in mtf(lab.path, "sync", code=1).stderr
    assert lab.git("for-each-ref", "refs/heads/mtf", "refs/heads/slurm-job") == ""
    hook.unlink()
    mtf(lab.path, "sync")
    assert states(runs(lab))["a"] != "claimed"


def test_a_sync_holds_the_lock_of_its_clone(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a")})
    code = (
        "import sys, time; from pathlib import Path; from mtf.project.project import open_project;"
        "from mtf.commands.sync import sync_lock\n"
        "with sync_lock(open_project(Path('.'))): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code], cwd=lab.path, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    holder.stdout.readline()
    done = mtf(lab.path, "sync", code=4)
    assert f":{holder.pid}" in done.stderr
    holder.communicate()


def test_a_broken_template_is_an_error_before_anything_is_claimed(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"a.yaml": spec("a")})
    push(lab, {"templates/local.sh.j2": "#!/bin/bash\nexec {{ comand }} x # mtf.trainer\n"})
    assert "templates/local.sh.j2:2: 'comand' is undefined" in mtf(lab.path, "sync", code=1).stderr
    assert lab.git("for-each-ref", "refs/heads/mtf") == ""


def test_another_clone_leaves_the_runs_of_this_local_queue_alone(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"endless.yaml": spec("endless", pause=0.05, epochs=500)})
    sync_until(lab, lambda f: f["endless"]["state"] == "running")
    git(tmp_path, "clone", "-q", str(tmp_path / "lab.git"), "other")
    before = git(tmp_path / "lab.git", "rev-parse", "mtf/ledger")
    done = mtf(tmp_path / "other", "sync")
    assert "are reconciled by another clone or host" in done.stderr
    assert git(tmp_path / "lab.git", "rev-parse", "mtf/ledger") == before
    assert "Run the command there" in mtf(tmp_path / "other", "cancel", "endless", code=1).stderr
    mtf(lab.path, "cancel", "endless")


def test_a_run_waits_for_the_run_in_init_from_and_begins_from_its_checkpoint(
    tmp_path: Path,
) -> None:
    """All runs of the chain are asked for by one commit."""
    tuned = f"{spec('tuned', epochs=1)}init_from: first\n"
    longer = f"{spec('longer', epochs=3)}init_from: {{run: first, load: all}}\n"
    lab = make_lab(
        tmp_path, {"first.yaml": spec("first"), "tuned.yaml": tuned, "longer.yaml": longer}
    )
    planned = mtf(lab.path, "plan").stdout
    assert "tuned waits for first, which has not run yet" in planned
    assert "Plan: 1 to submit, 0 unchanged, 2 waiting for others." in planned
    mtf(lab.path, "sync", "--wait", "--interval", "0.3")
    by_name = {run["experiment"]: run for run in mtf_json(lab.path, "status", "--json")}
    assert {run["state"] for run in by_name.values()} == {"completed"}
    checkpoint = by_name["first"]["checkpoint"]
    assert by_name["tuned"]["origin"] == {
        "run": by_name["first"]["run"],
        **{key: checkpoint[key] for key in ("path", "sha256", "step")},
    }
    (fact,) = (
        f
        for f in rundir.read_journal(Path(by_name["tuned"]["run_dir"]))
        if f["event"] == "initialised"
    )
    assert fact["sha256"] == checkpoint["sha256"]
    assert f"init from  {by_name['first']['run']}, step" in mtf(lab.path, "show", "tuned").stdout

    # three epochs, the first two in another run, are what three at once would have been
    push(lab, {"experiments/whole.yaml": spec("whole", epochs=3)})
    mtf(lab.path, "sync", "--wait", "--interval", "0.3")
    found = runs(lab)
    assert [
        f["epoch"]
        for f in rundir.read_journal(Path(found["longer"]["run_dir"]))
        if f["event"] == "metrics"
    ] == [3]
    assert found["longer"]["metrics"] == found["whole"]["metrics"]


def test_a_retried_run_keeps_the_checkpoint_that_it_begins_from(tmp_path: Path) -> None:
    tuned = f"{spec('tuned', pause=0.05, epochs=500)}init_from: first\n"
    lab = make_lab(tmp_path, {"first.yaml": spec("first", epochs=1), "tuned.yaml": tuned})
    found = sync_until(lab, lambda f: bool(f.get("tuned", {}).get("max_epochs")))  # it has begun
    config = lab.path / "runs" / found["tuned"]["run"] / "config.yaml"
    before = load_yaml(config.read_bytes(), "config.yaml")[0]["mtf"]["origin"]
    assert before["run"] == found["first"]["run"]
    mtf(lab.path, "cancel", "tuned")
    sync_until(lab, lambda f: f["tuned"]["state"] == "cancelled")
    mtf(lab.path, "retry", "tuned")
    found = sync_until(lab, lambda f: f["tuned"]["state"] == "running")
    assert len(found["tuned"]["attempts"]) == 2
    assert load_yaml(config.read_bytes(), "config.yaml")[0]["mtf"]["origin"] == before
    mtf(lab.path, "cancel", "tuned")


def test_an_unknown_name_in_init_from_stops_that_spec_alone(tmp_path: Path) -> None:
    text = spec("tuned") + "init_from: frist\n"
    lab = make_lab(tmp_path, {"first.yaml": spec("first", epochs=1), "tuned.yaml": text})
    where = f"experiments/tuned.yaml:{text.count(chr(10))}:12: init_from: no run or spec"
    for output in (mtf(lab.path, "plan", code=1).stdout, mtf(lab.path, "sync", code=1).stderr):
        assert where in output
        assert "Did you mean 'first'?" in output
    assert set(runs(lab)) == {"first"}


def test_a_broken_spec_submits_nothing_new_and_stops_nothing_else(tmp_path: Path) -> None:
    lab = make_lab(
        tmp_path, {"a.yaml": spec("a", epochs=1), "long.yaml": spec("long", pause=0.05, epochs=500)}
    )
    mtf(lab.path, "sync")
    sync_until(lab, lambda f: (f["a"]["state"], f["long"]["state"]) == ("completed", "running"))
    lab.git("rm", "-q", "experiments/long.yaml")  # unread specs orphan nothing, so prune nothing
    push(
        lab,
        {
            "experiments/a.yaml": spec("a").replace("lr: 1e-2", "lr: fast"),
            "experiments/tuned.yaml": spec("tuned") + "init_from: a\n",  # the changed one
            "experiments/b.yaml": spec("b", epochs=1),
            "experiments/search.yaml": "kind: grid\nname: search\nbase: a.yaml\nparameters: {training.seed: [1]}\n",
            "experiments/unread.yaml": "kind: [\nname: c\n",
            "experiments/c.yaml": spec("c"),
        },
    )
    done = mtf(lab.path, "sync", "--prune", "--json", code=1)
    report = json.loads(done.stdout)
    assert [run.split("/")[0] for run in report["submitted"]] == ["b"]
    files = [problem.split(":")[0].removeprefix("experiments/") for problem in report["problems"]]
    assert files == ["a.yaml", "c.yaml", "search.yaml", "unread.yaml"]
    assert "experiments/unread.yaml:" in done.stderr
    assert any(note.startswith("tuned waits for a, which may be") for note in report["notes"])
    found = runs(lab)
    assert (found["long"]["state"], found["long"]["sync"]) == ("running", "Synced")
    assert found["a"]["sync"] == "Synced"
