"""The answers of sbatch: the job id, clusters, and its messages among those of a site."""

from __future__ import annotations

import pytest

from mtf.errors import ExecutorUnavailableError
from mtf.executor.slurm import job_text
from mtf.executor.slurm.sbatch_answer import (
    Submission,
    messages,
    named_clusters,
    plain_submission,
)


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        ("812\n", Submission("812", None)),
        ("812;big\n", Submission("812", "big")),
        ("the cluster is busy today\n812\n", None),
        ("2026\n", Submission("2026", None)),
        ("2026\nSubmitted batch job 812\n", None),  # the year alone in its line is no job
        ("812\n812\n", None),
        ("\x1b[32m812\x1b[0m\n", None),
        ("Submitted batch job 812\n", None),
        ("812 813\n", None),
        ("", None),
        ("²\n", None),
        ("9" * 400, None),
    ],
)
def test_an_answer_is_plain_only_if_it_is_nothing_but_a_job(
    printed: str, found: Submission | None
) -> None:
    assert plain_submission(printed) == found


@pytest.mark.parametrize(
    ("printed", "found"),
    [
        ("812\n", set()),
        ("812;big\n", {Submission("812", "big")}),
        ("welcome\n\x1b[1m812;big\x1b[0m\n", {Submission("812", "big")}),
        ("Submitted batch job 812 on cluster big\n", {Submission("812", "big")}),
        ("use 7;x for more\n", set()),
    ],
)
def test_the_cluster_is_found_wherever_the_answer_names_it(
    printed: str, found: set[Submission]
) -> None:
    assert named_clusters(printed) == found


def test_the_messages_are_those_of_sbatch_without_a_banner_and_colours() -> None:
    printed = (
        "*** authentication changes on Monday ***\n"
        "\x1b[31msbatch: error: Batch job submission failed: Invalid qos specification\x1b[0m\n"
    )
    assert messages(printed) == ["Batch job submission failed: Invalid qos specification"]
    assert job_text.submission_error(printed) is None, "the banner is not about this submission"
    assert messages("site filter: no account\n") == ["site filter: no account"]
    failure = "sbatch: error: Unable to contact slurm controller (connect failure)"
    assert type(job_text.submission_error(f"hello\n{failure}")) is ExecutorUnavailableError
