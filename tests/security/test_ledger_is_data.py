"""Records that somebody has forged and pushed: nothing is run, read, moved or ended because of one.

The lab's only spec is ``quick``; its controller has run it once.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from mtf.core.vocabulary.experiments import run_key
from tests.cli.lab import QUICK, make_lab, runs, stop_jobs
from tests.cli.mtf import mtf, mtf_json
from tests.core.planner.worlds import experiment
from tests.repos import Repo
from tests.security.forger import LONG_AGO, STAMP, Forger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENTRY = """\
import pathlib

def main(run):
    pathlib.Path(run.run_dir, "ran").touch()
"""
SPEC = """\
kind: experiment
experiment_name: quick
entrypoint: "entry:main"
model: {type: mlp}
data: {dataset_name: digits}
training: {max_epochs: 1}
slurm: {time: "00:10:00", partition: low}
"""
SETTINGS = """\
executor: local
runs_root: runs
local: {max_parallel: 2}
retry: {max_attempts: 2, backoff: 0}
policies: {partitions: [low]}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    """Yield a lab whose controller has run its spec once."""
    folder = tmp_path_factory.mktemp("forged")
    made = make_lab(folder, {"quick.yaml": SPEC}, settings=SETTINGS)
    made.commit({"entry.py": ENTRY})
    made.git("push", "-q", "origin", "main")
    mtf(made.path, "sync", "--wait")
    for ref in ("heads/main", "heads/mtf/ledger"):
        made.git("update-ref", f"refs/saved/{ref}", f"refs/{ref}")
    yield made
    stop_jobs(folder)


@pytest.fixture
def lab(made: Repo) -> Iterator[Repo]:
    """Yield the lab, and put everything back afterwards."""
    known = {*(made.path / "runs").glob("*/*"), *(made.path / "runs" / ".code").iterdir()}
    yield made
    stop_jobs(made.path.parent / "lab")
    for place in {*(made.path / "runs").glob("*/*"), *(made.path / "runs" / ".code").iterdir()}:
        if place not in known:
            subprocess.run(["chmod", "-R", "u+w", str(place)], check=True)
            subprocess.run(["rm", "-rf", str(place)], check=True)
    shutil.rmtree(made.path.parent / "forger", ignore_errors=True)
    made.git("reset", "-q", "--hard", "refs/saved/heads/main")
    for repo in (made, Repo(made.path.parent / "lab.git")):
        refs = repo.git("for-each-ref", "--format=%(refname)", "refs/heads", "refs/remotes")
        gone = [ref for ref in refs.splitlines() if STAMP in ref or "release" in ref]
        for ref in gone:
            repo.git("update-ref", "-d", ref)
    made.git("push", "-q", "--force", "origin", "refs/saved/heads/*:refs/heads/*")
    made.git("fetch", "-q", "--force", "origin", "mtf/ledger:mtf/ledger")
    made.git("update-ref", "-d", "refs/mtf/seen")


def ran(lab: Repo) -> set[str]:
    """Return the names of the experiments whose code has run, wherever that was."""
    found = [*lab.path.parent.rglob("ran")]
    return {str(path.relative_to(lab.path.parent)).split("/")[2] for path in found}


def actions(lab: Repo) -> list[str]:
    planned = mtf_json(lab.path, "plan", "--format", "json", code=None)
    return [action["action"] for action in planned["actions"]]


# -- code that nobody has merged, configurations that nobody has committed -------------------------


def other_commit(forger: Forger) -> str:
    forger.repo.git("checkout", "-q", "-b", "evil", "origin/main")
    return forger.repo.commit({"entry.py": ENTRY.replace("ran", "evil")})


