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
from mtf.core.vocabulary.records import FORMAT
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
    for raw in (json.dumps(changed).encode(), json.dumps(without).encode(), good[: len(key) * 9]):
        with suppress(DamagedRecordError):
            decode(raw)
