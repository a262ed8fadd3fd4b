"""Checks of the fields of records: types, forms, ranges, and the fields that belong together.

A record is data that anybody may have pushed. What is checked here holds everywhere behind it: an
id has the form that mtf gives to ids, a path stays in its run folder, a number has a sensible size.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from mtf.core.usage.used import is_amount
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.causes import Cause
from mtf.core.vocabulary.ids import (
    SINGLE,
    RunId,
    is_absolute,
    is_commit,
    is_folder,
    is_inside,
    is_job_id,
    is_run_id,
    is_sha256,
    is_token,
    submission_of,
)
from mtf.core.vocabulary.numbers import MOST, is_number
from mtf.core.vocabulary.states import RunState, Sync
from mtf.core.vocabulary.times import is_time

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mtf.core.vocabulary.ids import SubmissionId

RUN_STATES: Mapping[str, RunState] = {state.value: state for state in RunState}
SYNCS: Mapping[str, Sync] = {sync.value: sync for sync in Sync}
_CAUSES = frozenset(cause.value for cause in Cause)
_SCALARS = frozenset({str, int, float, bool, type(None)})
_DEEPEST = 50  # levels of lists and mappings in a value of the user's own
_LONGEST = 4096  # characters of a name or path
_MOST_AMOUNTS = 40  # also characters of their names
_SHOWN = 60  # characters of a wrong value in a message


class FieldError(ValueError):
    """A field of a record is wrong; the message names it and says what was expected."""


def refuse(field: str, wanted: str, got: object) -> NoReturn:
    """Raise the error about a field."""
    text = json_text.dumps(got)
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
    raise FieldError(f"{field}: expected {wanted}, got {shown}")


def check_run(value: Mapping[str, Any]) -> None:
    """Check the fields of a run's record, whose types are right, without its attempts.

    Raises:
        FieldError: one is wrong.
    """
    run, run_dir = value["run"], value["run_dir"]
    if not is_run_id(run):
        refuse("run", "a run's id", run)
    _check_pin(value, submission_of(run))
    grid, experiment = value["grid"], value["experiment"]
    name = run.split("/", 1)[0]
    if grid is None:
        if experiment != name or run.count("/") != 2:
            refuse("experiment", f"the experiment of {run}", experiment)
    elif grid != name or not run.endswith(f"/{experiment}") or run.count("/") != 3:
        refuse("grid", f"the grid and the member of {run}", [grid, experiment])
    if not (run_dir.endswith(run) and _is_root(run_dir[: -len(run)])):
        refuse("run_dir", f"an absolute path that ends in /{run}", run_dir)
    _check_successor(value, name)
    _check_asked(value)
    if not is_folder(value["folder"]):
        refuse("folder", "a folder of the repository", value["folder"])
    key = value["key"]
    if not is_sha256(key):
        refuse("key", "64 hexadecimal digits", key)
    _check_words(value, ("executor", "cluster"))
    _check_counts(value, ("generation", "epoch", "max_epochs", "step", "holds_back"))
    if value["state"] not in RUN_STATES:
        refuse("state", f"one of {', '.join(RUN_STATES)}", value["state"])
    if value["sync"] not in SYNCS:
        refuse("sync", f"one of {', '.join(SYNCS)}", value["sync"])
    _check_times(value, _RUN_TIMES)
    check_depth("parameters", value["parameters"])


def _check_successor(value: Mapping[str, Any], name: str) -> None:
    """Check that the run in place of this one is another run of the same spec."""
    successor = value["superseded_by"]
    if successor is not None and not (
        is_run_id(successor) and successor.split("/", 1)[0] == name and successor != value["run"]
    ):
        refuse("superseded_by", f"the id of another run of {name}", successor)


def _check_asked(value: Mapping[str, Any]) -> None:
    """Check what a person asked for, of a run outside of the committed specs."""
    base, first = value["snapshot_of"], value["reproduces"]
    if base is not None and not is_commit(base):
        refuse("snapshot_of", "the full id of a commit", base)
    if first is not None and not is_run_id(first):
        refuse("reproduces", "a run's id", first)


_RUN_TIMES = ("claimed_at", "submitted_at", "started_at", "finished_at", "observed_at", "retry_at")


def check_attempt(value: Mapping[str, Any]) -> None:
    """Check the fields of an attempt, whose types are right.

    Raises:
        FieldError: one is wrong.
    """
    if not is_token(value["token"]):
        refuse("token", "16 hexadecimal digits", value["token"])
    job = value["job_id"]
    if job is not None and not is_job_id(job):
        refuse("job_id", "a job's id", job)
    outcome = value["outcome"]
    if outcome is not None and outcome not in _CAUSES:
        refuse("outcome", f"one of {', '.join(sorted(_CAUSES))}", outcome)
    _check_counts(value, ("index", "start_step", "end_step", "put_off"))
    code = value["exit_code"]
    if code is not None and not -MOST < code < MOST:
        refuse("exit_code", "a number", code)
    _check_times(value, _ATTEMPT_TIMES)
    for name in ("changes", "followed"):
        if value[name]:
            check_depth(name, value[name])
    if value["resources"]:
        _check_amounts(value["resources"])


_ATTEMPT_TIMES = ("claimed_at", "lease_until", "submitted_at", "started_at", "ended_at")


def _check_amounts(values: Mapping[str, Any]) -> None:
    """Check the resources of an attempt: few numbers, whatever a later version calls them."""
    if len(values) > _MOST_AMOUNTS:
        raise FieldError(f"resources: expected at most {_MOST_AMOUNTS} amounts, got {len(values)}")
    for name, amount in values.items():
        if len(name) > _MOST_AMOUNTS or not is_amount(amount):
            refuse(f"resources.{name[:_MOST_AMOUNTS]}", "a number from 0", amount)


def check_checkpoint(value: Mapping[str, Any], run_dir: str) -> None:
    """Check the fields of a checkpoint of a run, whose types are right.

    Raises:
        FieldError: one is wrong.
    """
    if not is_inside(value["path"], run_dir):
        refuse("path", f"a file in {run_dir}", value["path"])
    _check_sum(value["sha256"])
    _check_counts(value, ("step", "bytes", "epoch"))


def check_origin(value: Mapping[str, Any]) -> None:
    """Check the fields of the checkpoint that a run began from, whose types are right.

    Raises:
        FieldError: one is wrong.
    """
    run, path = value["run"], value["path"]
    if not is_run_id(run):
        refuse("run", "a run's id", run)
    if not is_absolute(path) or f"/{run}/" not in path:
        refuse("path", f"a file in the folder of {run}", path)
    _check_sum(value["sha256"])
    _check_counts(value, ("step",))


def check_best(value: Mapping[str, Any]) -> None:
    """Check the fields of a metric's best value, whose types are right.

    Raises:
        FieldError: one is wrong.
    """
    if not is_number(value["value"]):
        refuse("value", "a number", value["value"])
    _check_counts(value, ("epoch", "step"))
    if value["mode"] not in ("min", "max"):
        refuse("mode", "min or max", value["mode"])


def check_metrics(values: Mapping[str, Any]) -> None:
    """Check the values of metrics.

    Raises:
        FieldError: one is no number.
    """
    if not all(map(is_number, values.values())):
        name = next(name for name, number in values.items() if not is_number(number))
        refuse(f"metrics.{name}", "a number", values[name])


def check_submission(value: Mapping[str, Any]) -> None:
    """Check the fields of a submission's record, whose types are right.

    Raises:
        FieldError: one is wrong.
    """
    submission: SubmissionId = value["submission"]
    if not is_run_id(submission) or submission.count("/") != 2:
        refuse("submission", "a submission's id", submission)
    _check_pin(value, submission)
    name = submission.split("/", 1)[0]
    grid = value["grid"]
    if grid not in (None, name):
        refuse("grid", f"{name} or null", grid)
    _check_times(value, ("created_at",))
    _check_counts(value, ("max_parallel",))
    configs, members = value["configs"], set[str]()
    for run in value["runs"]:
        if type(run) is not str or not is_run_id(run) or submission_of(RunId(run)) != submission:
            refuse("runs", f"ids of runs of {submission}", run)
        members.add(run.removeprefix(submission).removeprefix("/") or SINGLE)
    if (grid is None) != (members <= {SINGLE}):
        refuse("runs", "one run, or members of a grid", sorted(members)[:3])
    if configs.keys() != members:
        refuse("configs", "a configuration for each run", sorted(configs)[:3])
    for member, config in configs.items():
        if type(config) is not dict:
            refuse("configs", "a configuration for each run", member)
        check_depth("configs", config)


def _check_pin(value: Mapping[str, Any], submission: SubmissionId) -> None:
    """Check that commit and branch are those that the submission's id names."""
    commit = value["commit"]
    if not is_commit(commit) or not submission.endswith(commit[:8]):
        refuse("commit", f"a commit that begins with {submission[-8:]}", commit)
    if value["branch"] != f"slurm-job/{submission}":
        refuse("branch", f"slurm-job/{submission}", value["branch"])
    if not 0 < len(value["spec"]) <= _LONGEST or "\0" in value["spec"]:
        refuse("spec", "a path", value["spec"])


