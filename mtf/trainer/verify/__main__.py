"""``python -m mtf.trainer.verify FOLDER``: verify the training that a scratch folder describes.

Standard output carries one JSON object a line, with the key ``verify``; ``mtf verify-resume`` reads
them. All other output goes to standard error.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary import json_text
from mtf.errors import EXIT_ERROR, EXIT_USAGE, MtfError
from mtf.trainer.job.run_job import paused_garbage_collector, require_torch
from mtf.trainer.runtime.process_end import leave

if TYPE_CHECKING:
    from collections.abc import Callable

REQUEST = "request.json"
_TRIAL = "--trial"


def main(argv: list[str]) -> int:
    """Verify a training, or run one of its trials; return the exit code."""
    if len(argv) == 2 and argv[0] == _TRIAL:
        return _run_trial(argv[1])
    if len(argv) != 1:
        sys.stderr.write("usage: python -m mtf.trainer.verify FOLDER\n")
        return EXIT_USAGE
    emit = _event_writer()
    try:
        return _verify(Path(argv[0]).absolute(), emit)
    except (MtfError, OSError) as e:
        emit("problem", message=str(e))
        return EXIT_ERROR


def _verify(scratch: Path, emit: Callable[..., None]) -> int:
    require_torch()
    with paused_garbage_collector():
        import torch

        from mtf.trainer.verify.training_runner import TrainingRunner, VerifyRequest
        from mtf.trainer.verify.verification import verify
    torch.set_num_threads(1)  # forks would not have the threads of a pool
    request = VerifyRequest.read(scratch / REQUEST)
    forks = not torch.cuda.is_available()  # an initialised CUDA does not survive a fork
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    emit("started", device="cpu" if forks else torch.cuda.get_device_name(), **versions)
    verdict = verify(TrainingRunner(scratch, request, forks=forks), request, emit)
    emit("verdict", **verdict.plain())
    return 0 if verdict.exact else EXIT_ERROR


def _run_trial(text: str) -> int:
    with paused_garbage_collector():
        from mtf.trainer.verify.one_trial import run
        from mtf.trainer.verify.trial_process import Trial, exit_code_of
    trial = Trial.loads(text)
    return exit_code_of(lambda: run(trial), Path(trial.run_dir))


def _event_writer() -> Callable[..., None]:
    """Return a function that writes events to standard output; redirect all else to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def emit(event: str, **facts: Any) -> None:
        out.write(json_text.dumps({"verify": event, **facts}) + "\n")
        out.flush()

    return emit


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
