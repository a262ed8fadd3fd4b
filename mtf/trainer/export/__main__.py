"""``python -m mtf.trainer.export FOLDER``: carry out the request of ``mtf checkpoint export``.

The folder holds ``request.json``; the result is written to ``result.json`` there, or the error as
``problem``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mtf import rundir
from mtf.core.vocabulary import json_text
from mtf.errors import EXIT_ERROR, EXIT_USAGE, MtfError, storage_error
from mtf.trainer.job.run_job import paused_garbage_collector, require_torch

REQUEST, RESULT = "request.json", "result.json"


def main(argv: list[str]) -> int:
    """Export; return the exit code."""
    if len(argv) != 1:
        sys.stderr.write("usage: python -m mtf.trainer.export FOLDER\n")
        return EXIT_USAGE
    folder = Path(argv[0])
    try:
        result = _export(json.loads((folder / REQUEST).read_text()))
    except (MtfError, OSError) as e:
        known = e if isinstance(e, MtfError) else storage_error(e) or e
        result = {"problem": str(known)}
    rundir.write_atomically(folder / RESULT, json_text.dumps(result).encode())
    return EXIT_ERROR if "problem" in result else 0


def _export(request: dict[str, Any]) -> dict[str, Any]:
    require_torch()
    with paused_garbage_collector():
        from mtf.trainer.export.weights_file import export
    return export(
        Path(request["checkpoint"]),
        request["sha256"],
        Path(request["target"]),
        request["facts"],
        average=request["average"],
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
