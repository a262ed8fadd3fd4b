"""``ExperimentConfig``: one experiment as a program describes it, from parts or from a mapping."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, JsonValue

from mtf.core.vocabulary.ids import is_member
from mtf.spec.schema.error_messages import shown
from mtf.spec.schema.sections import Content
from mtf.spec.schema.slurm_section import SLURMConfig
from mtf.spec.schema.specs import Control
from mtf.spec.schema.text_types import name_problem


def _name(name: str) -> str:
    owner, slash, member = name.partition("/")
    if problem := name_problem(owner):
        raise ValueError(f"{shown(owner)} {problem}")
    if slash and not is_member(member):
        raise ValueError(
            f"{shown(name)} names no member of a grid: after '/', expected at most 200 letters,"
            " digits and the characters _%+=,.-"
        )
    return name


class ExperimentConfig(Content, Control):
    """One experiment: its sections, and when it counts as a new run.

    ``ModelTrainingFramework.create_experiment`` returns one with all defaults filled in. One that
    is built from parts is resolved where it is used: the defaults of mtf.yaml apply there.
    """

    experiment_name: Annotated[str, AfterValidator(_name)]
    """Name of the experiment; ``grid/member`` for a member of a grid."""
    slurm: SLURMConfig | None = None
    """Resources and environment of the job; null: the defaults of mtf.yaml."""
    parameters: dict[str, JsonValue] = Field(default_factory=dict)
    """Values that its grid has set, by dotted key; they are part of the sections."""
