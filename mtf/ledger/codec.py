"""Encoding and decoding of the ledger's records as JSON.

The text is stable, so that an unchanged record makes no diff. Run records are written by hand, a
line for each field, instead of by ``json.dumps``: 10,000 records take 0.19 s of user time, with
``json.dumps(..., indent=1)`` 0.35 s (measured in turn, on one machine).

Every field is checked when a record is read (``mtf.ledger.fields``). Most records have the same
fields of the same types: their shape is compared as a whole, and looked into only if it is new.
"""

from __future__ import annotations

import json
import re
from json.encoder import encode_basestring
from typing import Any, TypeVar

from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.records import (
    FORMAT,
    Attempt,
    Best,
    Checkpoint,
    Origin,
    RunRecord,
    SubmissionRecord,
    as_dict,
)
from mtf.ledger.fields import (
    RUN_STATES,
    SYNCS,
    FieldError,
    check_attempt,
    check_best,
    check_checkpoint,
    check_metrics,
    check_origin,
    check_run,
    check_submission,
    refuse,
)
from mtf.ledger.shapes import Shape

_T = TypeVar("_T")
_json = json_text.encoder(ensure_ascii=False)
_ESCAPED_HALF = re.compile(rb"\\u[dD]")  # perhaps: what mtf writes has no such escapes
# written for readers of the JSON; read from other fields
_DERIVED = frozenset({"format", "submission", "job_id", "cause", "resources"})


MAX_RUN = 1 << 20  # bytes of one run's record: it has one line for each attempt and metric
MAX_SUBMISSION = 1 << 28  # bytes of one submission's: it has the configurations of a whole grid


class DamagedRecordError(ValueError):
    """The bytes are not a record that this version can read."""


class NewerRecordError(DamagedRecordError):
    """A newer mtf has written the record: it must not be changed."""


# -- writing ---------------------------------------------------------------------------------------


def encode_run(record: RunRecord) -> bytes:
    """Return a run record as bytes, a line for each field so that diffs are short."""
    value = {"format": FORMAT, **run_as_dict(record)}
    lines = (f" {encode_basestring(name)}: {_field(field)}" for name, field in value.items())
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode(errors="replace")


def _field(value: Any) -> str:
    """Return a field as JSON; text and null, which most fields are, without the slow encoder."""
    if value is None:
        return "null"
    return encode_basestring(value) if type(value) is str else _json(value)


def run_as_dict(record: RunRecord) -> dict[str, Any]:
    """Return a run record as JSON values, including those that are derived from its fields."""
    return {
        "run": record.run,
        "submission": record.submission,
        "job_id": record.job_id,
        "cause": record.cause,
        **as_dict(record),
        "checkpoint": record.checkpoint and as_dict(record.checkpoint),
        "best": record.best and as_dict(record.best),
        "best_checkpoint": record.best_checkpoint and as_dict(record.best_checkpoint),
        "origin": record.origin and as_dict(record.origin),
        "resources": record.resources,
        "attempts": [_attempt_as_dict(attempt) for attempt in record.attempts],
    }


def _attempt_as_dict(attempt: Attempt) -> dict[str, Any]:
    """Return an attempt as JSON values, without resources that are not known."""
    value = as_dict(attempt)
    if not value["resources"]:
        del value["resources"]
    return value


def encode_submission(record: SubmissionRecord) -> bytes:
    """Return a submission record as bytes."""
    return (_json({"format": FORMAT, **as_dict(record)}) + "\n").encode(errors="replace")


# -- reading ---------------------------------------------------------------------------------------


def decode_run(raw: bytes) -> RunRecord:
    """Return the run record in a file of the ledger.

    Raises:
        DamagedRecordError: the file holds no run record; the message names the field.
        NewerRecordError: its format is newer than this mtf.
    """
    if len(raw) > MAX_RUN:
        raise DamagedRecordError(f"it has more than {MAX_RUN:,} bytes")
    try:
        value = _parsed(raw)
        known = _RUN.known(value, derived=_DERIVED)
        check_run(known)
        run_dir = known["run_dir"]
        known["state"], known["sync"] = RUN_STATES[known["state"]], SYNCS[known["sync"]]
        if known["metrics"]:
            known["metrics"] = _numbers(known["metrics"])
            check_metrics(known["metrics"])
        for name in ("checkpoint", "best_checkpoint"):
            if (part := known[name]) is not None:
                known[name] = _part(name, _CHECKPOINT, part, run_dir)
        if known["best"] is not None:
            known["best"] = _best(known["best"])
        if known["origin"] is not None:
            known["origin"] = _part("origin", _ORIGIN, known["origin"])
        known["attempts"] = _attempts(known["attempts"])
        return _made(RunRecord, known)
    except DamagedRecordError:
        raise
    except (ValueError, RecursionError) as e:
        raise DamagedRecordError(_reason(e)) from e


