"""Reasons of jobs that wait, in words."""

from __future__ import annotations

import pytest

from mtf.executor.slurm.waiting_reasons import explain


@pytest.mark.parametrize(
    ("word", "words", "cure"),
    [
        ("Priority", "waits for jobs with a higher priority (Priority)", ""),
        ("None", "queued", ""),
        ("JobHeldUser", "held by its user (JobHeldUser)", "scontrol release 8_3"),
        (
            "launch failed requeued held",
            "held: SLURM could not start it (launch failed requeued held)",
            "scontrol release 8_3",
        ),
        (
            "QOSMaxCpuPerUserLimit",
            "waits for the limit of its QOS on CPUs per user (QOSMaxCpuPerUserLimit)",
            "",
        ),
        (
            "AssocGrpCPUMinutesLimit",
            "waits for the limit of its account on CPU minutes (AssocGrpCPUMinutesLimit)",
            "",
        ),
        (
            "QOSGrpGRESRunMinutes",
            "waits for the limit of its QOS on GPU minutes (QOSGrpGRESRunMinutes)",
            "",
        ),
        (
            "ReqNodeNotAvail, UnavailableNodes:n[1-4]",
            "waits for nodes that are down, drained or reserved"
            " (ReqNodeNotAvail, UnavailableNodes:n[1-4])",
            "",
        ),
        ("AReasonOfTheFuture", "AReasonOfTheFuture", ""),
    ],
)
def test_a_reason_is_said_in_words_with_slurms_own(word: str, words: str, cure: str) -> None:
    assert explain(word, "8_3") == (words, cure)


@pytest.mark.parametrize(
    "word",
    [
        "QOSMaxCpuPerJobLimit",
        "AssocMaxWallDurationPerJobLimit",
        "QOSMinCpuNotSatisfied",
        "PartitionTimeLimit",
        "BadConstraints",
        "DependencyNeverSatisfied",
        "InvalidQOS",
    ],
)
def test_what_will_never_start_has_a_cure(word: str) -> None:
    why = explain(word, "8")
    assert word in why.words
    assert "mtf cancel" in why.cure


def test_several_reasons_are_all_explained() -> None:
    words = explain("BeginTime,JobHeldUser", "8").words
    assert "waits for its begin time (BeginTime)" in words
    assert "held by its user (JobHeldUser)" in words
