"""`mtf doctor --write`: writes the cluster's limits to mtf.yaml, for hosts without SLURM."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from mtf import rundir
from mtf.errors import MtfError, SpecError
from mtf.executor.slurm.cluster_query import read_facts
from mtf.executor.slurm.programs import available
from mtf.project.settings_file import SETTINGS, required_root, settings_on_disk
from mtf.spec.schema.cluster_section import as_section

if TYPE_CHECKING:
    from pathlib import Path


def write_facts(where: Path) -> Path:
    """Write the cluster's partitions, nodes and limits to ``cluster`` in the mtf.yaml on disk.

    Everything else in the file, comments included, stays as it is.

    Raises:
        ExecutorUnavailableError: SLURM does not answer.
        MtfError: there is no repository, SLURM is not installed here, or mtf.yaml has mistakes.
    """
    root = required_root(where)
    path = root / SETTINGS
    settings, problems = settings_on_disk(root, where)
    if problems:
        raise SpecError(list(problems))
    if not available():
        raise MtfError("SLURM is not installed here. Run mtf doctor --write on a login node")
    section = as_section(settings.cluster.name, read_facts())
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    rundir.write_atomically(path, with_section(text, section).encode())
    return path


def with_section(text: str, section: dict[str, Any]) -> str:
    """Return the text of an mtf.yaml with its ``cluster`` replaced."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1 << 16  # keep the user's long lines
    settings = yaml.load(text)
    out = io.StringIO()
    if settings is None:  # comments alone, which belong to no key
        settings = {}
        out.write(text)
    settings["cluster"] = _inline_lists(section)
    yaml.dump(settings, out)
    return out.getvalue()


def _inline_lists(value: Any) -> Any:
    """Return a value whose lists, with the mappings in them, are written on one line."""
    if isinstance(value, dict):
        return CommentedMap({key: _inline_lists(item) for key, item in value.items()})
    if isinstance(value, list):
        out = CommentedSeq(_inline_lists(item) for item in value)
        out.fa.set_flow_style()
        return out
    return value
