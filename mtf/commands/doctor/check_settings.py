"""Checks of what is committed: mtf.yaml and every spec of the tracked branch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.commands.doctor.finding import Checkup, Finding, Theme
from mtf.commands.validate import SlurmQuery, revision
from mtf.errors import RepositoryError

if TYPE_CHECKING:
    from collections.abc import Iterator


def committed(checkup: Checkup) -> Iterator[Finding]:
    """Find mistakes in the settings and specs that the next sync will read."""
    project = checkup.project
    try:
        commit = project.tracked()
    except RepositoryError:
        return  # the repository's checks report it
    for problem in revision(project.root, commit, SlurmQuery.FACTS).problems:
        where = f"{project.settings.branch}:{problem.path}:{problem.line}:{problem.column}"
        yield Finding(problem.severity, problem.message, where, "fix it, commit and push")


THEME = Theme("settings", (committed,))
