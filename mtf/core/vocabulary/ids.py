"""Identifiers of submissions, runs, branches and tokens, and their paths in the ledger."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, NewType

if TYPE_CHECKING:
    from datetime import datetime

CommitId = NewType("CommitId", str)  # full hexadecimal object id
SubmissionId = NewType("SubmissionId", str)  # <name>/<timestamp>/<commit[:8]>
RunId = NewType("RunId", str)  # a submission id, or <submission id>/<member>
RunKey = NewType("RunKey", str)  # sha256 of what makes two runs the same: experiments.run_key
JobId = NewType("JobId", str)  # SLURM's "4711" or "4711_3", the local executor's "local-12"
Token = NewType("Token", str)  # one for each job submission, 16 hexadecimal digits

JOB_BRANCH_PREFIX = "refs/heads/slurm-job/"
LEDGER_REF = "refs/heads/mtf/ledger"
SEEN_REF = "refs/mtf/seen"  # the ledger that this clone last found whole; never pushed
SIGNED_REF = "refs/mtf/signed"  # the ledger whose signatures this clone has verified; never pushed
OVERVIEW = "README.md"  # of the ledger, for people
SINGLE = "run"  # in a record's path, instead of a member, for a single experiment
TIMESTAMP_FORMAT = "%Y%m%dT%H%M%SZ"


# The forms that mtf gives to ids. Text of another form is no id: it never becomes a path, a ref or
# an argument of a program, wherever it comes from.
_COMPONENT = r"(?!.*\.\.)(?!.*(?:\.|\.lock)(?:/|\Z))"  # what git allows in a branch's name
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"
_MEMBER = r"(?!run\Z)[A-Za-z0-9_%+=,][A-Za-z0-9_%+=,.-]{0,199}"
_SUBMISSION = rf"{_COMPONENT}{_NAME}/[0-9]{{8}}T[0-9]{{6}}Z/[0-9a-f]{{8}}"
_RUN_ID = re.compile(rf"{_SUBMISSION}(?:/{_MEMBER})?")
_MEMBER_NAME = re.compile(rf"{_COMPONENT}{_MEMBER}")
_JOB_ID = re.compile(r"[0-9]{1,15}(?:[_+][0-9]{1,9})?|[a-z]{1,15}-[0-9]{1,15}")
_TOKEN = re.compile(r"[0-9a-f]{16}")
_SHA256 = re.compile("[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


def is_run_id(text: str) -> bool:
    """Return True if a text has the form of a run's id (or, without a member, a submission's)."""
    return _RUN_ID.fullmatch(text) is not None


def is_member(text: str) -> bool:
    """Return True if a text has the form of a member's name in its grid."""
    return _MEMBER_NAME.fullmatch(text) is not None


def is_job_id(text: str) -> bool:
    """Return True if a text has the form of a job id of one of the executors."""
    return _JOB_ID.fullmatch(text) is not None


def is_token(text: str) -> bool:
    """Return True if a text has the form of a token."""
    return _TOKEN.fullmatch(text) is not None


@lru_cache(maxsize=1024)
def is_commit(text: str) -> bool:
    """Return True if a text has the form of a commit's full id."""
    return _COMMIT.fullmatch(text) is not None


def is_sha256(text: str) -> bool:
    """Return True if a text has the form of a SHA-256 sum: a run's key, a checkpoint's checksum."""
    return _SHA256.fullmatch(text) is not None


def is_inside(path: str, folder: str) -> bool:
    """Return True if a path is below a folder and has no component that leads elsewhere."""
    return path.startswith(folder) and _BELOW.fullmatch(path, len(folder)) is not None


def is_absolute(path: str) -> bool:
    """Return True if a path is absolute and has no component that leads elsewhere."""
    return _BELOW.fullmatch(path) is not None


def is_folder(path: str) -> bool:
    """Return True for the path of a folder in a repository, relative to its top, "" for the top."""
    return not path or is_absolute(f"/{path}")


_BELOW = re.compile(r"(?:/(?!\.\.?(?:/|\Z))[^/\0\n]+)+")


def timestamp(now: datetime) -> str:
    """Return ``now`` (aware, UTC) as ids spell it: ``20250101T120000Z``."""
    return now.strftime(TIMESTAMP_FORMAT)


def submission_id(name: str, stamp: str, commit: CommitId) -> SubmissionId:
    """Return the id of a submission: what one sync submits for one spec at one commit."""
    return SubmissionId(f"{name}/{stamp}/{commit[:8]}")


def run_id(submission: SubmissionId, member: str | None) -> RunId:
    """Return a run's id; ``member`` is None for a single experiment."""
    return RunId(submission if member is None else f"{submission}/{member}")


def submission_of(run: RunId) -> SubmissionId:
    """Return the submission a run belongs to."""
    return SubmissionId("/".join(run.split("/")[:3]))


def name_of(identifier: str) -> str:
    """Return the spec's name, with which ids of runs and submissions and ``grid/member`` begin."""
    return identifier.split("/", 1)[0]


def member_of(run: RunId) -> str | None:
    """Return a run's member name, None for a single experiment."""
    parts = run.split("/", 3)
    return parts[3] if len(parts) > 3 else None


def label_of(grid: str | None, experiment: str) -> str:
    """Return the short name of a run, see ``RunRecord.label``."""
    if grid is None:
        return experiment
    parts = [part.partition("=") for part in experiment.split(",")]
    short = [key.rpartition(".")[2] for key, _, _ in parts]
    if len(set(short)) < len(short) or any(not equals for _, equals, _ in parts):
        return f"{grid}/{experiment}"
    values = (f"{key}={value}" for key, (_, _, value) in zip(short, parts, strict=True))
    return f"{grid}/{','.join(values)}"


def job_branch(submission: SubmissionId) -> str:
    """Return the full ref name of the branch that pins a submission."""
    return JOB_BRANCH_PREFIX + submission


def record_path(run: RunId) -> str:
    """Return the path of a run's record in the ledger's tree."""
    name, stamp, short = run.split("/", 3)[:3]
    return f"runs/{name}/{stamp}-{short}/{member_of(run) or SINGLE}.json"


def spec_and_member(path: str) -> tuple[str, str] | None:
    """Return the spec's name and the member (or ``SINGLE``) of a run's path in the ledger."""
    parts = path.split("/")
    if len(parts) != 4 or parts[0] != "runs":
        return None
    return parts[1], parts[3].removesuffix(".json")


def submission_at(path: str) -> SubmissionId | None:
    """Return the submission that a path of the ledger belongs to: its own record or a run's."""
    parts = path.removesuffix(".json").split("/")
    if len(parts) not in (3, 4) or parts[0] not in ("runs", "submissions"):
        return None
    stamp, _, short = parts[2].rpartition("-")
    return SubmissionId(f"{parts[1]}/{stamp}/{short}")


def submission_path(submission: SubmissionId) -> str:
    """Return the path of a submission's record in the ledger's tree."""
    name, stamp, short = submission.split("/")
    return f"submissions/{name}/{stamp}-{short}.json"


def job_name(name: str, token: Token) -> str:
    """Return the job name that contains the token; ``name`` is the experiment's or the grid's.

    sacct always reports a job's name, but not always its comment.
    """
    return f"{name}+{token}"


def token_of(name: str) -> Token | None:
    """Return the token in a job's name, None if mtf did not submit the job."""
    _, plus, tail = name.rpartition("+")
    return Token(tail) if plus and is_token(tail) else None
