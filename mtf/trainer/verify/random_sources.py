"""Watches which lines of the user's code read the clock or draw from an unseeded source."""

from __future__ import annotations

import datetime
import functools
import importlib
import json
import os
import random
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mtf.trainer.verify.hidden_state import Own

SOURCES = "sources.jsonl"
CLOCK, UNSEEDED = "clock", "unseeded"
_ALWAYS = {
    CLOCK: (
        "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter",
        "time.perf_counter_ns", "time.process_time", "time.localtime", "time.gmtime",
    ),
    UNSEEDED: (
        "os.urandom", "os.getpid", "uuid.uuid1", "uuid.uuid4", "secrets.token_bytes",
        "secrets.token_hex", "secrets.randbelow", "secrets.randbits", "secrets.choice",
        "torch.seed", "torch.random.seed",
    ),
}  # fmt: skip
_WITHOUT_SEED = ("numpy.random.default_rng", "numpy.random.seed", "random.seed")
_DEPTH = 8  # frames between a call and the user's line that it is for


@dataclass(frozen=True)
class Source:
    """A line of the user's code and the function that it calls there."""

    kind: str  # CLOCK or UNSEEDED
    call: str
    file: str
    line: int
    text: str

    def __str__(self) -> str:
        """Return call and place."""
        return f"{self.call} at {self.file}:{self.line}"


class Watcher:
    """Replaces the functions of a process by ones that note who calls them."""

    def __init__(self, folder: Path, own: Own) -> None:
        self._path = folder / SOURCES
        self._own = own
        self._known: set[tuple[str, str, int]] = set()

    def install(self) -> None:
        """Watch from now on. Call it before the user's modules are imported."""
        for kind, names in _ALWAYS.items():
            for name in names:
                self._replace(name, kind, lambda _args: True)
        for name in _WITHOUT_SEED:
            self._replace(name, UNSEEDED, lambda args: not args or args[0] is None)
        self._watch_random()
        self._watch_datetime()

    def _replace(self, name: str, kind: str, counts: Callable[[tuple[Any, ...]], bool]) -> None:
        module_name, _, attribute = name.rpartition(".")
        module = importlib.import_module(module_name)
        original = getattr(module, attribute)

        @functools.wraps(original)
        def noted(*args: Any, **kwargs: Any) -> Any:
            if counts((*args, *kwargs.values())):
                self.note(kind, f"{name}()")
            return original(*args, **kwargs)

        setattr(module, attribute, noted)

    def _watch_random(self) -> None:
        watcher = self

        class Random(random.Random):
            def __init__(self, x: Any = None) -> None:
                if x is None:
                    watcher.note(UNSEEDED, "random.Random()")
                super().__init__(x)

        vars(random)["Random"] = Random

    def _watch_datetime(self) -> None:
        watcher, original = self, datetime.datetime

        class Kind(type):
            def __instancecheck__(cls, instance: object) -> bool:
                return isinstance(instance, original)

        class Datetime(original, metaclass=Kind):  # type: ignore[valid-type,misc]
            @classmethod
            def now(cls, tz: datetime.tzinfo | None = None) -> Any:
                watcher.note(CLOCK, "datetime.now()")
                return original.now(tz)

        vars(datetime)["datetime"] = Datetime

    def note(self, kind: str, call: str) -> None:
        """Note the line of the user's code that has led to this call, if there is one."""
        frame = sys._getframe(2)  # noqa: SLF001 -- inspect.stack() reads every source file
        for _ in range(_DEPTH):
            file = frame.f_code.co_filename
            if self._own.file(file):
                self._write(kind, call, file, frame.f_lineno)
                return
            if frame.f_back is None or _is_apart(frame.f_globals.get("__name__", "")):
                return
            frame = frame.f_back

    def _write(self, kind: str, call: str, file: str, line: int) -> None:
        if (call, file, line) in self._known:
            return
        self._known.add((call, file, line))
        text = {"kind": kind, "call": call, "file": self._own.short(file), "line": line}
        raw = json.dumps({**text, "text": source_line(file, line)}) + "\n"
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.write(fd, raw.encode())  # in one piece: data workers write to it too
        os.close(fd)


def read_sources(folder: Path) -> tuple[Source, ...]:
    """Return what a training's processes have noted, each line of code once."""
    path = folder / SOURCES
    lines = path.read_text().splitlines() if path.exists() else []
    return tuple(dict.fromkeys(Source(**json.loads(line)) for line in lines))


def source_line(file: str, line: int) -> str:
    """Return a line of source code, empty where it cannot be read."""
    import linecache

    return linecache.getline(file, line).strip()


def _is_apart(module: str) -> bool:
    """Return whether calls from a module are its own affair, not its caller's."""
    return module.partition(".")[0] in {"mtf", "torch", "lightning", "logging", "threading"}
