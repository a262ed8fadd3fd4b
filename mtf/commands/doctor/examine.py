"""Runs all checks. To add one: write it in the module of its theme and list it there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf.commands.doctor import (
    check_controller,
    check_environment,
    check_executors,
    check_ledger,
    check_repository,
    check_runs,
    check_settings,
    check_storage,
)
from mtf.commands.doctor.finding import Checkup, Finding
from mtf.errors import MtfError
from mtf.project.project import open_project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mtf.commands.doctor.finding import Theme

THEMES: tuple[Theme, ...] = (
    check_repository.THEME,
    check_settings.THEME,
    check_storage.THEME,
    check_executors.THEME,
    check_environment.THEME,
    check_ledger.THEME,
    check_runs.THEME,
    check_controller.THEME,
)


@dataclass(frozen=True)
class Diagnosis:
    """What was looked at, and what was found there, by theme."""

    themes: tuple[str, ...]
    findings: tuple[tuple[str, Finding], ...]  # each with its theme

    @property
    def is_healthy(self) -> bool:
        """Return whether there is no error; warnings may be."""
        return all(finding.severity != "error" for _, finding in self.findings)


def examine(folder: Path, *, checksums: bool = False) -> Diagnosis:
    """Run every check; one that cannot be made is a finding itself."""
    try:
        checkup = Checkup(open_project(folder), checksums)
    except MtfError as e:
        found = Finding("error", str(e), str(folder), "mend it, then run mtf doctor again")
        return Diagnosis(("repository",), (("repository", found),))
    with checkup.project.repo.reading():
        findings = [(theme.name, found) for theme in THEMES for found in _look(theme, checkup)]
    return Diagnosis(tuple(theme.name for theme in THEMES), tuple(findings))


def _look(theme: Theme, checkup: Checkup) -> Iterator[Finding]:
    for check in theme.checks:
        try:
            yield from check(checkup)
        except (MtfError, OSError) as e:
            where = str(checkup.project.repo.root)
            yield Finding("error", str(e), where, "mend it, then run mtf doctor again")
