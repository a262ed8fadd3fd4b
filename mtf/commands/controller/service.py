"""A controller as a service of a login node (systemd, cron), and the state of all controllers."""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from string import Template
from typing import TYPE_CHECKING

from mtf.commands.controller.lease import holders
from mtf.errors import MtfError
from mtf.packaged_files import data_dir
from mtf.project.project import CLUSTER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.commands.controller.lease import Holder
    from mtf.project.project import Project

# Environment variables that the programs started by a controller need.
_KEPT = ("PATH", "LD_LIBRARY_PATH", "SLURM_CONF", "GIT_SSH_COMMAND", CLUSTER)


@dataclass(frozen=True)
class ControllerState:
    """The controller of a cluster, by the cluster's lease."""

    cluster: str
    holder: Holder
    is_alive: bool

    @property
    def line(self) -> str:
        """Return the state as a line of text."""
        h = self.holder
        since = f"{h.who} in {h.folder}, since {h.since}"
        if self.is_alive:
            return f"{self.cluster}: {since}, lease until {h.until}"
        return f"{self.cluster}: none ({'stopped' if h.released else 'gone'}: {since})"


def controller_states(project: Project) -> list[ControllerState]:
    """Return the state of each cluster that has or had a controller.

    Raises:
        RepositoryError: the remote cannot be reached.
    """
    now = datetime.now(UTC)
    found = holders(project.repo, project.remote)
    return [ControllerState(name, h, not h.is_free(now)) for name, h in sorted(found.items())]


def unit_name(project: Project) -> str:
    """Return the name of this clone's systemd unit."""
    folder = project.root.name
    return f"mtf-{re.sub(r'[^A-Za-z0-9_.-]', '-', folder)}.service"


def systemd_unit(project: Project) -> str:
    """Return a systemd user unit that keeps the controller of this clone running.

    Raises:
        MtfError: the path of this clone contains a line break.
    """
    folder = str(project.root)
    environment = [_for_systemd(f"{name}={value}") for name, value in _environment().items()]
    return _filled(
        "mtf-sync.service",
        folder=folder,
        description=folder.replace("%", "%%"),
        command=" ".join(_for_systemd(word).replace("$", "$$") for word in _command(folder)),
        environment="\n".join(f"Environment={variable}" for variable in environment),
    )


def crontab_line(project: Project) -> str:
    """Return a crontab line that starts the controller of this clone unless it runs already.

    Raises:
        MtfError: the path of this clone contains a line break.
    """
    private = project.folder
    private.mkdir(exist_ok=True)
    folder = str(project.root)
    words = ["flock", "-n", str(private / "watch.lock"), "env"]
    words += [f"{name}={value}" for name, value in _environment().items()]
    words += _command(folder)
    line = f"{shlex.join(words)} >>{shlex.quote(str(private / 'watch.log'))} 2>&1"
    # cron reads a per cent sign as the end of the command. Source: crontab(5)
    return _filled("mtf-sync.crontab", folder=folder, command=line.replace("%", r"\%"))


def _command(folder: str) -> list[str]:
    # -P: import this mtf, whatever is in the current folder
    return [sys.executable, "-P", "-m", "mtf.cli", "-C", folder, "sync", "--watch"]


def _environment() -> Mapping[str, str]:
    return {name: os.environ[name] for name in _KEPT if name in os.environ}


def _for_systemd(word: str) -> str:
    """Return a word in quotes. Source: systemd.service(5), COMMAND LINES; systemd.syntax(7)."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped}"'


def _filled(name: str, **values: str) -> str:
    if any("\n" in v for key, v in values.items() if key != "environment"):
        raise MtfError("the path of this clone contains a line break: move the clone")
    text = (data_dir("templates") / name).read_text(encoding="utf-8")
    return Template(text).substitute(values)
