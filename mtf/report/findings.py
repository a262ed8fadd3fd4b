"""The findings of `mtf doctor` as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = tuple[str, str, str, str, str]  # theme, severity, what, where, repair


def findings_text(findings: Sequence[Row], themes: Sequence[str]) -> str:
    """Return a block for each finding, errors first, then the clean themes and the totals."""
    lines = []
    for theme, severity, what, where, repair in sorted(findings, key=lambda f: f[1] != "error"):
        text = "\n  ".join(filter(None, what.splitlines()))
        lines += [f"{severity}: {theme}: {text}", f"  where:  {where}", f"  repair: {repair}"]
    found = {finding[0] for finding in findings}
    clean = [theme for theme in themes if theme not in found]
    lines += [f"ok: {', '.join(clean)}"] if clean else []
    errors = sum(severity == "error" for _, severity, *_ in findings)
    warnings = len(findings) - errors
    return "\n".join([*lines, f"{count(errors, 'error')}, {count(warnings, 'warning')}"])
