"""``python -m mtf.trainer.verify <scratch folder>``: makes the proof and tells it line by line.

Standard output is for lines of JSON with the key ``verify``, which ``mtf verify-resume`` reads.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf.errors import EXIT_ERROR, EXIT_USAGE, MtfError
from mtf.trainer.job.run_job import paused_garbage_collector, require_torch

if TYPE_CHECKING:
    from collections.abc import Callable

ORDER = "order.json"
_TRIAL = "--trial"


def main(argv: list[str]) -> int:
    """Make a proof, or one trial of it; return its exit code."""
    if len(argv) == 2 and argv[0] == _TRIAL:
        return _trial(argv[1])
    if len(argv) != 1:
        sys.stderr.write("usage: python -m mtf.trainer.verify <scratch folder>\n")
        return EXIT_USAGE
    say = _speaker()
    try:
        return _prove(Path(argv[0]).absolute(), say)
    except (MtfError, OSError) as e:
        say("problem", message=str(e))
        return EXIT_ERROR


def _prove(scratch: Path, say: Callable[..., None]) -> int:
    require_torch()
    with paused_garbage_collector():
        import torch

        from mtf.trainer.verify.laboratory import Laboratory, Order
        from mtf.trainer.verify.proof import prove
    torch.set_num_threads(1)  # a pool of threads would be lost in the forks
    order = Order.read(scratch / ORDER)
    forks = not torch.cuda.is_available()  # an initialised CUDA does not survive a fork
    facts = {"torch": torch.__version__, "python": platform.python_version()}
    say("started", device="cpu" if forks else torch.cuda.get_device_name(), **facts)
    verdict = prove(Laboratory(scratch, order, forks=forks), order, say)
    say("verdict", **verdict.plain())
    return 0 if verdict.exact else EXIT_ERROR


def _trial(text: str) -> int:
    with paused_garbage_collector():
        from mtf.trainer.verify.one_trial import run
        from mtf.trainer.verify.trials import Trial, outcome
    trial = Trial.loads(text)
    return outcome(lambda: run(trial))


def _speaker() -> Callable[..., None]:
    """Return what writes events to standard output; all else goes to standard error from now on."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(event: str, **facts: Any) -> None:
        out.write(json.dumps({"verify": event, **facts}) + "\n")
        out.flush()

    return say


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
