"""Checks of what several people share: the run root, the folders of runs, and one clone."""

from __future__ import annotations

import grp
import os
import stat
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.commands.doctor.finding import Checkup, Finding, Theme
from mtf.reconcile.run_access import is_elsewhere, owner_if_read_only, private_folder
from mtf.report.tables import count

if TYPE_CHECKING:
    from collections.abc import Iterator


def private_runs(checkup: Checkup) -> Iterator[Finding]:
    """Find runs whose folders another user keeps private, or lets nobody else write."""
    root = checkup.project.runs_root
    owners: Counter[tuple[str, str]] = Counter()
    for record in checkup.ledger.runs.values():
        if is_elsewhere(root, record):
            continue
        if private_folder(record):
            owners[rundir.owner_of(Path(record.run_dir)), "looked into"] += 1
        elif not record.is_over and (owner := owner_if_read_only(record)):
            owners[owner, "written"] += 1
    for (owner, how), number in owners.items():
        yield Finding(
            "warning",
            f"the folders of {count(number, 'run')} can be {how} by {owner} alone, so only {owner}"
            " reconciles them",
            str(root),
            _for_group(root, owner),
        )


def shared_root(checkup: Checkup) -> Iterator[Finding]:
    """Find a run root that is shared in part: some of it can be written by one user alone."""
    root = checkup.project.runs_root
    if not root.is_dir():
        return
    mode = root.stat().st_mode
    if mode & stat.S_IWGRP and not mode & stat.S_ISGID:
        yield Finding(
            "warning",
            "the run root can be written by a group, but new folders in it belong to the group of"
            " whoever makes them",
            str(root),
            f"chmod g+s {root}",
        )
    folder = root / rundir.CODE
    if mode & stat.S_IWGRP and folder.is_dir() and not os.access(folder, os.W_OK):
        owner = rundir.owner_of(folder)
        what = f"only {owner} can write it, so nobody else can submit runs under this run root"
        yield Finding("error", what, str(folder), _for_group(folder, owner))


def shared_clone(checkup: Checkup) -> Iterator[Finding]:
    """Find a clone that belongs to another user, or has files of others, and is not shared."""
    folder = checkup.project.repo.common_dir
    cure = f"git config core.sharedRepository group; chmod -R g+rwX {folder}; or a clone each"
    if not os.access(folder / "objects", os.W_OK):
        owner = rundir.owner_of(folder)
        what = f"this clone is {owner}'s, and not shared, so you can neither sync nor cancel here"
        yield Finding("error", what, str(folder), f"as {owner}: {cure}")
        return
    shared = checkup.project.repo.config("core.sharedRepository") or "umask"
    owners = {rundir.owner_of(folder)}
    for name in ("refs/heads/mtf/ledger", "logs", "objects", "mtf"):
        if (folder / name).exists():
            owners.add(rundir.owner_of(folder / name))
    if len(owners) > 1 and shared in ("umask", "false", "0"):
        people = " and ".join(sorted(owners))
        what = f"{people} work in this clone, and git shares none of its new files with them"
        yield Finding("error", what, str(folder), cure)


def _for_group(folder: Path, owner: str) -> str:
    group = str(folder.stat().st_gid)
    with suppress(KeyError):
        group = grp.getgrgid(int(group)).gr_name
    return (
        f"to share it with the group {group}: umask 002 for everybody, and as {owner}"
        f" chmod -R g+rwX {folder}; find {folder} -type d -exec chmod g+s {{}} +"
    )


THEME = Theme("sharing", (private_runs, shared_root, shared_clone))
