"""Fast processes for commands: forks of a server that has imported mtf and done nothing else.

A new interpreter takes most of its time to import mtf. multiprocessing's fork server imports it
once (``tests.cli.imported``), starts no thread, and forks itself for each command, which then
behaves like a new process. ``tests.cli.mtf`` and ``tests.crash.killer`` use it. Trainings do not:
they fork the test itself, which has torch imported.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "tests.cli.imported"])


def take_environment(env: Mapping[str, str]) -> None:
    """Replace this fork's environment, which is the server's, by that of the test."""
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
