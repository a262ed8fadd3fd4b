"""Fixtures of the executors' tests."""

from __future__ import annotations

from tests.executor.local.bench import local

__all__ = ["local"]
