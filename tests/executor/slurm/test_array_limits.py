"""Limits of arrays in the output of squeue, as SLURM 22.05 prints it."""

from __future__ import annotations

from mtf.core.vocabulary.jobs import ArrayLimit
from mtf.executor.slurm.array_limits import dependency, parse_limits
from mtf.executor.slurm.job_text import SEPARATOR


def printed(*lines: tuple[str, str]) -> str:
    return "\n".join(SEPARATOR.join((*fields, "")) for fields in lines) + "\n"


def test_throttles_and_unfulfilled_dependencies_are_read() -> None:
    text = printed(
        ("8_[3-9%2]", "(null)"),
        ("8_1", "(null)"),
        ("9_[0-4]", "afterany:8_*(unfulfilled)"),
        ("10_0", "afterany:8_*(unfulfilled),afterany:9_*(unfulfilled)"),
        ("11_[0-1%1]", "afterany:7(fulfilled),afterok:6(failed)"),
    )
    limits, unclear = parse_limits(text)
    assert limits == {
        "8": ArrayLimit("8", 2),
        "9": ArrayLimit("9", None, frozenset({"8"})),
        "10": ArrayLimit("10", None, frozenset({"8", "9"})),
        "11": ArrayLimit("11", 1, is_own=False),
    }
    assert unclear == set()


def test_a_condition_of_a_person_is_not_ours() -> None:
    for theirs in (
        "afterok:7(unfulfilled)",
        "singleton(unfulfilled)",
        "afterany:8_*+5(unfulfilled)",
    ):
        for text in (theirs, f"afterany:8_*(unfulfilled),{theirs}", f"afterany:8(x)?{theirs}"):
            limits, _ = parse_limits(printed(("9_[0-4]", text), ("9_5", "(null)")))
            assert not limits["9"].is_own


def test_an_array_whose_throttle_is_not_shown_is_asked_about() -> None:
    limits, unclear = parse_limits(printed(("8_3", "(null)"), ("8_4", "(null)"), ("9_0", "(null)")))
    assert limits.keys() == {"8", "9"}
    assert unclear == {"8"}


def test_lines_that_are_no_jobs_are_skipped() -> None:
    assert parse_limits("\nslurm_load_jobs error\nx_1\x1f(null)\x1f\n") == ({}, set())


def test_a_dependency_names_all_jobs() -> None:
    assert dependency(("8", "9")) == "afterany:8:9"
    assert dependency(()) == ""
