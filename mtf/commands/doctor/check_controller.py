"""Checks of the controller: it is alive, and a systemd unit or a crontab line restarts it."""

from __future__ import annotations

import getpass
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import proc
from mtf.commands.controller.service import controller_states
from mtf.commands.doctor.finding import Checkup, Finding, Theme
from mtf.errors import MtfError, RepositoryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.project.project import Project

_LINGER = Path("/var/lib/systemd/linger")  # Source: loginctl(1), enable-linger
_START = "systemctl --user restart {name}; journalctl --user -u {name}"


def alive(checkup: Checkup) -> Iterator[Finding]:
    """Find a cluster without a controller, although one should run or has run."""
    project = checkup.project
    cluster = project.settings.cluster.name
    try:
        found = [s for s in controller_states(project) if s.cluster == cluster]
    except RepositoryError:
        return  # the repository's checks report it
    if any(s.is_alive for s in found):
        return
    starters: list[Path | str] = [*_units(project)]
    starters += ["cron"] if _crontab_lines(project) else []
    died = [s.holder for s in found if not s.holder.released]
    if starters:
        what = (
            f"no controller serves {cluster}, although {starters[0]} should keep one running:"
            " nothing is synced until it runs"
        )
        yield Finding("error", what, str(starters[0]), _restart(project, starters[0]))
    elif died:
        what = f"the controller of {cluster} died ({died[0].who}): nothing is synced until it runs"
        cure = "mtf sync --watch, or a service: mtf controller unit, mtf controller crontab"
        yield Finding("warning", what, died[0].folder, cure)


def kept_running(checkup: Checkup) -> Iterator[Finding]:
    """Find units of this clone that cannot start, or that stop when you log out."""
    project = checkup.project
    units = _units(project)
    for path in units:
        name = path.name
        python = re.search(r'^ExecStart="?([^"\s]+)', path.read_text(), re.MULTILINE)
        if python and not Path(python[1]).exists():
            cure = f"mtf controller unit > {path}; systemctl --user daemon-reload"
            what = f"{name} starts {python[1]}, which does not exist"
            yield Finding("error", what, str(path), cure)
        if not any(path.parent.glob(f"*.wants/{name}")):
            cure = f"systemctl --user enable --now {name}"
            what = f"{name} is not enabled: it does not start at boot"
            yield Finding("warning", what, str(path), cure)
    if units and not (_LINGER / getpass.getuser()).exists():
        what = "the controller stops when you log out, and does not start at boot"
        yield Finding("warning", what, str(_LINGER), "loginctl enable-linger")


def _units(project: Project) -> list[Path]:
    """Return this user's systemd units that start the controller of this clone."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    units = sorted((config / "systemd" / "user").glob("*.service"))
    folder = str(project.root).replace("%", "%%").replace("$", "$$")
    return [path for path in units if _starts(path.read_text(errors="replace"), f'"{folder}"')]


def _crontab_lines(project: Project) -> list[str]:
    try:
        found = proc.run(("crontab", "-l"), timeout_s=10)
    except MtfError:  # cron is not installed
        return []
    folder = str(project.folder).replace("%", r"\%")
    lines = (line for line in found.stdout.splitlines() if not line.lstrip().startswith("#"))
    return [line for line in lines if _starts(line, folder)]


def _starts(text: str, folder: str) -> bool:
    return folder in text and "sync" in text and "--watch" in text


def _restart(project: Project, starter: Path | str) -> str:
    if isinstance(starter, Path):
        return _START.format(name=starter.name)
    return f"tail {project.repo.common_dir / 'mtf' / 'watch.log'}"


THEME = Theme("controller", (alive, kept_running))