def decode_submission(raw: bytes) -> SubmissionRecord:
    """Return the submission record in a file of the ledger.

    Raises:
        DamagedRecordError: the file holds no submission record; the message names the field.
        NewerRecordError: its format is newer than this mtf.
    """
    if len(raw) > MAX_SUBMISSION:
        raise DamagedRecordError(f"it has more than {MAX_SUBMISSION:,} bytes")
    try:
        known = _SUBMISSION.known(_parsed(raw), derived=frozenset({"format"}))
        check_submission(known)
        return _made(SubmissionRecord, {**known, "runs": tuple(known["runs"])})
    except DamagedRecordError:
        raise
    except (ValueError, RecursionError) as e:
        raise DamagedRecordError(_reason(e)) from e


def _reason(error: Exception) -> str:
    if isinstance(error, FieldError):
        return str(error)
    why = "nested too deeply" if isinstance(error, RecursionError) else error
    return f"it is not JSON in UTF-8: {why}"


def _parsed(raw: bytes) -> dict[str, Any]:
    """Return the object in a file, if its format is one that this version knows."""
    value = json.loads(raw.decode())
    if type(value) is not dict:
        raise FieldError("it is not a JSON object")
    version = value.get("format")
    if type(version) is not int or version < 1:
        refuse("format", f"a number from 1 to {FORMAT}", version)
    if version > FORMAT:
        raise NewerRecordError(f"format {version} was written by a newer mtf. Upgrade mtf")
    if b"\\" in raw and _ESCAPED_HALF.search(raw):
        _json(value).encode()  # half of a pair is no character
    return value


def _attempts(values: list[Any]) -> tuple[Attempt, ...]:
    if not values:
        raise FieldError("attempts: it has no attempts")
    found = []
    for number, value in enumerate(values, 1):
        try:
            known = _ATTEMPT.known(value)
            check_attempt(known)
            found.append(_made(Attempt, known))
        except FieldError as e:
            raise FieldError(f"attempt {number}: {e}") from None
    return tuple(found)


def _part(name: str, kind: Shape[_T], value: Any, run_dir: str = "") -> _T:
    """Return a part of a record: a checkpoint, or the origin."""
    try:
        known = kind.known(value)
        if kind.made is Checkpoint:
            check_checkpoint(known, run_dir)
        else:
            check_origin(known)
        return _made(kind.made, known)
    except FieldError as e:
        raise FieldError(f"{name}.{e}") from None


def _best(value: dict[str, Any]) -> Best | None:
    """Return the best value of a metric, None if it is no number: NaN is never the best."""
    try:
        known = _BEST.known(_numbers(value))
        number = known["value"]
        if number is None or number != number:  # noqa: PLR0124 -- NaN
            return None
        check_best(known)
        return _made(Best, known)
    except FieldError as e:
        raise FieldError(f"best.{e}") from None


def _numbers(values: dict[str, Any]) -> Any:
    """Return metrics, or the best of one, with the numbers that JSON has no way to write."""
    return json_text.without_names(values) if None in values.values() else values


def _made(kind: type[_T], values: dict[str, Any]) -> _T:
    """Return an instance with these fields, all of them: ``__init__`` takes 5 us for a record."""
    made = object.__new__(kind)
    vars(made).update(values)
    return made


_RUN = Shape(RunRecord)
_ATTEMPT = Shape(Attempt)
_CHECKPOINT = Shape(Checkpoint)
_ORIGIN = Shape(Origin)
_BEST = Shape(Best, value=(type(None),))
_SUBMISSION = Shape(SubmissionRecord)
