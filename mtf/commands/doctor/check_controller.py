"""Is the controller alive, and does something start it again: systemd's unit or cron's line."""

from __future__ import annotations

import getpass
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mtf import proc
from mtf.commands.controller.service import standings
from mtf.commands.doctor.finding import Checkup, Finding, Theme
from mtf.errors import MtfError, RepositoryError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.project.project import Project

_LINGER = Path("/var/lib/systemd/linger")  # Source: loginctl(1), enable-linger
_START = "systemctl --user restart {name}; journalctl --user -u {name}"


def alive(checkup: Checkup) -> Iterator[Finding]:
    """Find that a controller of this cluster is to run, or did, and none does."""
    project = checkup.project
    cluster = project.settings.cluster.name
    try:
        found = [s for s in standings(project) if s.cluster == cluster]
    except RepositoryError:
        return  # told by the repository's checks
    if any(s.is_alive for s in found):
        return
    started_by: list[Path | str] = [*_units(project)]
    started_by += ["cron"] if _crontab_lines(project) else []
    went = [s for s in found if not s.holder.released]
    if started_by:
        what = f"no controller serves {cluster}, though {started_by[0]} is to keep one running"
        yield Finding("error", what, str(started_by[0]), _logs(project, started_by[0]))
    elif went:
        what = f"the controller of {cluster} is gone: {went[0].holder.who}"
        yield Finding("warning", what, went[0].holder.folder, "mtf controller unit, or crontab")


def kept_running(checkup: Checkup) -> Iterator[Finding]:
    """Find units of this clone that would not start it, or not without a session."""
    project = checkup.project
    units = _units(project)
    for path in units:
        name = path.name
        python = re.search(r'^ExecStart="?([^"\s]+)', path.read_text(), re.MULTILINE)
        if python and not Path(python[1]).exists():
            cure = f"mtf controller unit > {path}; systemctl --user daemon-reload"
            yield Finding("error", f"{name} starts {python[1]}, which is gone", str(path), cure)
        if not any(path.parent.glob(f"*.wants/{name}")):
            cure = f"systemctl --user enable --now {name}"
            yield Finding("warning", f"{name} is not enabled: no boot starts it", str(path), cure)
    if units and not (_LINGER / getpass.getuser()).exists():
        what = "the controller ends with your last session, and no boot starts it"
        yield Finding("warning", what, str(_LINGER), "loginctl enable-linger")


def _units(project: Project) -> list[Path]:
    """Return the systemd units of this user that start a controller of this clone."""
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    units = sorted((config / "systemd" / "user").glob("*.service"))
    folder = str(project.repo.root).replace("%", "%%").replace("$", "$$")
    return [path for path in units if _starts(path.read_text(errors="replace"), f'"{folder}"')]


def _crontab_lines(project: Project) -> list[str]:
    try:
        found = proc.run(("crontab", "-l"), timeout_s=10)
    except MtfError:  # there is no cron
        return []
    folder = str(project.folder).replace("%", r"\%")
    lines = (line for line in found.stdout.splitlines() if not line.lstrip().startswith("#"))
    return [line for line in lines if _starts(line, folder)]


def _starts(text: str, folder: str) -> bool:
    return folder in text and "sync" in text and "--watch" in text


def _logs(project: Project, started_by: Path | str) -> str:
    if isinstance(started_by, Path):
        return _START.format(name=started_by.name)
    return f"tail {project.repo.common_dir / 'mtf' / 'watch.log'}"


THEME = Theme("controller", (alive, kept_running))
