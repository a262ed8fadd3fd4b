"""Checks that the runs named in ``init_from`` exist, in the specs or in the ledger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.core.planner.init_from_names import names_of_specs, unknown_name_problems
from mtf.core.vocabulary.ids import name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from mtf.core.planner.init_from_resolve import Keyed
    from mtf.core.vocabulary.experiments import Desired
    from mtf.core.vocabulary.ids import RunId
    from mtf.core.vocabulary.records import RunRecord
    from mtf.errors import Problem
    from mtf.ledger.store import Ledger
    from mtf.spec.load import Loaded


def unknown_origins_of(keyed: Sequence[Keyed], records: Mapping[RunId, RunRecord]) -> list[Problem]:
    """Return a problem for each ``init_from`` of a new run that names no spec and no run."""
    if not any(spec.named_at for spec, _ in keyed):
        return []
    from mtf.core.planner.init_from_resolve import (  # late: few specs name a run
        Lineage,
        unknown_origins,
    )

    runs = records.values()
    recorded = {record.key for record in runs}
    return unknown_origins(keyed, Lineage(keyed, runs), recorded)


def unknown_names(
    checked: Sequence[Desired], specs: Loaded, ledger: Callable[[], Ledger | None]
) -> list[Problem]:
    """Return a problem for each name in ``init_from`` that certainly names no run.

    A name may be right if the spec of that name has mistakes, or if the ledger is unknown.

    Args:
        checked: the specs to check.
        specs: all specs.
        ledger: opens the ledger; None if this clone may not have all of it.
    """
    known = names_of_specs(specs.desired)
    broken = specs.names - {spec.name for spec in specs.desired}
    doubtful = [
        (spec, [n for n in spec.named_at if n not in known and name_of(n) not in broken])
        for spec in checked
    ]
    if not any(names for _, names in doubtful) or (recorded := ledger()) is None:
        return []
    known |= _names_of_runs(recorded)
    return [p for spec, names in doubtful for p in unknown_name_problems(spec, names, known)]


def _names_of_runs(ledger: Ledger) -> set[str]:
    """Return all names that ``init_from`` may use for recorded runs."""
    from mtf.core.planner.init_from_resolve import Lineage  # late: few specs name a run

    return Lineage((), ledger.runs.values()).names
