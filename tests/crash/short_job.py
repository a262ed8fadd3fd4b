"""The job of the crash tests: claims its run as every job does, logs its execution and ends.

It is committed to the test repositories, and their job scripts start it instead of the trainer:
torch takes seconds to import, and nothing here is about training. While there is a file `hold` in
the run root it goes on living; a file `fail` ends the first member of a grid with an error.
"""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

from mtf import rundir
from mtf.trainer.job import run_job

if TYPE_CHECKING:
    from mtf.trainer.storage.journal import Journal


def live(job: run_job.Job, journal: Journal) -> None:
    """Append to ``lives``, which the tests count, and journal a complete training."""
    assert job.request is not None
    job_dir, index = job.request
    rundir.fill_run_folder(job.run_dir, job_dir, job.job_id, rundir.read_config(job_dir, index))
    with (job.run_dir / "lives").open("a") as lives:
        lives.write(f"{job.job_id}\n")
    journal.started(token=job.token, job_id=job.job_id, restarts=job.restarts, max_epochs=1)
    hold = job.run_dir.parents[3] / "hold"  # it is a grid's: <root>/<name>/<time>/<commit>/<member>
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    fail = hold.with_name("fail")
    while hold.exists():
        if fail.exists() and job.run_dir.name.endswith("=0"):
            raise RuntimeError("asked to fail")
        time.sleep(0.05)
    journal.finished(0, 0, {})


run_job._train = live
sys.exit(run_job.main(sys.argv[1:]))
