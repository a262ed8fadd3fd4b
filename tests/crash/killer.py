"""Runs `mtf` in processes that are killed at effects which Python itself announces.

Nothing in mtf knows of this: an audit hook sees each file that is opened for writing, each name that
is made, moved or removed, each program that is started and each statement to a database. An effect
is named after the room that causes it, the program or file, and the function: ``ledger: git push
(store._move)``. The function only keeps two places in the code apart; tests name an effect by its
`purpose`, which is the rest. An effect that is new in the code is in the list by itself. Reading a
journal, and programs that only answer, count too: a sync may die there as well.

``python -m tests.crash.killer`` reads tasks as JSON, forks a process for each and prints how they
ended.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from tests.fork_server import FORKS, take_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import CodeType, FrameType

    When = Literal["before", "during", "after"]

_DOORS = ("mtf.git", "mtf.proc", "mtf.rundir")  # an effect's cause is their caller
_NAMES = {  # events about paths -> the verb, and which argument is the name that appears or goes
    "os.mkdir": ("mkdir", 0),
    "os.rename": ("rename", 1),
    "os.link": ("link", 1),
    "os.symlink": ("symlink", 1),
    "os.remove": ("remove", 0),
    "os.rmdir": ("rmdir", 0),
    "os.chmod": ("chmod", 0),
    "os.truncate": ("truncate", 0),
}
_KINDS = (".claims", ".code", ".jobs")  # folders that say what a file in them is for
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Kill:
    """An effect to be killed at: the ``nth``, counted from 0, of a name, or of a purpose's pattern.

    ``during`` is for programs: ours is killed when the program has been started, which then goes
    on as an orphan.
    """

    point: str
    nth: int = 0
    when: When = "before"
    signal: int = signal.SIGKILL


@dataclass(frozen=True)
class Task:
    """One command to run in a folder."""

    folder: str
    args: Sequence[str] = ("sync",)
    kill: Kill | None = None
    delay_s: float | None = None  # killed so long after its start
    with_children: bool = False  # the programs that it started are killed, too


@dataclass(frozen=True)
class Outcome:
    """How a task ended."""

    code: int  # negative: the signal that killed it
    effects: list[str]  # each effect that began, in order
    targets: list[str] = field(repr=False)  # the paths that they named
    output: str = ""
    seconds: float = 0.0


def run(tasks: Iterable[Task], *, parallel: int = 2, timeout_s: float = 600) -> list[Outcome]:
    """Run tasks, ``parallel`` at a time; return how they ended, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "outcomes.json")
        given = (list(tasks), parallel, dict(os.environ), answer)
        process = FORKS.Process(target=_serve, args=given)
        process.start()
        process.join(timeout_s)
        assert process.exitcode == 0, f"the killer has ended with {process.exitcode}"
        return [Outcome(**outcome) for outcome in json.loads(answer.read_text())]


# -- names of effects ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Effect:
    what: str
    target: str = ""


def _effect(event: str, args: tuple[Any, ...]) -> _Effect | None:
    if event == "subprocess.Popen":
        return _Effect(_program([os.fsdecode(word) for word in args[1]]))
    if event == "open":
        return _opened(*args)
    if event in _NAMES:
        verb, at = _NAMES[event]
        path = _path(args[at])
        return _Effect(f"{verb} {_shown(path)}", path) if path else None
    return None


def _opened(path: object, mode: object, flags: int) -> _Effect | None:
    name = _path(path)
    if name.startswith(("/dev/", "/proc/")) or not name:
        return None
    if flags & _WRITING:
        return _Effect(f"write {_shown(name)}", name)
    return _Effect("read journal.jsonl") if name.endswith("/journal.jsonl") else None


def _path(path: object) -> str:
    return os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""


def _program(words: list[str]) -> str:
    """Return a program with git's verb, or the module that a Python runs."""
    name = Path(words[0]).name
    rest = words[1:]
    if name == "git":
        while rest[0] in ("-c", "-C"):
            rest = rest[2:]
        return f"git {rest[0]}"
    return rest[rest.index("-m") + 1] if "-m" in rest else name


