"""The executors' newest answer, shared by everybody who looks at a clone.

Many `mtf status --watch` ask SLURM once an interval together. The answer is only shown, never acted
on: a sync asks by itself. It is shared between processes of one user with the same environment.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from hashlib import sha256
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from mtf import rundir
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.ids import JobId, Token
from mtf.core.vocabulary.jobs import JobView
from mtf.core.vocabulary.states import JobState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

_PATIENCE_S = 15.0  # for somebody else's question; then this process asks by itself
_PAUSE_S = 0.02
_TIMES = ("started_at", "expected_at", "ended_at")
_FIELDS = tuple(f.name for f in fields(JobView))
_TIME_PLACES = tuple(map(_FIELDS.index, _TIMES))
_values = attrgetter(*_FIELDS)


@dataclass(frozen=True)
class Answer:
    """The views of jobs by executor, token and index, and the executors that did not answer."""

    asked_at: float  # seconds since the epoch, before the question
    live: dict[str, dict[tuple[Token, int], JobView]] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)  # executor -> why

    @property
    def at(self) -> datetime:
        """Return the time of the question, aware, UTC."""
        return datetime.fromtimestamp(self.asked_at, UTC)


@dataclass(frozen=True)
class SharedAnswer:
    """The place of the newest answer for one user in one clone."""

    folder: Path  # of what mtf keeps for this clone

    def newest(self, question: list[str], within_s: float, ask: Callable[[], Answer]) -> Answer:
        """Return an answer to a question that is new enough, and ask only if there is none.

        Whoever comes while another process asks waits for that question to end. An answer is new
        enough if it was asked for after this call, or at most ``within_s`` seconds ago. A folder
        that cannot be written means that nothing is shared.

        Args:
            question: the tasks that matter; an answer about other ones is not used.
            within_s: the age of an answer that will do.
            ask: asks the executors.
        """
        key = sha256("\0".join([*_surroundings(), *question]).encode()).hexdigest()
        since = time.time() - within_s
        if within_s and (found := self._read(key, since)):
            return found
        try:
            self.folder.mkdir(exist_ok=True)
            with self._locked() as is_ours:
                if found := self._read(key, since):
                    return found
                answer = ask()
                if is_ours:
                    rundir.write_atomically(self._path, _encoded(key, answer))
                return answer
        except OSError:
            return ask()

    @property
    def _path(self) -> Path:
        return self.folder / f"look-{os.getuid()}.json"

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Hold the lock, for which this waits a while; yield False if others still hold it then."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(self._path.with_suffix(".lock"), flags, 0o600)
        end = time.monotonic() + _PATIENCE_S
        try:
            while not (is_ours := _take(fd)) and time.monotonic() < end:
                time.sleep(_PAUSE_S)
            yield is_ours
        finally:
            os.close(fd)

    def _read(self, key: str, since: float) -> Answer | None:
        """Return the answer in the file if it is about these tasks and new enough."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            value = json_text.loads(self._path.read_bytes())
            if value["key"] == key and since <= value["asked_at"] <= time.time():
                return _decoded(value)
        return None


def _take(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _surroundings() -> list[str]:
    """Return the settings that an answer depends on, besides the question."""
    names = ("SLURM_CONF", "PATH")
    return [socket.gethostname(), *(os.environ.get(name, "") for name in names)]


def _encoded(key: str, answer: Answer) -> bytes:
    live = {
        executor: [[*place, _row(view)] for place, view in views.items()]
        for executor, views in answer.live.items()
    }
    value = {"key": key, "asked_at": answer.asked_at, "live": live, "unreadable": answer.unreadable}
    return json_text.dumps(value).encode()


def _row(view: JobView) -> list[Any]:
    """Return the values of a view in the order of ``_FIELDS``, times as seconds."""
    row = list(_values(view))
    for place in _TIME_PLACES:
        if row[place] is not None:
            row[place] = row[place].timestamp()
    return row


def _decoded(value: Mapping[str, Any]) -> Answer:
    live = {
        str(executor): {(Token(token), int(index)): _view(row) for token, index, row in rows}
        for executor, rows in value["live"].items()
    }
    return Answer(value["asked_at"], live, {str(k): str(v) for k, v in value["unreadable"].items()})


def _view(row: list[Any]) -> JobView:
    values = dict(zip(_FIELDS, row, strict=True))
    for name in _TIMES:
        if values[name] is not None:
            values[name] = datetime.fromtimestamp(values[name], UTC)
    values |= {"job_id": JobId(values["job_id"]), "state": JobState(values["state"])}
    return JobView(**values)
