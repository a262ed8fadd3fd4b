"""Small specs that the tests of this folder build on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtf.spec.load import Loaded, load_specs
from mtf.spec.schema.settings import parse_settings

if TYPE_CHECKING:
    from mtf.core.vocabulary.experiments import Experiment

STAMP = "20250101T120000Z"
BASE = "kind: base\nmodel: {type: mlp}\ndata: {dataset_name: digits}\n"
EXPERIMENT = (
    "kind: experiment\nexperiment_name: one\nmodel: {type: mlp}\ndata: {dataset_name: digits}\n"
)


def load(settings: str = "", **texts: str) -> Loaded:
    """Load specs given as ``name="text"``; each is at ``experiments/<name>.yaml``."""
    files = {f"experiments/{name}.yaml": text.encode() for name, text in texts.items()}
    return load_specs(files, parse_settings(settings.encode()), STAMP)


def problems(settings: str = "", **texts: str) -> list[str]:
    """Return the problems of specs as users see them, without the folder."""
    return [str(p).removeprefix("experiments/") for p in load(settings, **texts).problems]


def members(grid: str, base: str = BASE) -> tuple[Experiment, ...]:
    """Return the members of a grid over ``base.yaml``."""
    loaded = load(base=base, g=f"kind: grid\nname: g\nbase: base.yaml\n{grid}")
    assert not loaded.problems, "\n".join(map(str, loaded.problems))
    return loaded.desired[0].experiments


def parameters(grid: str, base: str = BASE) -> list[dict[str, Any]]:
    """Return the parameters of each member of a grid."""
    return [dict(member.parameters) for member in members(grid, base)]


def grid_problems(grid: str, base: str = BASE) -> list[str]:
    """Return the problems of a grid; the given text begins at line 4 of its file."""
    return problems(base=base, g=f"kind: grid\nname: g\nbase: base.yaml\n{grid}")
