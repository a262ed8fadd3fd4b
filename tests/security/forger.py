"""A colleague who may push the ledger and job branches, and nothing else: forges records."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary.ids import RunId, record_path, submission_of, submission_path
from tests.repos import Repo, git

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LONG_AGO = "2026-01-01T00:00:00+00:00"
STAMP = "20260101T000000Z"
_NOT_YET = ["started_at", "submitted_at", "finished_at", "retry_at", "checkpoint", "best"]
_NOT_YET += ["best_checkpoint", "epoch", "max_epochs", "step", "origin", "job_id", "cause"]


@dataclass(frozen=True)
class Forger:
    """A clone of the lab's remote, in which records are edited by hand and pushed."""

    repo: Repo

    @classmethod
    def beside(cls, lab: Repo) -> Forger:
        folder = lab.path.parent / "forger"
        git(lab.path.parent, "clone", "-q", str(lab.path.parent / "lab.git"), str(folder))
        return cls(Repo(folder))

    def records(self) -> dict[str, dict[str, Any]]:
        """Return the run records of the remote by their paths."""
        self.repo.git("fetch", "-q", "origin", "mtf/ledger")
        names = self.repo.git("ls-tree", "-r", "--name-only", "FETCH_HEAD", "runs").splitlines()
        return {n: json.loads(self.repo.git("show", f"FETCH_HEAD:{n}")) for n in names}

    def push(self, files: Mapping[str, object], *branches: tuple[str, str]) -> None:
        """Push a ledger commit with these files, and branches with their commits."""
        self.repo.git("fetch", "-q", "origin", "mtf/ledger")
        self.repo.git("checkout", "-q", "--detach", "FETCH_HEAD")
        for path, value in files.items():
            place = self.repo.path / path
            place.parent.mkdir(parents=True, exist_ok=True)
            raw = value if isinstance(value, bytes) else json.dumps(value, indent=1).encode()
            place.write_bytes(raw)
        self.repo.git("add", "-A")
        self.repo.git("commit", "-q", "-m", "mtf: record 1 run")
        refs = [f"{commit}:refs/heads/{branch}" for branch, commit in branches]
        self.repo.git("push", "-q", "origin", "HEAD:refs/heads/mtf/ledger", *refs)
        self.repo.git("checkout", "-q", "main")

    def claim(
        self,
        name: str,
        commit: str,
        root: Path,
        config: Mapping[str, Any],
        attempt: Mapping[str, Any] | None = None,
        *,
        submission: Mapping[str, Any] | None = None,
        pin: str | None = None,
        **changes: Any,
    ) -> RunId:
        """Push a claim that has run out, with the job branch and the submission that fit it.

        The records name ``pin`` as their commit, if it is given.
        """
        run = RunId(f"{name}/{STAMP}/{commit[:8]}")
        claimed = {
            "token": "ab" * 8,
            "index": 0,
            "claimed_at": LONG_AGO,
            "claimed_by": "x@nowhere:1",
            "lease_until": LONG_AGO,
            **(attempt or {}),
        }
        (like,) = list(self.records().values())[:1]
        dropped = dict.fromkeys(_NOT_YET)
        record = {
            **like,
            **dropped,
            "run": run,
            "submission": run,
            "experiment": name,
            "grid": None,
            "branch": f"slurm-job/{run}",
            "commit": pin or commit,
            "key": "f" * 64,
            "state": "claimed",
            "claimed_at": LONG_AGO,
            "run_dir": f"{root}/{run}",
            "reason": "",
            "metrics": {},
            "cancel_requested": False,
            "attempts": [claimed],
            **changes,
        }
        submitted = {
            "format": 1,
            "submission": run,
            "spec": record["spec"],
            "commit": pin or commit,
            "grid": None,
            "branch": f"slurm-job/{run}",
            "created_at": LONG_AGO,
            "created_by": "x",
            "runs": [run],
            "max_parallel": None,
            "configs": {"run": config},
            **(submission or {}),
        }
        files = {record_path(run): record, submission_path(submission_of(run)): submitted}
        self.push(files, (f"slurm-job/{run}", commit))
        return run

    def configuration(self) -> dict[str, Any]:
        """Return the configuration that the lab's first submission was recorded with."""
        self.repo.git("fetch", "-q", "origin", "mtf/ledger")
        names = self.repo.git("ls-tree", "-r", "--name-only", "FETCH_HEAD", "submissions")
        raw = self.repo.git("show", f"FETCH_HEAD:{names.splitlines()[0]}")
        (config,) = json.loads(raw)["configs"].values()
        return dict(config)
