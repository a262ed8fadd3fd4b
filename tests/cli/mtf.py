"""Runs the real command line in a process that is forked after the imports, which take longest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.fork_server import FORKS, take_environment

if TYPE_CHECKING:
    from collections.abc import Mapping


def mtf(
    folder: Path, *args: str, code: int | None = 0, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run `mtf` in a folder and check its exit code; ``code=None`` allows any."""
    with tempfile.TemporaryDirectory() as place:
        output = (Path(place, "stdout"), Path(place, "stderr"))
        process = FORKS.Process(target=_become, args=(folder, args, dict(os.environ), output))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(["mtf", *args], timeout)
        printed = [path.read_text() for path in output]
        done = subprocess.CompletedProcess(["mtf", *args], process.exitcode, *printed)
    assert code is None or done.returncode == code, (
        f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def _become(
    folder: Path, args: tuple[str, ...], env: Mapping[str, str], output: tuple[Path, Path]
) -> None:
    """Make this process what `python -m mtf.cli` is when a shell starts it in the folder."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, path in enumerate(output, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    take_environment(env)
    os.chdir(folder)
    sys.path[0] = str(folder)
    sys.argv = ["mtf", *args]
    from mtf.cli.main import main

    main()


def mtf_json(folder: Path, *args: str, code: int | None = 0) -> Any:
    """Run `mtf` and return the JSON that it printed."""
    return json.loads(mtf(folder, *args, code=code).stdout)
