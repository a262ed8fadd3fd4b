"""``python -m mtf.trainer RUN_FOLDER``, which the job script calls."""

from __future__ import annotations

import sys

from mtf.trainer.job.run_job import main
from mtf.trainer.runtime.process_end import leave

if __name__ == "__main__":
    leave(main(sys.argv[1:]))