def test_a_claim_of_a_commit_that_no_branch_has_never_starts(lab: Repo, tmp_path: Path) -> None:
    forger = Forger.beside(lab)
    run = forger.claim("quick", other_commit(forger), lab.path / "runs", forger.configuration())
    lab.git("fetch", "-q", str(forger.repo.path), "evil")  # as a second parent would bring it
    assert actions(lab) == []
    done = mtf(lab.path, "sync", "--wait", code=None)
    assert f"{run} is left alone: its commit" in done.stderr
    assert "not in the history of main" in done.stderr
    assert not list(tmp_path.rglob("evil"))
    assert not (lab.path / "runs" / run).exists()  # not even fenced
    assert not list((lab.path / "runs" / ".code").glob(f"{run[-8:]}*"))
    assert runs(lab, run)["quick"]["state"] == "claimed"
    assert "is left alone" in mtf(lab.path, "sync", "--prune", code=None).stderr


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("slurm", "venv", "/tmp/evil"),
        ("slurm", "partition", "high"),
        ("slurm", "variables", {"LD_PRELOAD": "/tmp/evil.so"}),
        ("slurm", "extra", ["--uid=0"]),
        ("slurm", None, {}),
        ("entrypoint", None, "os:system"),
        ("training", "max_epochs", 10**6),
        ("logging", "wandb_project", "theirs"),
        ("model", None, "no mapping"),
    ],
)
def test_a_claim_with_a_configuration_of_no_spec_never_starts(
    lab: Repo, section: str, key: str | None, value: object
) -> None:
    forger = Forger.beside(lab)
    (record,) = forger.records().values()
    config = forger.configuration()
    changed = value if key is None else {**config[section], key: value}
    run = forger.claim(
        "quick",
        record["commit"],
        lab.path / "runs",
        {**config, section: changed},
        key=record["key"],
    )
    done = mtf(lab.path, "sync", code=None)
    assert f"{run} is left alone: its recorded configuration is not that of" in done.stderr
    assert actions(lab) == []
    assert "Traceback" not in done.stderr


def test_a_true_claim_whose_submitter_died_is_started(lab: Repo) -> None:
    """The counterpart of the others: everything in it is as the lab would have written it."""
    forger = Forger.beside(lab)
    (record,) = forger.records().values()
    run = forger.claim(
        "quick", record["commit"], lab.path / "runs", forger.configuration(), key=record["key"]
    )
    mtf(lab.path, "sync", "--wait")
    assert (lab.path / "runs" / run / "ran").exists()


def test_a_claim_of_mtf_0_1_for_a_model_of_the_lab_is_started(lab: Repo) -> None:
    spec = SPEC.replace("name: quick", "name: own").replace("{type: mlp}", '{type: "net:Net"}')
    lab.commit({"experiments/own.yaml": spec, "net.py": "Net = None\n"})
    lab.git("push", "-q", "origin", "main")
    forger = Forger.beside(lab)
    config = forger.configuration()  # of a model of mtf, which has these defaults now as well
    config |= {"experiment_name": "own", "model": {**config["model"], "type": "net:Net"}}
    key = run_key(replace(experiment("own"), config=config), {})
    commit = lab.git("rev-parse", "main")
    own: dict[str, Any] = {"spec": "experiments/own.yaml"}
    run = forger.claim("own", commit, lab.path / "runs", config, submission=own, key=key, **own)
    mtf(lab.path, "sync", "--wait")
    assert (lab.path / "runs" / run / "ran").exists()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"slurm.venv": "/tmp/evil"}, "somebody else has set slurm.venv"),
        ({"logging.wandb_entity": "evil"}, "somebody else has set logging.wandb_entity"),
        ({"slurm.variables": {"LD_PRELOAD": "/tmp/evil.so"}}, "somebody else has set slurm.vari"),
        ({"entrypoint": "os:system"}, "changes what is part of its identity"),
        ({"training.max_epochs": 10**6}, "changes what is part of its identity"),
        ({"slurm.nonsense": 1}, "invalid"),
        ({"slurm": {"venv": "/tmp/evil"}}, "part of its identity"),
        ({"": 1}, "part of its identity"),
    ],
)
def test_changes_that_somebody_else_has_recorded_are_not_applied(
    lab: Repo, changes: dict[str, Any], why: str
) -> None:
    forger = Forger.beside(lab)
    (record,) = forger.records().values()
    forger.claim(
        "quick",
        record["commit"],
        lab.path / "runs",
        forger.configuration(),
        key=record["key"],
        attempt={"changes": changes},
    )
    done = mtf(lab.path, "sync", code=None)
    assert why in done.stderr
    assert actions(lab) == []


