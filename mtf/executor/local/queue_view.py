"""The jobs of the local queue for people who look: no worker is started, and nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.executor.local.local_executor import views
from mtf.executor.local.queue import LocalQueue

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from datetime import datetime
    from pathlib import Path

    from mtf.core.vocabulary.ids import Token
    from mtf.core.vocabulary.jobs import JobView, TaskOf


class QueueView:
    """The local queue of a run root."""

    def __init__(self, runs_root: Path) -> None:
        """Take the run root; the queue need not exist."""
        self._queue = LocalQueue(runs_root.absolute())

    def jobs(
        self,
        names: Mapping[Token, str],
        since: datetime,  # noqa: ARG002
        tasks: Collection[TaskOf] | None = None,  # noqa: ARG002
    ) -> Collection[JobView]:
        """Return the jobs of these submissions; see ``Executor.jobs``."""
        return views(self._queue, names)
