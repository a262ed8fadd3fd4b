"""Names the templates of job scripts, and tells those of a repository from mtf's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mtf.packaged_files import data_dir

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["slurm", "local"]
TEMPLATES: Mapping[Kind, str] = {"slurm": "job.sbatch.j2", "local": "local.sh.j2"}


def own_templates(templates: Mapping[str, str]) -> dict[str, str]:
    """Return the templates that differ from those of mtf."""
    shipped = shipped_templates() if templates else {}
    return {name: text for name, text in templates.items() if shipped.get(name) != text}


def shipped_templates() -> dict[str, str]:
    """Return mtf's own templates by name."""
    return {path.name: path.read_text() for path in data_dir("templates").glob("*.j2")}
