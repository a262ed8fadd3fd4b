"""Finds the remote that the clones of a project share, where the ledger is.

Two clones that use different remotes, or none, each submit the same runs. So a repository with
remotes always has one that is used: the one in the settings; else the tracked branch's, as git has
it; else ``origin``; else the only one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.errors import RepositoryError
from mtf.project.settings_file import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mtf.spec.schema.settings import Settings

CONFIG = r"remote\..*\.url|branch\..*\.remote"  # of git's configuration, what the choice depends on


def shared_remote(settings: Settings, config: Mapping[str, str]) -> str | None:
    """Return the name of the shared remote, None for a project that one clone has for itself.

    Args:
        settings: of the project.
        config: git's configuration, with at least the keys that match ``CONFIG``.

    Raises:
        RepositoryError: the remote in the settings does not exist, or there are several and
            nothing says which of them is shared.
    """
    remotes = [
        key.removeprefix("remote.").removesuffix(".url")
        for key in config
        if key.startswith("remote.") and key.endswith(".url")
    ]
    if "remote" in settings.model_fields_set:
        return _named(settings.remote, remotes)
    return default_remote(settings.branch, remotes, config.get(f"branch.{settings.branch}.remote"))


def _named(name: str | None, remotes: Collection[str]) -> str | None:
    if name is None or name in remotes:
        return name
    has = f"It has: {', '.join(sorted(remotes))}. " if remotes else ""
    raise RepositoryError(
        f"{SETTINGS}: remote {name!r} is not a remote of this repository. {has}Add it"
        f" (git remote add {name} URL), or remove `remote:`, for that of the tracked branch"
        " (null: this clone alone)"
    )


def default_remote(branch: str, remotes: Collection[str], tracked: str | None) -> str | None:
    """Return the remote of a project whose settings name none, None for a repository without one.

    Args:
        branch: the tracked branch.
        remotes: of the repository.
        tracked: the remote of that branch, as git has it.

    Raises:
        RepositoryError: there are several, and git tracks none of them.
    """
    choices = [name for name in (tracked, "origin", *remotes) if name in remotes]
    if not choices:
        return None
    if choices[0] != tracked and choices[0] != "origin" and len(remotes) > 1:
        names = sorted(remotes)
        raise RepositoryError(
            f"several remotes ({', '.join(names)}), and {branch} tracks none of them: clones that"
            " use different ones would each submit the same runs. Say which one they share:"
            f" git branch --set-upstream-to {names[0]}/{branch} {branch}, or"
            f" `remote: {names[0]}` in {SETTINGS} (null: this clone alone)"
        )
    return choices[0]
