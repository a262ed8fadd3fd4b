"""The controller's loop: syncs on an interval, and at once when a branch that it depends on moves.

Between two syncs it remembers only what it has logged, so it can be killed and restarted at any
time.
"""

from __future__ import annotations

import os
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mtf import proc
from mtf.commands.controller.lease import Lease, LeaseHeldError
from mtf.commands.sync import WATCH, sync_lock, sync_once
from mtf.core.vocabulary.ids import LEDGER_REF
from mtf.errors import MtfError
from mtf.report.controller_log import ControllerLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mtf.core.vocabulary.ids import CommitId
    from mtf.project.project import Project
    from mtf.reconcile.gather import Options

INTERVAL_S = 30.0
_POLL_S = 1.0  # between looks at the refs' files
_LONGEST_S = 600.0  # between syncs while they fail
_PATIENCE_S = 60.0  # to wait for another command's lock; then the sync fails


def watch(
    project: Project,
    options: Options,
    *,
    publish: bool,
    interval_s: float,
    say: Callable[[str], None],
    pause: Callable[[float], bool],
) -> None:
    """Sync until ``pause`` says to stop; a sync that fails is tried again.

    Args:
        project: opened.
        options: of each sync.
        publish: False keeps the ledger's commits, and the lease, in this clone.
        interval_s: seconds between syncs.
        say: takes a line for each thing done or noticed.
        pause: waits for the given seconds; returns True, at once, when the loop must stop.

    Raises:
        LeaseHeldError: another controller serves this cluster.
    """
    _set_git_timeouts(project)
    remote = project.remote if publish else None
    lease = Lease(project.repo, remote, project.settings.cluster.name)
    controller = _Controller(project, options, lease, ControllerLog(say), publish, interval_s)
    controller.run(pause)


def _set_git_timeouts(project: Project) -> None:
    """Make git give up on a silent remote after a minute, unless the user configured otherwise.

    Source: git(1), GIT_SSH_COMMAND; git-config(1), http.lowSpeedLimit; ssh_config(5).
    """
    variables = {"GIT_HTTP_LOW_SPEED_LIMIT": "1", "GIT_HTTP_LOW_SPEED_TIME": "60"}
    if "GIT_SSH" not in os.environ and not project.repo.config_values(["core.sshcommand"]):
        variables["GIT_SSH_COMMAND"] = (
            "ssh -o BatchMode=yes -o ConnectTimeout=30 -o ServerAliveInterval=15"
        )
    for name, value in variables.items():
        os.environ.setdefault(name, value)


@dataclass
class _Controller:
    project: Project
    options: Options
    lease: Lease
    log: ControllerLog
    publish: bool
    interval_s: float
    failures: int = field(default=0, init=False)  # in a row

    def run(self, pause: Callable[[float], bool]) -> None:
        tracked = _Tracked(self.project)
        try:
            while not pause(0):
                tracked.note()
                if self._wait(self._tick(), tracked, pause):
                    break
        finally:
            with suppress(MtfError):  # the lease expires by itself
                self.lease.release()
        self.log.say("stopped  the jobs go on")

    def _wait(self, seconds: float, tracked: _Tracked, pause: Callable[[float], bool]) -> bool:
        """Wait for the next sync; return True to stop instead."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if pause(min(left, _POLL_S)):
                return True
            if tracked.have_moved():
                break
        return False

    def _tick(self) -> float:
        """Sync once; return the seconds until the next sync."""
        proc.reap_detached()
        try:
            if self.lease.hold(datetime.now(UTC)):
                self.log.say(f"watching {self._what()}, every {self.interval_s:g} s")
            with sync_lock(self.project, wait_s=_PATIENCE_S, role=WATCH):
                report = sync_once(
                    self.project, self.options, publish=self.publish, say=self.log.say
                )
        except LeaseHeldError:
            raise
        except MtfError as e:
            return self._failed(str(e))
        except Exception as e:  # noqa: BLE001  # a bug must not stop the controller
            return self._failed(f"{type(e).__name__}: {e}", traceback.format_exc())
        self.log.works_again()
        self.log.report(report)
        self.failures = 0
        return self.interval_s

    def _what(self) -> str:
        settings, remote = self.project.settings, self.project.remote
        whose = f"{remote}'s {settings.branch}" if remote else settings.branch
        return f"{whose} for cluster {settings.cluster.name}"

    def _failed(self, why: str, details: str = "") -> float:
        delay = min(self.interval_s * 2.0**self.failures, max(self.interval_s, _LONGEST_S))
        self.failures = min(self.failures + 1, 32)
        self.log.fails(why, details)
        return delay


class _Tracked:
    """The refs in this clone that a plan depends on, as they were when the last sync began.

    Their files are checked every second, and git is called only if one has changed: a push or a
    command in this clone is noticed at once, and waiting costs nothing. The remote's refs are read
    by each sync.
    """

    def __init__(self, project: Project) -> None:
        branch = project.settings.branch
        prefix = f"refs/remotes/{project.remote}/"
        remote = (f"{prefix}{branch}", f"{prefix}mtf/ledger") if project.remote else ()
        self._repo = project.repo
        self._refs = (f"refs/heads/{branch}", LEDGER_REF, *remote)
        names = (*self._refs, "packed-refs", "reftable/tables.list")
        self._files = [self._repo.common_dir / name for name in names]
        self._stamps: list[tuple[int, ...]] = []
        self._tips: list[CommitId | None] = []

    def note(self) -> None:
        """Remember the refs as they are now."""
        # the files before the refs, so that no change is missed
        self._stamps = [_stamp(path) for path in self._files]
        self._tips = self._read()

    def have_moved(self) -> bool:
        """Return True if a ref has moved since it was noted."""
        stamps = [_stamp(path) for path in self._files]
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        return self._read() != self._tips

    def _read(self) -> list[CommitId | None]:
        with self._repo.reading():
            return [self._repo.find_commit(ref) for ref in self._refs]


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ino, found.st_size