def test_a_change_that_the_spec_asks_for_now_is_applied_whoever_has_recorded_it(lab: Repo) -> None:
    forger = Forger.beside(lab)
    (record,) = forger.records().values()
    run = forger.claim(
        "quick",
        record["commit"],
        lab.path / "runs",
        forger.configuration(),
        key=record["key"],
        attempt={"changes": {"slurm.variables": {"WHO": "lab"}}},
    )
    asked = SPEC.replace("partition: low", "partition: low, variables: {WHO: lab}")
    lab.commit({"experiments/quick.yaml": asked})
    lab.git("push", "-q", "origin", "main")
    mtf(lab.path, "sync", "--wait")
    assert (lab.path / "runs" / run / "ran").exists()


@pytest.mark.parametrize(
    ("record_says", "submission_says"),
    [({"spec": "experiments/other.yaml"}, {}), ({}, {"spec": "experiments/exempt.yaml"})],
)
def test_a_claim_that_contradicts_its_submission_or_its_spec_never_starts(
    lab: Repo, record_says: dict[str, Any], submission_says: dict[str, Any]
) -> None:
    forger = Forger.beside(lab)
    (record,) = forger.records().values()
    forger.claim(
        "quick",
        record["commit"],
        lab.path / "runs",
        forger.configuration(),
        submission=submission_says,
        **{"key": record["key"], **record_says},
    )
    done = mtf(lab.path, "sync", code=None)
    assert "is left alone" in done.stderr
    assert actions(lab) == []


def test_the_page_of_a_run_without_a_configuration_is_shown(lab: Repo) -> None:
    forger = Forger.beside(lab)
    (record,) = forger.records().values()
    run = forger.claim(
        "quick",
        record["commit"],
        lab.path / "runs",
        forger.configuration(),
        submission={"runs": [], "configs": {}},
    )
    assert "is left alone" in mtf(lab.path, "sync", code=None).stderr
    assert run in mtf(lab.path, "show", run).stdout


def test_a_checkpoint_of_no_recorded_run_is_not_loaded(lab: Repo, tmp_path: Path) -> None:
    forger = Forger.beside(lab)
    (record,) = forger.records().values()
    where = tmp_path / record["run"] / "checkpoints" / "evil.ckpt"
    origin = {"run": record["run"], "path": str(where), "sha256": "0" * 64, "step": 1}
    forger.claim(
        "quick",
        record["commit"],
        lab.path / "runs",
        forger.configuration(),
        key=record["key"],
        origin=origin,
    )
    assert "is no checkpoint of" in mtf(lab.path, "sync", code=None).stderr
    assert actions(lab) == []


def test_a_run_of_a_commit_that_was_forced_away_is_not_started_again(lab: Repo) -> None:
    forger = Forger.beside(lab)
    (record,) = forger.records().values()
    lab.git("commit", "-q", "--amend", "-m", "rewritten")
    lab.git("push", "-q", "--force", "origin", "main")
    forger.claim(
        "quick", record["commit"], lab.path / "runs", forger.configuration(), key=record["key"]
    )
    assert "not in the history of main" in mtf(lab.path, "sync", code=None).stderr
    done = mtf(lab.path, "retry", record["run"], code=1)
    assert "complete" in done.stderr  # the run that is over is as it was
    lab.git("push", "-q", "origin", f"{record['commit']}:refs/heads/release/1")
    lab.git("fetch", "-q")
    lab.commit({"mtf.yaml": SETTINGS.replace("[low]}", "[low], branches: [release/*]}")})
    lab.git("push", "-q", "origin", "main")
    assert actions(lab) == ["resume"]


