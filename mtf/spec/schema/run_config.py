"""``config.yaml`` of a run folder: the resolved configuration that the job loads."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, TypeAdapter

from mtf.core.vocabulary.records import Origin
from mtf.spec.schema.sections import Sections
from mtf.spec.schema.strict import Strict


def _origin(value: Any) -> Origin:
    """Return the ledger's dataclass for a mapping, which a strict model would refuse."""
    return TypeAdapter(Origin).validate_python(value)


class RunInfo(Strict):
    """The run's names and the place of its code. All paths are absolute."""

    run: str
    submission: str
    experiment: str
    grid: str | None
    key: str
    commit: str
    code_dir: str
    """The checkout of the pinned commit."""
    folder: str = ""
    """The project's folder in ``code_dir``, in which the job works; empty: ``code_dir`` itself."""
    manifest: str
    """Path of the manifest that proves the content of ``code_dir`` (see ``git_tree_ids``)."""
    repository: str
    """Root of the user's repository, which the job must not import from."""
    origin: Annotated[Origin, BeforeValidator(_origin)] | None = None
    """The checkpoint that ``init_from`` was resolved to."""


class ExperimentConfig(Sections):
    """The resolved configuration that the job loads from ``config.yaml``."""

    experiment_name: str
    """Name of the experiment, or of the member within its grid."""
    mtf: RunInfo
