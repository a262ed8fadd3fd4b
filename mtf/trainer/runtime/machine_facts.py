"""Facts about the machine and the threads of a process, which a training's last bits depend on."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

# Variables that change how values are computed. No other one is recorded: they may hold secrets.
_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUBLAS_WORKSPACE_CONFIG",
    "NVIDIA_TF32_OVERRIDE",
    "PYTHONHASHSEED",
)


def machine_facts() -> dict[str, str]:
    """Return processor, GPUs, threads and libraries, for the journal.

    GPUs are named if this process uses them: asking for them otherwise would start CUDA.
    """
    import torch  # the proof of the code begins before torch is imported

    facts = {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "deterministic algorithms": str(torch.are_deterministic_algorithms_enabled()),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
    }
    if torch.cuda.is_initialized():
        count = torch.cuda.device_count()
        facts["gpus"] = ", ".join(torch.cuda.get_device_name(i) for i in range(count))
        facts["cuda"] = str(torch.version.cuda)
        facts["cudnn"] = str(torch.backends.cudnn.version())
    return facts | {name: os.environ[name] for name in _VARIABLES if name in os.environ}


def _processor() -> str:
    """Return the name of the processor. Source: proc(5), /proc/cpuinfo."""
    with suppress(OSError):
        for line in (
            Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        ):
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor()
