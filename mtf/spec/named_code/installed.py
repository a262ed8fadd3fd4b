"""Facts about the packages that are installed here, which are not imported for them."""

from __future__ import annotations

from functools import cache

from mtf.spec.named_code.known_signatures import torch_version


@cache
def plug_ins(group: str) -> frozenset[str]:
    """Return the names that installed packages register in a group."""
    import importlib.metadata

    return frozenset(point.name for point in importlib.metadata.entry_points(group=group))


@cache
def is_installed(package: str) -> bool:
    """Return True if a top-level package can be imported here."""
    import importlib.util

    return importlib.util.find_spec(package) is not None


@cache
def has_newer_torch() -> bool:
    """Return True if the installed torch may have names that the table of signatures lacks."""
    import importlib.metadata

    try:
        found = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return False
    numbers = (version.partition("+")[0].split(".")[:2] for version in (found, torch_version()))
    here, table = ([int(n) for n in parts if n.isdigit()] for parts in numbers)
    return here > table
