"""Benchmarks are not run by the tests, but what they import as text must exist."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import commands, review, submit


@pytest.mark.parametrize(
    "code", [commands.MODELS, review._IMPORTS, submit._START], ids=["commands", "review", "submit"]
)
def test_code_that_a_benchmark_starts_can_be_imported(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
