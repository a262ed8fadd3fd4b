"""The values of `mtf doctor`: what a check is given, and the findings that it yields."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from mtf.reconcile.executors import resolve_executor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mtf.ledger.store import Ledger
    from mtf.project.project import Project

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """A problem that a check found. A warning may be intended, an error is not."""

    severity: Severity
    what: str  # what is wrong and why that matters
    where: str  # the path, ref, run or setting that is concerned
    repair: str  # the command that repairs it, or what to do


@dataclass(frozen=True)
class Checkup:
    """What the checks read. Expensive parts are read once, when the first check asks."""

    project: Project
    checksums: bool  # read whole files to compare their sha256

    @cached_property
    def ledger(self) -> Ledger:
        """Return this clone's newest ledger, audited against all of its history."""
        return self.project.proven_ledger()

    @cached_property
    def executor(self) -> str:
        """Return the name of the executor that gets new jobs."""
        return resolve_executor(self.project.settings.executor)


@dataclass(frozen=True)
class Theme:
    """A name, and the checks of one module."""

    name: str
    checks: tuple[Callable[[Checkup], Iterable[Finding]], ...]
