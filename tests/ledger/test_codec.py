"""The ledger's JSON: records of any content, records that are damaged, records of newer formats."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtf.core.vocabulary.ids import CommitId
from mtf.core.vocabulary.records import FORMAT, Best, Checkpoint, Origin
from mtf.ledger.codec import (
    DamagedRecordError,
    NewerRecordError,
    decode_run,
    decode_submission,
    encode_run,
    encode_submission,
)
from tests.ledger.test_store import RUN, submission

if TYPE_CHECKING:
    from collections.abc import Callable

SUBMISSION = submission(CommitId("c" * 40))
KINDS: list[tuple[Callable[[bytes], object], bytes]] = [
    (decode_run, encode_run(RUN)),
    (decode_submission, encode_submission(SUBMISSION)),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
kinds = pytest.mark.parametrize(("decode", "good"), KINDS, ids=["run", "submission"])


@given(st.text(st.characters(codec="utf-8")), st.dictionaries(st.text(max_size=5), st.integers()))
def test_any_text_is_read_back_as_it_was_written(reason: str, parameters: dict[str, Any]) -> None:
    record = replace(RUN, reason=reason, parameters=parameters)
    assert decode_run(encode_run(record)) == record
    assert json.loads(encode_run(record))["reason"] == reason


def test_a_record_without_attempts_is_damaged() -> None:
    with pytest.raises(DamagedRecordError, match="no attempts"):
        decode_run(encode_run(RUN).replace(b'"attempts": [', b'"attempts": [], "former": ['))


@kinds
def test_a_record_of_any_newer_format_is_newer_and_not_damaged(
    decode: Callable[[bytes], object], good: bytes
) -> None:
    for newer in (FORMAT + 1, FORMAT + 98):
        value = {**json.loads(good), "format": newer}
        for changed in (value, {"format": newer}, {**value, "runs": 3, "attempts": "else"}):
            with pytest.raises(NewerRecordError, match=f"format {newer}.*Upgrade mtf"):
                decode(json.dumps(changed).encode())


@kinds
@given(data=st.data())
def test_no_content_of_a_record_raises_anything_but_damaged(
    decode: Callable[[bytes], object], good: bytes, data: st.DataObject
) -> None:
    value = json.loads(good)
    key = data.draw(st.sampled_from(sorted(value)))
    changed = data.draw(st.sampled_from([{**value, key: data.draw(JSON)}, data.draw(JSON)]))
    without = {k: v for k, v in value.items() if k != key}
    torn = good[: data.draw(st.integers(0, len(good)))]
    for raw in (json.dumps(changed).encode(), json.dumps(without).encode(), torn):
        with suppress(DamagedRecordError):
            decode(raw)


@kinds
@given(raw=st.binary())
def test_no_bytes_raise_anything_but_damaged(
    decode: Callable[[bytes], object], good: bytes, raw: bytes
) -> None:
    for content in (raw, raw + good, good + raw):
        with suppress(DamagedRecordError):
            decode(content)


SAVED = Checkpoint(f"{RUN.run_dir}/checkpoints/a.ckpt", 9, "f" * 64, 100, 1)
FULL = replace(
    RUN,
    checkpoint=SAVED,
    best_checkpoint=SAVED,
    best=Best("val_loss", 0.5, 1, 9),
    origin=Origin(RUN.run, SAVED.path, "e" * 64, 9),
    metrics={"loss": 0.5},
    parameters={"optimizer.lr": 0.1},
)
WRONG: dict[str, list[Any]] = {
    "run": [
        "../../etc/20260101T110000Z/cccccccc",
        "alone",
        "alone/x/cccccccc",
        "a..b/c/d",
        7,
        None,
    ],
    "experiment": ["other", "", None],
    "grid": ["alone", 3, {}],
    "branch": ["main", "slurm-job/../main", "slurm-job/alone/20260101T110000Z/dddddddd", None],
    "commit": ["c" * 8, "C" * 40, "d" * 40, "HEAD", "--all", 0],
    "key": ["", "k" * 64, None],
    "generation": [-1, True, 1.0, 10**30, "1"],
    "spec": ["", "a\0b", "x" * 5000, None],
    "executor": ["", "../local", "slurm\n", 1],
    "cluster": ["", "a b", None],
    "state": ["zombie", "", None, ["running"]],
    "sync": ["synced", None],
    "reason": [None, 1],
    "claimed_at": [
        "yesterday",
        "2026-13-01T00:00:00+00:00",
        "2026-01-01T00:00:00",
        "",
        None,
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
    ],
    "submitted_at": ["", 1767225600, "2026-01-01"],
    "retry_at": [True, "later"],
    "epoch": [-1, "1", 1.5, True, 1 << 63, float("nan")],
    "max_epochs": [-1, []],
    "step": [-(1 << 70), {}],
    "checkpoint": [
        {},
        [],
        "x",
        0,
        {**vars(SAVED), "path": "/etc/passwd"},
        {**vars(SAVED), "path": f"{RUN.run_dir}/../../../x"},
        {**vars(SAVED), "step": -1},
        {**vars(SAVED), "path": f"{RUN.run_dir}x/c"},
        {**vars(SAVED), "sha256": "zz"},
        {**vars(SAVED), "bytes": None},
        {"path": SAVED.path},
    ],
    "metrics": [[], {"a": "1"}, {"a": None}, {"a": True}, {"a": 10**400}, None],
    "best": [{}, {"name": "a", "value": "x", "epoch": 1, "step": 1}, 5],
    "origin": [{**vars(FULL.origin or SAVED), "path": "/etc/passwd"}, {"run": "x"}, "x"],
    "parameters": [None, [], {"a": json.loads("[" * 60 + "]" * 60)}],
    "run_dir": [
        "",
        "/",
        f"runs/{RUN.run}",
        "/runs/other",
        f"/a/../b/{RUN.run}",
        f"//{RUN.run}",
        None,
    ],
    "cancel_requested": [1, "yes", None],
    "wanted": [0, None],
    "attempts": [[], {}, None, [None], ["x"], [{}]],
}
WRONG_ATTEMPTS: dict[str, list[Any]] = {
    "token": [
        "../../../home/ada/.ssh/id_rsa",
        "/etc/passwd",
        "",
        "A" * 16,
        "a" * 15,
        "..",
        None,
        5,
    ],
    "index": [-1, "0", None, 1.0],
    "claimed_at": ["now", None],
    "claimed_by": [None, 1],
    "lease_until": ["", None],
    "job_id": ["1; rm", "-1", "", "8_[0-9]", "../x", 8],
    "ended_at": ["x"],
    "outcome": ["bored", "", 1],
    "exit_code": ["0", 1 << 70, True],
    "start_step": [-1, None],
    "end_step": [-1, "x"],
    "asked": [None, 0],
    "changes": [None, []],
    "put_off": [-1, None],
    "resources": [None, [], {"cpu_s": "5"}, {"cpu_s": -1}, {"x" * 99: 1}, {"a": True}],
}


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_field_of_a_run_is_named(key: str) -> None:
    good = json.loads(encode_run(FULL))
    for wrong in WRONG[key]:
        with pytest.raises(DamagedRecordError, match=key.removesuffix("s")):
            decode_run(json.dumps({**good, key: wrong}).encode())


@pytest.mark.parametrize("key", WRONG_ATTEMPTS)
def test_a_wrong_field_of_an_attempt_is_named(key: str) -> None:
    good = json.loads(encode_run(FULL))
    (attempt,) = good["attempts"]
    for wrong in WRONG_ATTEMPTS[key]:
        both = [attempt, {**attempt, key: wrong}]
        with pytest.raises(DamagedRecordError, match=f"attempt 2: {key}"):
            decode_run(json.dumps({**good, "attempts": both}).encode())


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("submission", "../x"),
        ("branch", "main"),
        ("commit", "d" * 40),
        ("created_at", "t"),
        ("runs", ["other/20260101T110000Z/cccccccc"]),
        ("runs", [3]),
        ("configs", {"../../x": {}}),
        ("configs", {"run": 5}),
        ("max_parallel", -2),
        ("grid", "other"),
    ],
)
def test_a_wrong_field_of_a_submission_is_named(key: str, wrong: object) -> None:
    good = json.loads(encode_submission(replace(SUBMISSION, runs=(RUN.run,))))
    with pytest.raises(DamagedRecordError, match=key):
        decode_submission(json.dumps({**good, key: wrong}).encode())


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff\xfe",
        "\ufeff{}".encode(),
        b"[1]",
        b"{" * 100_000,
        b'{"format": 1' + b"[" * 100_000,
        json.dumps({"format": 1}).encode("utf-16"),
        encode_run(RUN).replace(b'"reason": ""', b'"reason": "\\ud800"'),
        encode_run(RUN).replace(b'"reason": ""', b'"reason": "\xed\xa0\x80"'),
        encode_run(RUN).replace(b'"format": 1', b'"format": true'),
        encode_run(RUN).replace(b'"format": 1', b'"format": NaN'),
        encode_run(RUN).replace(b'"format": 1', b'"format": 0'),
        encode_run(RUN).replace(b'"generation": 1', b'"generation": ' + b"9" * 5000),
    ],
)
@kinds
def test_what_is_no_record_is_damaged(
    decode: Callable[[bytes], object], good: bytes, raw: bytes
) -> None:
    assert raw != good
    with pytest.raises(DamagedRecordError) as error:
        decode(raw)
    assert not isinstance(error.value, NewerRecordError)


def test_keys_of_a_newer_mtf_survive_a_change_of_the_record() -> None:
    value = json.loads(encode_run(FULL))
    value |= {"pack": {"of": [1, 2]}, "unknown": 3}
    for part in (value["checkpoint"], value["best"], value["origin"], *value["attempts"]):
        part["shard"] = "x"
    read = decode_run(json.dumps(value).encode())
    later = replace(read, epoch=7).with_attempt(replace(read.attempt, node="n1"))
    written = json.loads(encode_run(later))
    assert (written["pack"], written["unknown"]) == ({"of": [1, 2]}, 3)
    for part in (written["checkpoint"], written["best"], written["origin"], *written["attempts"]):
        assert part["shard"] == "x"
    assert "pack" not in json.loads(encode_run(FULL))  # no record gets the keys of another
    submission_value = json.loads(encode_submission(SUBMISSION)) | {"why": "new"}
    again = encode_submission(decode_submission(json.dumps(submission_value).encode()))
    assert json.loads(again) == submission_value


def test_the_resources_of_an_attempt_are_read_back_and_their_number_is_bounded() -> None:
    used = {"peak_memory_mb": 4200.5, "of a newer mtf": 3.0}
    record = RUN.with_attempt(replace(RUN.attempt, resources=used))
    assert decode_run(encode_run(record)) == record
    assert json.loads(encode_run(record))["resources"] == used
    assert json.loads(encode_run(RUN))["resources"] is None
    many = RUN.with_attempt(replace(RUN.attempt, resources={f"r{n}": n for n in range(41)}))
    with pytest.raises(DamagedRecordError, match="at most 40 amounts"):
        decode_run(encode_run(many))


def test_a_record_of_an_older_mtf_without_later_fields_is_read() -> None:
    value = json.loads(encode_run(RUN))
    for later in ("origin", "packages", "wanted", "best_checkpoint", "observed_at"):
        del value[later]
    for later in ("asked", "changes", "put_off"):
        del value["attempts"][0][later]
    assert decode_run(json.dumps(value).encode()) == replace(RUN, observed_at=None)
