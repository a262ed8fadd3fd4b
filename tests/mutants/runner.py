"""Runs the tests nearest to a fault, in copies of the tree, by forked pytest processes."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import signal
import site
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.mutants.operators import Mutant

ROOT = Path(__file__).parents[2]
REFUSED_BY_MYPY = 71
# What most tests import, loaded once: a forked pytest then starts in a tenth of a second.
PRELOADED = ("hypothesis", "pydantic", "click", "git", "ruamel.yaml", "jinja2", "rich", "numpy", "torch", "lightning.fabric", "torch.utils.data", "sklearn.datasets")  # fmt: skip


@dataclass
class Outcome:
    """How the tests of a mutant ended."""

    mutant: Mutant | None
    caught: str  # by the tests, the time limit or the types; or empty
    seconds: float
    output: str


class _Quick:
    """A pytest plug-in that neither shrinks failing examples nor stores them."""

    def pytest_configure(self) -> None:
        from hypothesis import Phase, settings

        phases = [Phase.explicit, Phase.generate]
        settings.register_profile("mutants", settings(), phases=phases, database=None)
        settings.load_profile("mutants")


class Slot:
    """A copy of the tree with an interpreter that imports it; it tests one mutant at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        names = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            capture_output=True, text=True, check=True,
        ).stdout.split("\0")  # fmt: skip
        for name in names:
            if name and (ROOT / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        if (ROOT / ".mypy_cache").is_dir():
            shutil.copytree(ROOT / ".mypy_cache", folder / ".mypy_cache")
        self.python = self._interpreter()
        self.pid = 0

    def _interpreter(self) -> Path:
        """Make an environment that has this one's packages and this folder's mtf."""
        home = self.folder / ".venv"
        packages = home / "lib" / f"python3.{sys.version_info.minor}" / "site-packages"
        packages.mkdir(parents=True)
        lines = [
            str(self.folder),
            *(f"import site; site.addsitedir({p!r})" for p in site.getsitepackages()),
        ]
        (packages / "mutants.pth").write_text("\n".join(lines) + "\n")
        (home / "bin").mkdir()
        (home / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
        base = Path(sys.base_prefix, "bin")
        (home / "pyvenv.cfg").write_text(f"home = {base}\ninclude-system-site-packages = false\n")
        return home / "bin" / "python"

    def start(self, mutant: Mutant | None, tests: Sequence[str], limit_s: float) -> None:
        """Begin to run tests on a mutant, or on the code as it is."""
        self.mutant, self.began, self.limit_s = mutant, time.monotonic(), limit_s
        self.output = self.folder / ".output"
        if mutant:
            self.original = (self.folder / mutant.path).read_text()
            self._put(mutant.path, mutant.source)
        self.pid = os.fork()
        if not self.pid:
            self._become(tests)

    def _put(self, name: str, text: str) -> None:
        """Write a module, and remove its compiled form: Python may take it for the new one's."""
        path = self.folder / name
        path.write_text(text)
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            compiled.unlink()

    def _become(self, tests: Sequence[str]) -> NoReturn:
        code = 70
        try:
            os.setsid()
            out = os.open(self.output, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.chdir(self.folder)
            for name in [n for n in sys.modules if n.partition(".")[0] in ("mtf", "tests")]:
                del sys.modules[name]
            sys.path[:] = [str(self.folder), *(p for p in sys.path if p not in ("", str(ROOT)))]
            sys.executable = str(self.python)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            multiprocessing.set_executable(str(self.python))
            arguments = [
                "-x",
                "-q",
                "--no-header",
                "-p",
                "no:cacheprovider",
                "-p",
                "no:xdist",
                "--hypothesis-seed=1",  # the verdict on a mutant is the same each time
                *tests,
            ]
            code = int(pytest.main(arguments, plugins=[_Quick()]))
            sys.stdout.flush()
            if not code and self.mutant and not self._is_well_typed(self.mutant.path):
                code = REFUSED_BY_MYPY
        finally:
            os._exit(code)

    def _is_well_typed(self, name: str) -> bool:
        """Return True if mypy accepts the mutant: what it refuses cannot be committed."""
        return subprocess.run([sys.executable, "-m", "mypy", name], check=False).returncode == 0

    def poll(self) -> Outcome | None:
        """Return the outcome once the tests have ended, else None; end what takes too long."""
        timed_out = time.monotonic() - self.began > self.limit_s
        if timed_out:
            os.killpg(self.pid, signal.SIGKILL)
        pid, status = os.waitpid(self.pid, 0 if timed_out else os.WNOHANG)
        if not pid:
            return None
        self.pid = 0
        if self.mutant:
            self._put(self.mutant.path, self.original)
        code = os.waitstatus_to_exitcode(status)
        caught = "types" if code == REFUSED_BY_MYPY else "tests" if code else ""
        spent = time.monotonic() - self.began
        output = self.output.read_text(errors="replace")
        return Outcome(self.mutant, "time" if timed_out else caught, spent, output)


def preload() -> None:
    """Import what the tests need besides mtf, so that forked processes have it."""
    for name in PRELOADED:
        importlib.import_module(name)


def run_all(
    slots: list[Slot], work: Iterator[tuple[Mutant | None, Sequence[str], float]]
) -> Iterator[Outcome]:
    """Run each piece of work in the first slot that is free; yield how each ended."""
    busy: list[Slot] = []
    free = list(slots)
    more: Any = True
    try:
        while busy or more:
            while free and (more := next(work, None)):
                slot = free.pop()
                slot.start(*more)
                busy.append(slot)
            for slot in list(busy):
                if outcome := slot.poll():
                    busy.remove(slot)
                    free.append(slot)
                    yield outcome
            time.sleep(0.02)
    finally:
        for slot in busy:
            os.killpg(slot.pid, signal.SIGKILL)