@lru_cache(maxsize=1024)
def _is_root(text: str) -> bool:
    """Return True if a text is the absolute path of a run root, with a slash at its end."""
    return len(text) <= _LONGEST and text.endswith("/") and is_absolute(text[:-1])


def _check_words(value: Mapping[str, Any], names: Collection[str]) -> None:
    for name in names:
        if not _is_word(value[name]):
            refuse(name, "a name of letters, digits, '.', '_' and '-'", value[name])


@lru_cache(maxsize=1024)
def _is_word(text: str) -> bool:
    plain = text.replace(".", "").replace("_", "").replace("-", "")
    return plain.isascii() and plain.isalnum() and len(text) <= 100


def _check_counts(value: Mapping[str, Any], names: Collection[str]) -> None:
    for name in names:
        count = value[name]
        if count is not None and not 0 <= count < MOST:
            refuse(name, "a whole number from 0", count)


def _check_times(value: Mapping[str, Any], names: Collection[str]) -> None:
    for name in names:
        time = value[name]
        if time is not None and not is_time(time):
            refuse(name, "a time with its zone, like 2026-01-31T12:00:00+00:00", time)


def _check_sum(text: str) -> None:
    if text and not is_sha256(text):
        refuse("sha256", "64 hexadecimal digits", text)


def check_depth(name: str, value: Mapping[str, Any] | None) -> None:
    """Check that no value is nested so deeply that it cannot be processed.

    Raises:
        FieldError: one is.
    """
    if value and not _SCALARS.issuperset(map(type, value.values())):
        level: list[Any] = list(value.values())
        for _ in range(_DEEPEST):
            level = [v for v in level if type(v) not in _SCALARS]
            if not level:
                return
            level = [x for v in level for x in (v.values() if type(v) is dict else v)]
        raise FieldError(f"{name}: nested more than {_DEEPEST} levels deep")
