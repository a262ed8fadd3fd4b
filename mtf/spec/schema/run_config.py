"""``config.yaml`` of a run folder: the resolved configuration that the job loads."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from mtf.core.vocabulary.records import Origin
from mtf.spec.schema.sections import Sections
from mtf.spec.schema.strict import Strict


def _origin(value: Any) -> Origin:
    """Return the ledger's own type for a mapping: a strict model takes none for a dataclass."""
    return TypeAdapter(Origin).validate_python(value)


class RunInfo(Strict):
    """Which run this is and where its code stands. All paths are absolute."""

    run: str
    submission: str
    experiment: str
    grid: str | None
    key: str
    commit: str
    code_dir: str
    manifest: str
    """The manifest that proves the content of ``code_dir`` (see ``git_tree_ids``)."""
    repository: str
    """Root of the live repository, which nothing may be imported from."""
    origin: Annotated[Origin, BeforeValidator(_origin)] | None = None
    """What ``init_from`` has come to."""


class ExperimentConfig(Sections):
    """The resolved configuration as the job loads it from ``config.yaml``."""

    experiment_name: str
    """A single experiment's own name, or a member's name within its grid."""
    mtf: RunInfo
