"""Processes that are forked from one that has imported mtf already and has done nothing else."""

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
    """Replace the environment, which is the server's, by that of whoever starts this process."""
    os.environ.clear()
    os.environ.update(env)
    time.tzset()
