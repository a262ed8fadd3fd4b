"""What a check is given, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mtf.ledger.store import Ledger
    from mtf.project.project import Project

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be. A warning is what may be meant so."""

    severity: Severity
    what: str
    where: str  # a path, a ref, a run: what to look at
    repair: str  # the command, or what to do


@dataclass(frozen=True)
class Checkup:
    """What all checks look at; whatever costs something is read once, when a check asks."""

    project: Project
    checksums: bool  # whether files are read whole to compare their sha256

    @cached_property
    def ledger(self) -> Ledger:
        """Return the newest ledger that this clone knows, compared with all of its history."""
        return self.project.proven_ledger()

    @cached_property
    def executor(self) -> str:
        """Return the name of the executor that new jobs go to."""
        from mtf.reconcile.executors import resolve_executor

        return resolve_executor(self.project.settings.executor)


@dataclass(frozen=True)
class Theme:
    """The checks of one module."""

    name: str
    checks: tuple[Callable[[Checkup], Iterable[Finding]], ...]
