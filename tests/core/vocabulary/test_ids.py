"""The spelling of ids, branches and ledger paths."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mtf.core.vocabulary import ids
from mtf.core.vocabulary.ids import CommitId, RunId, SubmissionId, Token
from mtf.core.vocabulary.times import time_limit_s

COMMIT = CommitId("e8a4d464" + "0" * 32)
SUBMISSION = SubmissionId("digits/20250101T120000Z/e8a4d464")


def test_ids_are_spelled_as_the_contract_says() -> None:
    stamp = ids.timestamp(datetime(2025, 1, 1, 12, tzinfo=UTC))
    assert ids.submission_id("digits", stamp, COMMIT) == SUBMISSION
    assert ids.run_id(SUBMISSION, None) == RunId(SUBMISSION)
    assert ids.run_id(SUBMISSION, "lr=1") == f"{SUBMISSION}/lr=1"
    assert ids.job_branch(SUBMISSION) == f"refs/heads/slurm-job/{SUBMISSION}"
    assert ids.record_path(RunId(SUBMISSION)) == "runs/digits/20250101T120000Z-e8a4d464/run.json"
    assert (
        ids.record_path(RunId(f"{SUBMISSION}/lr=1"))
        == "runs/digits/20250101T120000Z-e8a4d464/lr=1.json"
    )
    assert ids.submission_path(SUBMISSION) == "submissions/digits/20250101T120000Z-e8a4d464.json"
    assert ids.submission_of(RunId(f"{SUBMISSION}/lr=1")) == SUBMISSION


@pytest.mark.parametrize("name", ["train", "a+b", "a+0123456789abcdeF", "a+0123456789abcde", ""])
def test_job_names_of_other_people_contain_no_token(name: str) -> None:
    assert ids.token_of(name) is None


def test_a_token_can_be_read_back_from_its_job_name() -> None:
    token = Token("0123456789abcdef")
    assert ids.token_of(ids.job_name("a+b", token)) == token


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 1800),
        ("1:30", 90),
        ("01:00:00", 3600),
        ("1-0", 86400),
        ("1-12:30", 131400),
        ("2-00:00:05", 172805),
    ],
)
def test_slurm_time_limits_are_read_in_seconds(text: str, seconds: int) -> None:
    assert time_limit_s(text) == seconds
