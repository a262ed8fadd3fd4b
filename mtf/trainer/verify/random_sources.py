"""Finds the lines of the user's code that read the clock or an unseeded random source."""

from __future__ import annotations

import datetime
import functools
import importlib
import os
import random
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary import json_text
from mtf.trainer.verify.user_code import source_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mtf.trainer.verify.user_code import UserCode

SOURCES = "sources.jsonl"
CLOCK, UNSEEDED = "clock", "unseeded"
_WATCHED = {
    CLOCK: {
        "time": "time time_ns monotonic monotonic_ns perf_counter perf_counter_ns process_time"
        " localtime gmtime",
    },
    UNSEEDED: {
        "os": "urandom getpid",
        "uuid": "uuid1 uuid4",
        "secrets": "token_bytes token_hex randbelow randbits choice",
        "torch": "seed",
        "torch.random": "seed",
    },
}
_WITHOUT_SEED = ("numpy.random.default_rng", "numpy.random.seed", "random.seed")
_MAX_DEPTH = 8  # frames between a call and the user's line that led to it


@dataclass(frozen=True)
class Source:
    """A line of the user's code, and the function that it calls."""

    kind: str  # CLOCK or UNSEEDED
    call: str
    file: str
    line: int
    text: str

    def __str__(self) -> str:
        """Return the call and its place."""
        return f"{self.call} at {self.file}:{self.line}"


class SourceRecorder:
    """Replaces functions of this process by ones that record which line of user code calls them."""

    def __init__(self, folder: Path, user_code: UserCode) -> None:
        self._path = folder / SOURCES
        self._user_code = user_code
        self._recorded: set[tuple[str, str, int]] = set()

    def install(self) -> None:
        """Start recording. Call it before the user's modules are imported."""
        for kind, modules in _WATCHED.items():
            for module, functions in modules.items():
                for function in functions.split():
                    self._replace(f"{module}.{function}", kind, lambda _args: True)
        for name in _WITHOUT_SEED:
            self._replace(name, UNSEEDED, lambda args: not args or args[0] is None)
        self._watch_random()
        self._watch_datetime()

    def _replace(
        self, name: str, kind: str, is_relevant: Callable[[tuple[Any, ...]], bool]
    ) -> None:
        module_name, _, attribute = name.rpartition(".")
        module = importlib.import_module(module_name)
        original = getattr(module, attribute)

        @functools.wraps(original)
        def recording(*args: Any, **kwargs: Any) -> Any:
            if is_relevant((*args, *kwargs.values())):
                self.record(kind, f"{name}()")
            return original(*args, **kwargs)

        setattr(module, attribute, recording)

    def _watch_random(self) -> None:
        recorder = self

        class Random(random.Random):
            def __init__(self, x: Any = None) -> None:
                if x is None:
                    recorder.record(UNSEEDED, "random.Random()")
                super().__init__(x)

        vars(random)["Random"] = Random

    def _watch_datetime(self) -> None:
        recorder, original = self, datetime.datetime

        class Kind(type):
            def __instancecheck__(cls, instance: object) -> bool:
                return isinstance(instance, original)

        class Datetime(original, metaclass=Kind):  # type: ignore[valid-type,misc]
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Any:
                recorder.record(CLOCK, "datetime.now()")
                return original.now(tz)

        vars(datetime)["datetime"] = Datetime

    def record(self, kind: str, call: str) -> None:
        """Record the line of the user's code that led to this call, if there is one."""
        frame = sys._getframe(2)  # noqa: SLF001 -- inspect.stack() reads every source file
        for _ in range(_MAX_DEPTH):
            file = frame.f_code.co_filename
            if self._user_code.has_file(file):
                self._write(kind, call, file, frame.f_lineno)
                return
            if frame.f_back is None or _ends_search(frame.f_globals.get("__name__", "")):
                return
            frame = frame.f_back

    def _write(self, kind: str, call: str, file: str, line: int) -> None:
        if (call, file, line) in self._recorded:
            return
        self._recorded.add((call, file, line))
        text = {
            "kind": kind,
            "call": call,
            "file": self._user_code.relative_path(file),
            "line": line,
        }
        raw = json_text.dumps({**text, "text": source_line(file, line)}) + "\n"
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(fd, raw.encode())  # in one write: data workers append to the file too
        os.close(fd)


def read_sources(folder: Path) -> tuple[Source, ...]:
    """Return the sources that a training's processes recorded, each line of code once."""
    path = folder / SOURCES
    lines = path.read_text().splitlines() if path.exists() else []
    return tuple(dict.fromkeys(Source(**json_text.loads(line)) for line in lines))


def _ends_search(module: str) -> bool:
    """Return True if calls from a module are its own, not made for the user's code."""
    return module.partition(".")[0] in {"mtf", "torch", "lightning", "logging", "threading"}