def _shown(path: str) -> str:
    """Return a path's last name without its random and counted parts."""
    if re.search(r"/\.code/\.[0-9a-f]{40}\.[0-9a-f]{8}/", path):
        return "<code>"
    name = Path(path).name
    name = re.sub(r"^\.(.+)\.[0-9a-f]{8,16}$", r"\1~", name)
    name = re.sub(r"[0-9a-f]{16,40}", "<id>", name)
    if (folder := Path(path).parent.name) in _KINDS:
        return f"{folder}/{name}"
    name = re.sub(r"^[0-9]+(_[0-9]+)?(?=$|\.)|(?<=^local-)[0-9]+", "<n>", name)
    return re.sub(r"^[0-9]{8}T[0-9]{6}Z|^[0-9a-f]{8}$|^seed=.*|^training\..*", "<run>", name)


def purpose(name: str) -> str:
    """Return an effect's name without the function that causes it."""
    return name.partition(" (")[0]


def _cause(frame: FrameType | None) -> tuple[str, str] | None:
    """Return the room and the function of mtf that an event comes from; None: it is not mtf's."""
    door = None
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("mtf."):
            words = [w for w in frame.f_code.co_qualname.split(".") if not w.startswith("<")]
            room, _, file = module.removeprefix("mtf.").rpartition(".")
            cause = room or file, f"{file}.{words[-1]}"
            if not module.startswith(_DOORS):
                return cause
            door = cause
        frame = frame.f_back
    return door


# -- in the process to be killed -------------------------------------------------------------------


class _Watch:
    """Logs each effect, and kills the process at one of them."""

    def __init__(self, log: int, kill: Kill | None) -> None:
        self._log = log
        self._kill = kill
        self._met = 0  # effects that the kill's point names
        self._lock = threading.RLock()
        self._busy = threading.local()
        self._last: int | None = None  # the program at whose end this process is killed

    def install(self) -> None:
        sys.addaudithook(self._hook)
        start = subprocess.Popen.__init__

        def init(popen: subprocess.Popen[bytes], *args: Any, **kwargs: Any) -> None:
            self._busy.due = False
            start(popen, *args, **kwargs)
            if self._busy.due:
                self._after_start(popen.pid)

        communicate = subprocess.Popen.communicate

        def to_its_end(popen: subprocess.Popen[bytes], *args: Any, **kwargs: Any) -> Any:
            outputs = communicate(popen, *args, **kwargs)
            self.after_its_end(popen.pid)
            return outputs

        connect = sqlite3.connect

        def traced(*args: Any, **kwargs: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*args, **kwargs)
            connection.set_trace_callback(self._statement)
            return connection

        subprocess.Popen.__init__ = init  # type: ignore[method-assign,assignment]
        subprocess.Popen.communicate = to_its_end  # type: ignore[method-assign,assignment]
        sqlite3.connect = traced  # type: ignore[assignment]

    def _hook(self, event: str, args: tuple[Any, ...]) -> None:
        if getattr(self._busy, "on", False):
            return
        self._busy.on = True
        try:
            if (effect := _effect(event, args)) is not None:
                self._happens(effect, is_program=event == "subprocess.Popen")
        finally:
            self._busy.on = False

    def _statement(self, statement: str) -> None:
        word = statement.lstrip().partition(" ")[0].upper()
        if word not in {"SELECT", "PRAGMA", "--"}:
            self._happens(_Effect(f"sql {word}"), is_program=False)

    def _happens(self, effect: _Effect, *, is_program: bool) -> None:
        cause = _cause(sys._getframe(2))
        if cause is None:
            return
        room, function = cause
        name = f"{room}: {effect.what} ({function})"
        kill = self._kill
        with self._lock:
            os.write(self._log, json.dumps([name, effect.target]).encode() + b"\n")
            if kill is None or not (name == kill.point or fnmatchcase(purpose(name), kill.point)):
                return
            self._met += 1
            if self._met != kill.nth + 1:
                return
        if kill.when == "before":
            self._die()
        elif is_program:
            self._busy.due = True
        else:
            self._die_after_this_call()

    def _after_start(self, pid: int) -> None:
        assert self._kill is not None
        if self._kill.when == "during":
            self._die()
        else:
            self._last = pid

    def after_its_end(self, pid: int | None) -> None:
        """Die if the program that has ended (None: any) is the one to die after."""
        if self._last is not None and pid in {None, self._last}:
            self._last = None
            self._die()

    def _die_after_this_call(self) -> None:
        """Die when the C function that raised the event returns."""
        own = {
            m.__code__
            for m in (_Watch._hook, _Watch._happens, _Watch._statement, _Watch._die_after_this_call)
        }

        def profile(frame: FrameType, event: str, arg: object) -> None:
            if not _is_ours(frame, own):
                self._die()

        sys.setprofile(profile)

    def _die(self) -> None:
        assert self._kill is not None
        os.kill(os.getpid(), self._kill.signal)


