"""The mirror on Weights & Biases: one run there for a run here, for ever.

The n-th row is step n there, and the step of the training a value that everything is drawn over.
So rows that are cut back by a resume and come again are dropped there, being the same; and a row
that a stop has parted from an earlier one of the same training step is not.
"""

from __future__ import annotations

import hashlib
import netrc
import os
import shutil
import signal
import ssl
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf.trainer.runtime.console import say
from mtf.trainer.runtime.signals import STOP
from mtf.trainer.tracking.mirrors import edges, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.tracking.mirrors import End

HOST = "https://api.wandb.ai"
REACH_S = 5.0  # for the server's first answer, of whatever kind
INIT_S = 30.0
FINISH_S = 60.0  # for the last uploads of a training that is complete
STOP_S = 10.0  # for those of one that has to go: its grace period is not for tracking


class WandbMirror:
    """A run on Weights & Biases, or in the run folder for ``wandb sync`` where it is offline.

    Args:
        config: what is run.
        run_dir: the run folder.
        given: a run that the caller has opened; rows come to it at their training step.
    """

    name = "wandb"

    def __init__(self, config: ExperimentConfig, run_dir: Path, given: Any | None = None) -> None:
        self._config, self._run_dir = config, run_dir
        self._given, self._run = given, given
        self._first = 0  # the first row that is not there yet

    def open(self) -> None:
        """Open the run: online where there is a key and the server answers, else offline."""
        if self._given is not None:
            return
        # its reports on itself would hold up the end of the job by 20 s where there is no network
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        run = self._opened()
        run.define_metric("*", step_metric="step")
        self._run = run
        self._first = run.step if run.resumed else 0
        self._remove_superseded(run)

    def show(self, number: int, row: Mapping[str, Any]) -> None:
        """Send a row that is not there yet; a given run is never sent the rows of before."""
        if self._given is not None:
            self._given.log(self._values(row), step=row["step"])
        elif number >= self._first and self._run is not None:
            values = {"step": row["step"], **self._values(row)}
            self._run.log(values, step=number, commit=True)

    def close(self, end: End) -> None:
        """Upload what is left, for a bounded time: what is not sent yet is at the next start."""
        run = self._run
        if run is None:
            return
        if end.stopped and self._given is None:
            run.mark_preempting()
        finish = run.finish if end.complete else partial(run.finish, exit_code=1)
        if not _within(finish, STOP_S if end.stopped else FINISH_S, stopping_s=STOP_S):
            say("wandb: it takes too long to send the last rows; they are in the run folder")
            _end_service()

    def _opened(self) -> Any:
        mode = _mode()
        if mode != "online":
            return self._init(mode)
        try:
            return self._init(mode)
        except Exception as e:  # noqa: BLE001 -- its own errors and those of what it is built on
            import wandb

            say(f"wandb: {type(e).__name__}: {e}. It goes on offline, for wandb sync")
            wandb.teardown()  # else the name of the run is taken
            return self._init("offline")

    def _init(self, mode: Any) -> Any:
        import wandb

        logging = self._config.logging
        return wandb.init(
            project=logging.wandb_project,
            entity=logging.wandb_entity,
            id=run_id(self._config.mtf.run),
            name=self._config.mtf.run,
            dir=str(self._run_dir),
            config=self._config.model_dump(mode="json", exclude={"mtf"}),
            # wandb sync would add a folder of all rows behind those it has sent of an earlier one
            resume="allow" if mode == "online" else None,
            mode=mode,
            settings=wandb.Settings(
                silent=True,
                console="off",  # the executor keeps the job's output already
                init_timeout=INIT_S,
                finish_timeout=FINISH_S,
            ),
        )

    def _remove_superseded(self, run: Any) -> None:
        """Remove the offline folders of earlier starts: all their rows are in the new one too."""
        new = Path(run.dir).parent
        # of two starts in one second, the second folder is called -1
        for old in (self._run_dir / "wandb").glob(f"offline-run-*-{run.id}*"):
            if not old.samefile(new):
                shutil.rmtree(old, ignore_errors=True)

    def _values(self, row: Mapping[str, Any]) -> dict[str, Any]:
        seen = shown(row)
        values: dict[str, Any] = dict(seen.numbers)
        if seen.histograms or seen.images:
            import wandb

            for name, histogram in seen.histograms.items():
                pair: Any = (histogram["counts"], edges(histogram))
                values[name] = wandb.Histogram(np_histogram=pair)
            for name, path in seen.images.items():
                values[name] = wandb.Image(str(self._run_dir / path))
        return values


def run_id(run: str) -> str:
    """Return the name of a run there: one for ever, so that what is continued stays one run."""
    return hashlib.sha256(run.encode()).hexdigest()[:16]


def _mode() -> str:
    """Return the mode that the user has set, else online where there is a key for it."""
    mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
    return "offline" if mode == "online" and not _answers() else mode


def _answers() -> bool:
    try:
        with urllib.request.urlopen(_host(), timeout=REACH_S):  # noqa: S310 -- the user names it
            return True
    except urllib.error.HTTPError:
        return True  # an answer, if not a friendly one
    except OSError as e:
        if isinstance(getattr(e, "reason", None), ssl.SSLError):
            return True  # an answer that wandb, with certificates of its own, may understand
        say(f"wandb: no answer from {_host()} ({e}): offline, in the run folder, for wandb sync")
        return False


def _host() -> str:
    return os.environ.get("WANDB_BASE_URL", HOST)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators(_host().split("//")[-1].rstrip("/")) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _end_service() -> None:
    """End wandb's own process: this one would wait for it at its exit, for however long."""
    import wandb

    pids = service_pids()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if pids:
        with suppress(Exception, SystemExit):  # for it is gone; at the exit nothing is left to do
            wandb.teardown()


def service_pids() -> list[int]:
    """Return the processes that wandb has started in this one; others may end meanwhile."""
    children = " ".join(_read(f) for f in Path("/proc/self/task").glob("*/children")).split()
    return [int(c) for c in children if _read(Path(f"/proc/{c}/comm")) == "wandb-core\n"]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _within(act: Callable[[], object], most_s: float, *, stopping_s: float) -> bool:
    """Do something in a thread of its own; return whether it ended in time, which a stop shortens.

    Raises:
        Exception: what it raised.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as e:  # noqa: BLE001 -- raised in the caller's thread
            raised.append(e)

    thread = threading.Thread(target=run, daemon=True)
    start = time.monotonic()
    thread.start()
    while thread.is_alive():
        waited = time.monotonic() - start
        if waited > (stopping_s if STOP.requested else most_s):
            return False
        thread.join(0.1)
    if raised:
        raise raised[0]
    return True
