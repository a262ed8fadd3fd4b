"""Runs all checks. To add a check, write it in its theme's module and add it to that THEME."""

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
    check_security,
    check_settings,
    check_sharing,
    check_storage,
)
from mtf.commands.doctor.finding import Checkup, Finding
from mtf.errors import MtfError, RepositoryError
from mtf.git.repo import GitRepo
from mtf.project.project import open_project

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mtf.commands.doctor.finding import Theme

_THEN = "fix that, then run mtf doctor again"
THEMES: tuple[Theme, ...] = (
    check_repository.THEME,
    check_settings.THEME,
    check_storage.THEME,
    check_executors.THEME,
    check_environment.THEME,
    check_ledger.THEME,
    check_runs.THEME,
    check_controller.THEME,
    check_security.THEME,
    check_sharing.THEME,
)


@dataclass(frozen=True)
class Diagnosis:
    """The themes that were checked, and the findings."""

    themes: tuple[str, ...]
    findings: tuple[tuple[str, Finding], ...]  # each with its theme

    @property
    def is_healthy(self) -> bool:
        """Return True if no finding is an error; there may be warnings."""
        return all(finding.severity != "error" for _, finding in self.findings)


def examine(folder: Path, *, checksums: bool = False) -> Diagnosis:
    """Run every check; a check that fails to run is a finding itself."""
    try:
        checkup = Checkup(open_project(folder), checksums)
    except MtfError as e:
        finding = Finding("error", str(e), str(folder), _first_step(folder))
        return Diagnosis(("repository",), (("repository", finding),))
    with checkup.project.repo.reading():
        findings = [(theme.name, f) for theme in THEMES for f in _findings(theme, checkup)]
    return Diagnosis(tuple(theme.name for theme in THEMES), tuple(findings))


def _first_step(folder: Path) -> str:
    """Return the repair for a folder in which no project can be opened."""
    try:
        repo = GitRepo(folder)
    except RepositoryError as e:
        return _THEN if "safe.directory" in str(e) else "mtf init, or cd to the repository"
    if repo.find_commit("HEAD") is None:
        return "commit first: git add --all && git commit, then run mtf doctor again"
    return _THEN


def _findings(theme: Theme, checkup: Checkup) -> Iterator[Finding]:
    for check in theme.checks:
        try:
            yield from check(checkup)
        except (MtfError, OSError) as e:
            where = str(checkup.project.root)
            yield Finding("error", str(e), where, _THEN)