def _is_ours(frame: FrameType | None, own: set[CodeType]) -> bool:
    while frame is not None:
        if frame.f_code in own:
            return True
        frame = frame.f_back
    return False


def _become(task: Task, log: int, output: int) -> NoReturn:
    """Turn this forked process into the command."""
    code: object = 1
    watch = _Watch(log, task.kill)
    try:
        os.setpgid(0, 0)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(task.folder)
        sys.argv = ["mtf", *task.args]
        sys.dont_write_bytecode = True
        watch.install()
        from mtf.cli.main import main

        main()
    except SystemExit as e:
        code = e.code
        watch.after_its_end(None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0)


# -- the server ------------------------------------------------------------------------------------


@dataclass
class _Child:
    task: Task
    folder: Path
    pid: int
    began: float

    @classmethod
    def start(cls, task: Task, folder: Path) -> _Child:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        log, output = (os.open(folder / name, flags, 0o666) for name in ("effects", "output"))
        pid = os.fork()
        if pid == 0:
            _become(task, log, output)
        os.close(log)
        os.close(output)
        return cls(task, folder, pid, time.monotonic())

    def ended(self) -> Outcome | None:
        seconds = time.monotonic() - self.began
        if self.task.delay_s is not None and seconds >= self.task.delay_s:
            self._kill()
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        lines = (self.folder / "effects").read_bytes().splitlines()
        pairs = [json.loads(line) for line in lines]
        return Outcome(
            code=os.waitstatus_to_exitcode(status),
            effects=[name for name, _ in pairs],
            targets=[target for _, target in pairs if target],
            output=(self.folder / "output").read_text(errors="replace"),
            seconds=seconds,
        )

    def _kill(self) -> None:
        try:
            (os.killpg if self.task.with_children else os.kill)(self.pid, signal.SIGKILL)
        except ProcessLookupError:  # its process group does not exist yet
            os.kill(self.pid, signal.SIGKILL)


def _serve(tasks: list[Task], parallel: int, env: Mapping[str, str], answer: Path) -> None:
    take_environment(env)
    answer.write_text(json.dumps([asdict(outcome) for outcome in _outcomes(tasks, parallel)]))


def _outcomes(tasks: list[Task], parallel: int) -> list[Outcome]:
    outcomes: dict[int, Outcome] = {}
    with tempfile.TemporaryDirectory() as folder:
        waiting = list(enumerate(tasks))
        children: dict[int, _Child] = {}
        while waiting or children:
            while waiting and len(children) < parallel:
                number, task = waiting.pop(0)
                place = Path(folder, str(number))
                place.mkdir()
                children[number] = _Child.start(task, place)
            for number, child in list(children.items()):
                if (outcome := child.ended()) is not None:
                    outcomes[number] = outcome
                    del children[number]
            time.sleep(0.005)
    return [outcomes[number] for number in range(len(tasks))]


def _main() -> None:
    import tests.cli.imported  # noqa: F401 -- else the children do, under the hook

    wish = json.load(sys.stdin)
    tasks = [Task(**{**t, "kill": Kill(**t["kill"]) if t["kill"] else None}) for t in wish["tasks"]]
    print(json.dumps([asdict(outcome) for outcome in _outcomes(tasks, wish["parallel"])]))


if __name__ == "__main__":
    _main()
