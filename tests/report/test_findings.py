"""The findings of `mtf doctor` as text."""

from __future__ import annotations

from mtf.report.findings import Row, findings_text

WARNING: Row = ("storage", "warning", "little space", "/runs", "delete files")
ERROR: Row = (
    "ledger",
    "error",
    "a record is damaged\n\nfatal: bad object",
    "mtf/ledger",
    "git log",
)


def test_errors_come_first_and_every_finding_has_its_place_and_repair() -> None:
    assert findings_text(
        [WARNING, ERROR], ["storage", "ledger", "runs", "settings"]
    ).splitlines() == [
        "error: ledger: a record is damaged",
        "  fatal: bad object",
        "  where:  mtf/ledger",
        "  repair: git log",
        "warning: storage: little space",
        "  where:  /runs",
        "  repair: delete files",
        "ok: runs, settings",
        "1 error, 1 warning",
    ]


def test_without_findings_every_theme_is_ok() -> None:
    assert findings_text([], ["storage", "ledger"]) == "ok: storage, ledger\n0 errors, 0 warnings"
