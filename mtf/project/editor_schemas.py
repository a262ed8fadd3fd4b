"""JSON Schemas for editors, and the modeline in a spec that points to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary import json_text
from mtf.errors import MtfError

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ".mtf"
SPEC, SETTINGS = f"{FOLDER}/spec.schema.json", f"{FOLDER}/settings.schema.json"


def schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema of a ``spec`` or of the ``settings``."""
    from mtf.spec.schema.json_schema import settings_schema, spec_schema

    return spec_schema() if kind == "spec" else settings_schema()


def write(root: Path) -> list[str]:
    """Write both schemas below a repository's root; return the paths that changed.

    Raises:
        MtfError: the folder cannot be written.
    """
    texts = {name: _text(kind) for name, kind in ((SPEC, "spec"), (SETTINGS, "settings"))}
    try:
        changed = [name for name, text in texts.items() if _content(root / name) != text]
        for name in changed:
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_text(texts[name], encoding="utf-8", newline="\n")
    except OSError as e:
        raise MtfError(f"{e.filename}: {e.strerror}") from e
    return changed


def modeline(path: str) -> str:
    """Return the first line for a YAML file at ``path`` in the repository.

    Source: yaml-language-server, "Using inlined schema".
    """
    up = "../" * path.count("/")
    return f"# yaml-language-server: $schema={up}{SPEC if '/' in path else SETTINGS}\n"


def _text(kind: str) -> str:
    return json_text.dumps(schema(kind), indent=1, ensure_ascii=False) + "\n"


def _content(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
