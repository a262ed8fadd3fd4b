"""A stand-in for nvidia-smi: a machine of tests has no GPUs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def install_stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, gpus: int) -> list[str]:
    """Put an nvidia-smi that lists some GPUs first on PATH; return their UUIDs."""
    uuids = [
        f"GPU-{os.getpid():08x}-0000-4000-8000-{abs(hash(folder)):020x}{n}" for n in range(gpus)
    ]
    lines = [f"GPU {n}: Stand-in (UUID: {uuid})" for n, uuid in enumerate(uuids)]
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text("#!/bin/sh\n" + "".join(f'echo "{line}"\n' for line in lines))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return uuids
