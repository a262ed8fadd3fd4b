"""Reads the templates of job scripts that a repository has of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.executor.template_names import own_templates

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from mtf.core.vocabulary.ids import CommitId
    from mtf.executor.template_names import Kind
    from mtf.git.repo import GitRepo
    from mtf.git.wire import Entry
    from mtf.spec.schema.settings import Settings

FOLDER = "templates"
_REGULAR = ("100644", "100755")


def script_kind(settings: Settings) -> Kind:
    """Return the kind of job scripts that matter to a repository with these settings."""
    return "local" if settings.executor == "local" else "slurm"


def templates_at(repo: GitRepo, commit: CommitId) -> dict[str, str]:
    """Return the repository's own templates at a commit, by name; without copies of mtf's."""
    return _own(repo, repo.files(commit, FOLDER))


def templates_in_index(repo: GitRepo) -> dict[str, str]:
    """Return the repository's own templates as they are staged; see ``templates_at``."""
    return _own(repo, repo.index(FOLDER))


def _own(repo: GitRepo, entries: Mapping[str, Entry]) -> dict[str, str]:
    files = {p: e for p, e in entries.items() if p.endswith(".j2") and e.mode in _REGULAR}
    contents = repo.blobs(e.oid for e in files.values())
    texts = {p.split("/", 1)[1]: contents[e.oid] for p, e in files.items()}
    return own_templates({name: raw.decode(errors="replace") for name, raw in texts.items()})


def templates_on_disk(root: Path) -> dict[str, str]:
    """Return the project's own templates on disk; see ``templates_at``."""
    folder = root / FOLDER
    files = sorted(p for p in folder.rglob("*.j2") if p.is_file() and not p.is_symlink())
    return own_templates({str(p.relative_to(folder)): p.read_text(errors="replace") for p in files})