# -- paths, refs and jobs --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("token", "../../../../../secret"),
        ("token", "{secret}"),
        ("run_dir", "{root}/../../{run}"),
        ("run_dir", "/"),
        ("branch", "main"),
        ("branch", "slurm-job/../../main"),
        ("run", "../../quick/20260101T000000Z/{short}"),
        ("executor", "../local"),
        ("job_id", "1 2; touch x"),
    ],
)
def test_a_forged_record_is_named_and_leads_nowhere(
    lab: Repo, tmp_path: Path, field: str, value: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("TOP-SECRET")
    forger = Forger.beside(lab)
    (record,) = forger.records().values()
    root, main = lab.path / "runs", lab.git("rev-parse", "origin/main")
    text = value.format(secret=secret, root=root, run=f"quick/{STAMP}/{main[:8]}", short=main[:8])
    before = {path for path in tmp_path.rglob("*") if "forger" not in path.parts}
    attempt = {field: text} if field in ("token", "job_id") else None
    changes = {} if attempt else {field: text}
    forger.claim(
        "quick",
        record["commit"],
        root,
        forger.configuration(),
        attempt,
        **{"key": record["key"], **changes},
    )
    done = mtf(lab.path, "sync", code=None)
    assert field in done.stderr
    assert f"mtf/ledger:runs/quick/{STAMP}" in done.stderr
    assert "Traceback" not in done.stderr
    assert "left alone" in mtf(lab.path, "status").stderr + mtf(lab.path, "plan").stdout
    assert lab.git("rev-parse", "origin/main") == main
    assert "TOP-SECRET" not in lab.git("log", "-p", "--all")
    after = {path for path in tmp_path.rglob("*") if "forger" not in path.parts}
    new = {path for path in after - before if ".git" not in str(path)}
    assert {path for path in new if path.name not in ("results_summary.json",)} == set()


@pytest.mark.parametrize("of_its_own", [True, False])
def test_a_forged_pin_moves_no_branch_and_is_not_pushed(lab: Repo, *, of_its_own: bool) -> None:
    forger = Forger.beside(lab)
    ((path, record),) = forger.records().items()
    commit = str(record["commit"])
    forged = f"{commit[:8]}{'0' * 32}"  # which fits the same ids
    if of_its_own:
        forger.claim("quick", commit, lab.path / "runs", forger.configuration(), pin=forged)
        branch = f"slurm-job/quick/{STAMP}/{commit[:8]}"
        lab.git("push", "-q", "origin", f":refs/heads/{branch}")
    else:  # one more member in a submission of mtf, before the true one
        branch = record["branch"]
        lab.git("push", "-q", "--force", "origin", f"main~0:refs/heads/{branch}")
        changed = {**record, "commit": forged, "experiment": "a", "run": f"{record['run']}/a"}
        changed |= {"grid": "quick", "run_dir": f"{record['run_dir']}/a", "key": "e" * 64}
        forger.push({path.replace("run.json", "a.json"): changed})
    before = lab.git("ls-remote", "origin", "refs/heads/slurm-job/*")
    for _ in range(2):
        done = mtf(lab.path, "sync", code=None)
        why = "mtf has pinned no such commit" if of_its_own else "mtf did not write that record"
        assert (done.stderr.count(forged), done.stderr.count(why)) == (1, 1), done.stderr
        assert "failed" not in done.stderr + done.stdout
    assert lab.git("ls-remote", "origin", "refs/heads/slurm-job/*") == before
    lab.git("push", "-q", "--force", "origin", f"{record['commit']}:refs/heads/{record['branch']}")


def test_a_run_root_that_mtf_never_made_is_not_written(lab: Repo, tmp_path: Path) -> None:
    forger = Forger.beside(lab)
    (record,) = forger.records().values()
    (tmp_path / "home" / ".ssh").mkdir(parents=True)
    for executor in ("local", "slurm"):
        forger.claim(
            f"at-{executor}",
            record["commit"],
            tmp_path / "home" / ".ssh",
            forger.configuration(),
            executor=executor,
        )
    mtf(lab.path, "sync", "--prune", code=None)
    assert list((tmp_path / "home" / ".ssh").iterdir()) == []


def test_a_claim_that_is_no_job_id_is_not_recorded(lab: Repo, tmp_path: Path) -> None:
    """A job's code may write anything into its run folder, a link to a key among it."""
    forger = Forger.beside(lab)
    (record,) = forger.records().values()
    run = forger.claim(
        "quick", record["commit"], lab.path / "runs", forger.configuration(), key=record["key"]
    )
    secret = tmp_path / "secret"
    secret.write_text("TOP-SECRET")
    claim = lab.path / "runs" / run / ".claims" / ("ab" * 8)
    claim.parent.mkdir(parents=True)
    claim.symlink_to(secret)
    done = mtf(lab.path, "sync", code=None)
    assert "not a claim of mtf" in done.stderr
    assert "TOP-SECRET" not in done.stderr + lab.git("log", "-p", "--all")


def test_a_job_of_another_run_is_not_cancelled(lab: Repo, tmp_path: Path) -> None:
    forger = Forger.beside(lab)
    (record,) = forger.records().values()
    lab.commit(
        {
            "experiments/long.yaml": QUICK.replace(
                "kind: base", "kind: experiment\nexperiment_name: long"
            )
            .replace("max_epochs: 2", "max_epochs: 100000")
            .replace("slurm: {", "slurm: {partition: low, ")
        }
    )
    lab.git("push", "-q", "origin", "main")
    mtf(lab.path, "sync")
    victim = runs(lab)["long"]
    (attempt,) = victim["attempts"]
    for token in ("cd" * 8, attempt["token"]):  # with a token of its own, and with the victim's
        forger.claim(
            f"thief-{token[:2]}",
            record["commit"],
            lab.path / "runs",
            forger.configuration(),
            {
                "token": token,
                "job_id": victim["job_id"],
                "submitted_at": LONG_AGO,
                "claimed_by": attempt["claimed_by"],  # this user's, so that it may be ended here
            },
            state="running",
            cancel_requested=True,
            submitted_at=LONG_AGO,
            observed_at=LONG_AGO,
        )
    done = mtf(lab.path, "sync", code=None)
    assert "a record names it, but" in done.stderr
    assert runs(lab)["long"]["state"] in ("pending", "running")
    mtf(lab.path, "cancel", "long")


def test_one_damaged_record_stops_nothing_else(lab: Repo) -> None:
    forger = Forger.beside(lab)
    ((_, record),) = forger.records().items()
    raw = json.dumps(record).encode()
    folder = f"runs/quick/{STAMP}-{record['commit'][:8]}"
    kinds: dict[str, object] = {
        f"{folder}/binary.json": b"\xff\xfe\x00",
        f"{folder}/deep.json": b"[" * 100_000,
        f"{folder}/list.json": b"[]",
        f"{folder}/newer.json": {**record, "format": 99},
        f"{folder}/nan.json": raw.replace(b'"format": 1', b'"format": NaN'),
        f"{folder}/copy.json": record,
        f"{folder}/half.json": raw.replace(b'"reason": "', b'"reason": "\\ud800'),
        "runs/short.json": record,
        "runs/a/b/c/d/e.json": record,
        f"submissions/quick/{STAMP}-{record['commit'][:8]}.json": b"{}",
    }
    config = forger.configuration()
    forger.claim("other", record["commit"], lab.path / "runs", config, executor="nope")
    forger.push(kinds)
    lab.commit({"experiments/more.yaml": SPEC.replace("quick", "more")})
    lab.git("push", "-q", "origin", "main")
    done = mtf(lab.path, "sync", "--wait", code=None)
    assert "Traceback" not in done.stderr
    assert "this is a bug" not in done.stderr
    assert {"quick", "more"} <= ran(lab)
    notes = mtf(lab.path, "status").stderr
    assert all(path in notes for path in kinds if path.startswith(folder)), notes
    assert "this version of mtf has no executor 'nope'" in mtf(lab.path, "plan").stdout
    mtf(lab.path, "doctor", code=1)
