"""Run folders with a proved checkout, as ``mtf sync`` leaves them for a job."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mtf import rundir
from mtf.core.vocabulary.git_tree_ids import Manifest, object_id, tree_id
from mtf.trainer.job import run_job
from mtf.trainer.runtime.signals import STOP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ROOT = Path(__file__).parents[2]
SHA1 = "0" * 40

DIGITS: dict[str, Any] = {
    "experiment_name": "digits",
    "model": {"type": "mlp", "hidden_size": 64, "num_layers": 1, "dropout": 0.1},
    "data": {"dataset_name": "digits", "num_workers": 0},
    "training": {"max_epochs": 2, "batch_size": 64, "use_amp": False, "seed": 3},
    "optimizer": {"type": "adamw", "lr": 3e-3},
    "scheduler": None,
    "entrypoint": None,
}


def config_with(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with changes by section; a dict is merged, all else replaces."""
    merged = copy.deepcopy(dict(base))
    for section, value in changes.items():
        if isinstance(value, dict) and isinstance(merged.get(section), dict):
            merged[section] |= value
        else:
            merged[section] = value
    return merged


def write_checkout(root: Path, files: Mapping[str, str]) -> tuple[str, Path, Path]:
    """Write a checkout and its manifest; return its commit, its folder and the manifest."""
    entries = {}
    for path, text in files.items():
        entries[path] = ("100644", object_id("blob", text.encode(), like=SHA1))
    tree = tree_id(entries, like=SHA1)
    raw = f"tree {tree}\nauthor A <a@a> 0 +0000\ncommitter A <a@a> 0 +0000\n\nfirst\n"
    commit = object_id("commit", raw.encode(), like=SHA1)
    folder, proof = root / ".code" / commit, root / ".code" / f"{commit}.json"
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    folder.mkdir(parents=True, exist_ok=True)
    manifest: Manifest = {"commit": commit, "commit_object": raw, "files": entries}
    proof.write_text(json.dumps(manifest))
    return commit, folder, proof


def make_run(
    tmp: Path,
    files: Mapping[str, str] | None = None,
    base: Mapping[str, Any] = DIGITS,
    **changes: Any,
) -> Path:
    """Return the folder of a new run whose pinned code are ``files``."""
    root = tmp / "runs"
    commit, code, manifest = write_checkout(root, files or {"README": "pinned\n"})
    name = f"run{len(list(root.glob('run*')))}"
    folder = root / name
    folder.mkdir(parents=True)
    (tmp / "live").mkdir(exist_ok=True)
    config = config_with(base, changes)
    config["mtf"] = {
        "run": f"{name}/20250101T000000Z/{commit[:8]}",
        "submission": f"{name}/20250101T000000Z/{commit[:8]}",
        "experiment": name,
        "grid": None,
        "key": "0" * 64,
        "commit": commit,
        "code_dir": str(code),
        "manifest": str(manifest),
        "repository": str(tmp / "live"),
    }
    (folder / rundir.CONFIG).write_text(rundir.render_yaml(config))
    return folder


def environment(run: Path, job_id: str, token: str, more: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that the job script sets."""
    return {
        "PYTHONDONTWRITEBYTECODE": "1",
        "MTF_RUN_DIR": str(run),
        "MTF_TOKEN": token,
        "MTF_JOB_ID": job_id,
        "MTF_RESTARTS": "0",
        "MTF_CPUS": "1",
        **more,
    }


def execute(
    run: Path, *, job_id: str = "1", token: str = "t", before: Sequence[str] = (), **env: str
) -> tuple[int, str]:
    """Run the job of a run as the job script does, in a new interpreter, to its end."""
    with start(run, job_id=job_id, token=token, before=before, **env) as process:
        try:
            output, _ = process.communicate(timeout=300)
        finally:
            process.kill()
    return process.returncode, output


def start(
    run: Path, *, job_id: str = "1", token: str = "t", before: Sequence[str] = (), **env: str
) -> subprocess.Popen[str]:
    """Start the job of a run as the job script does, in a new interpreter.

    ``before``: a command that starts it.
    """
    code = read_config(run)["mtf"]["code_dir"]
    path = os.pathsep.join([code, f"{code}/src", str(ROOT)])
    return subprocess.Popen(
        [*before, sys.executable, "-m", "mtf.trainer", str(run)],
        cwd=code,
        env={**os.environ, "PYTHONPATH": path, **environment(run, job_id, token, env)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


class Job:
    """A run's job in a fork of this process, which has imported torch already.

    Args:
        run: the run folder.
        job_id: the job's id.
        token: the token of its request.
        live: a work tree whose editable install is in the environment.
        env: further variables.
    """

    def __init__(
        self,
        run: Path,
        *,
        job_id: str = "1",
        token: str = "t",
        live: Path | None = None,
        **env: str,
    ) -> None:
        self._output = run / f"{len(list(run.glob('*.out')))}.out"
        self._code: int | None = None
        more = environment(run, job_id, token, env)
        if (pid := os.fork()) == 0:
            os._exit(self._in_child(run, live, more))
        self.pid = pid

    def _in_child(self, run: Path, live: Path | None, env: Mapping[str, str]) -> int:
        os.setsid()
        log = os.open(self._output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        os.environ.update(env)
        if live is not None:
            sys.path.insert(0, str(live))
        STOP.requested, STOP.signal = False, None
        torch.set_num_threads(1)
        return run_job.main([str(run)])

    def poll(self) -> int | None:
        """Return the exit code, or minus the signal that killed it; None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def end(self) -> tuple[int, str]:
        """Wait for the end; return exit code and output."""
        wait_for(lambda: self.poll() is not None)
        assert self._code is not None
        return self._code, self._output.read_text()


def read_config(run: Path) -> dict[str, Any]:
    """Return a run's configuration as plain values."""
    from ruamel.yaml import YAML

    value: dict[str, Any] = YAML(typ="safe", pure=True).load((run / rundir.CONFIG).read_text())
    return value


def events(run: Path, event: str | None = None) -> list[dict[str, Any]]:
    """Return the facts of a run's journal, or those of one kind."""
    return [f for f in rundir.read_journal(run) if event is None or f["event"] == event]


def wait_for(holds: Callable[[], object], *, seconds: float = 120) -> None:
    """Wait until a condition is true."""
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            raise TimeoutError("the condition stayed false")
        time.sleep(0.02)
