"""Whether what ``init_from`` names is there: in the specs, or in a ledger that can be seen here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.core.planner.init_from_names import names_of_desired, not_among
from mtf.core.vocabulary.ids import name_of
from mtf.errors import Problem, RepositoryError, SpecError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mtf.core.planner.init_from_resolve import Keyed
    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.ids import RunId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.project.project import Project
    from mtf.spec.load import Loaded


def unknown_origins_of(
    desired: Sequence[Keyed], records: Mapping[RunId, RunRecord]
) -> list[Problem]:
    """Return where specs ask for runs, not yet recorded, from what neither they nor ledger know."""
    if not any(one.named_at for one, _ in desired):
        return []
    from mtf.core.planner.init_from_resolve import (  # late: few specs name a run
        Lineage,
        unknown_origins,
    )

    runs = records.values()
    recorded = {record.key for record in runs}
    return unknown_origins(desired, Lineage(desired, runs), recorded)


def unknown_names(
    asking: Sequence[Desired], specs: Loaded, project: Callable[[], Project]
) -> list[Problem]:
    """Return a problem for each name in ``init_from`` that is certainly nobody's.

    It is not certain where the named spec has mistakes, nor where the ledger may be elsewhere.

    Args:
        asking: the specs to look at.
        specs: all there are.
        project: opens the repository, if there is one.
    """
    known = names_of_desired(specs.desired)
    broken = specs.names - {one.name for one in specs.desired}
    open_names = {
        one.name: [n for n in one.named_at if n not in known and name_of(n) not in broken]
        for one in asking
    }
    if not any(open_names.values()) or (runs := _names_of_runs(project)) is None:
        return []
    return [p for one in asking for p in not_among(one, open_names[one.name], known | runs)]


def _names_of_runs(project: Callable[[], Project]) -> set[str] | None:
    """Return what runs are called in the ledger, None where one may be that is not seen here."""
    try:
        opened = project()
        ledger = opened.ledger()
    except (RepositoryError, SpecError):
        return None
    if ledger.tip is None:
        return None if opened.remote else set()
    from mtf.core.planner.init_from_resolve import Lineage

    return Lineage((), ledger.runs.values()).names
