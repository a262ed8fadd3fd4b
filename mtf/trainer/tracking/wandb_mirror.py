"""The mirror on Weights & Biases: each run of mtf is one W&B run, for all its attempts.

Row number n is W&B's step n; the training's own step is a value, and the x axis of all charts. So
when a resume cuts rows off and writes them again, W&B drops the repeated ones, which are equal. And
of two rows with the same training step, one before and one after a stop, it drops none.
"""

from __future__ import annotations

import hashlib
import importlib.util
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

from mtf.core.scalar_rows import bin_edges, row_values
from mtf.trainer.runtime.console import say
from mtf.trainer.runtime.signals import STOP

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mtf.spec.schema.run_config import ExperimentConfig
    from mtf.trainer.tracking.mirrors import TrainingEnd

HOST = "https://api.wandb.ai"
REACH_S = 5.0  # time limit for any answer of the server
INIT_S = 30.0
FINISH_S = 60.0  # time limit for the last uploads of a complete training
STOP_S = 10.0  # the same when it must stop: the grace period is for the checkpoint
FAIL_S = 4.0  # the same when it has failed: the job ends soon, most rows are there


class WandbMirror:
    """A run on Weights & Biases; offline, a run in the run folder for ``wandb sync``.

    Args:
        config: the configuration of the run.
        run_dir: the run folder.
        given: a W&B run that the caller has opened; it gets each row at its training step.
    """

    name = "wandb"

    def __init__(self, config: ExperimentConfig, run_dir: Path, given: Any | None = None) -> None:
        self._config, self._run_dir = config, run_dir
        self._given, self._run = given, given
        self._first = 0  # the first row that W&B does not have yet

    def open(self) -> None:
        """Open the run: online if there is a key and the server answers, else offline."""
        if self._given is not None:
            return
        # without a network, wandb's error reports delay the end of the job by 20 s
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        run = self._start_run()
        run.define_metric("*", step_metric="step")
        self._run = run
        self._first = run.step if run.resumed else 0
        self._remove_superseded(run)

    def show(self, number: int, row: Mapping[str, Any]) -> None:
        """Send a row that W&B does not have yet; a given run gets no rows of earlier starts."""
        if self._given is not None:
            self._given.log(self._values(row), step=row["step"])
        elif number >= self._first and self._run is not None:
            values = {"step": row["step"], **self._values(row)}
            self._run.log(values, step=number, commit=True)

    def close(self, end: TrainingEnd) -> None:
        """Upload the last rows within a time limit; the next start sends those that are left.

        A given run stays open: who opened it may log more, and finishes it.
        """
        run = self._run
        if run is None or self._given is not None:
            return
        if end.stopped:
            run.mark_preempting()
        finish = run.finish if end.complete else partial(run.finish, exit_code=1)
        limit_s = FINISH_S if end.complete else STOP_S if end.stopped else FAIL_S
        if not _within(finish, limit_s, stopping_s=min(limit_s, STOP_S)):
            say("wandb: sending the last rows takes too long; they stay in the run folder")
            _kill_service()

    def _start_run(self) -> Any:
        mode = _mode()
        if mode != "online":
            return self._init(mode)
        try:
            return self._init(mode)
        except Exception as e:  # noqa: BLE001 -- wandb raises many kinds
            import wandb

            say(f"wandb: {type(e).__name__}: {e}. Continuing offline: wandb sync uploads the rows")
            wandb.teardown()  # frees the id of the run
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
            # offline, wandb sync would append all rows to those it sent from an earlier folder
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
        """Remove the offline folders of earlier starts: the new one will have all their rows."""
        new = Path(run.dir).parent
        # after two starts in one second, the second folder ends in -1
        for old in (self._run_dir / "wandb").glob(f"offline-run-*-{run.id}*"):
            if not old.samefile(new):
                shutil.rmtree(old, ignore_errors=True)

    def _values(self, row: Mapping[str, Any]) -> dict[str, Any]:
        found = row_values(row)
        values: dict[str, Any] = dict(found.numbers)
        if found.histograms or found.images:
            import wandb

            for name, histogram in found.histograms.items():
                pair: Any = (histogram["counts"], bin_edges(histogram))
                values[name] = wandb.Histogram(np_histogram=pair)
            for name, path in found.images.items():
                values[name] = wandb.Image(str(self._run_dir / path))
        return values


def is_configured() -> tuple[bool, str]:
    """Return True if W&B is used where the configuration leaves it open; and the reason."""
    if importlib.util.find_spec("wandb") is None:
        return False, "wandb is not installed"
    mode = os.environ.get("WANDB_MODE", "").lower()
    if mode == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true"):
        return False, "the environment disables it"
    if mode in ("offline", "dryrun"):
        return True, f"WANDB_MODE is {mode}"
    if os.environ.get("WANDB_API_KEY"):
        return True, "WANDB_API_KEY is set"
    if _has_key():
        return True, "there is a key in the netrc file"
    return False, "no key is configured"


def run_id(run: str) -> str:
    """Return the W&B id of a run, always the same, so that a resume continues the W&B run."""
    return hashlib.sha256(run.encode()).hexdigest()[:16]


def _mode() -> str:
    """Return the mode set by the user, by default online if there is a key, else offline."""
    mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
    return "offline" if mode == "online" and not _server_answers() else mode


def _server_answers() -> bool:
    try:
        with urllib.request.urlopen(_host(), timeout=REACH_S):  # noqa: S310 -- the user names it
            return True
    except urllib.error.HTTPError:
        return True  # an answer all the same
    except OSError as e:
        if isinstance(getattr(e, "reason", None), ssl.SSLError):
            return True  # wandb has certificates of its own, and may accept the answer
        say(
            f"wandb: no answer from {_host()} ({e}). Logging to the run folder: wandb sync uploads"
            " the rows"
        )
        return False


def _host() -> str:
    return os.environ.get("WANDB_BASE_URL", HOST)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return (
            netrc.netrc(os.environ.get("NETRC")).authenticators(_host().split("//")[-1].rstrip("/"))
            is not None
        )
    except (OSError, netrc.NetrcParseError):
        return False


def _kill_service() -> None:
    """Kill wandb's service process: this process would wait for it at its exit, without limit."""
    import wandb

    pids = service_pids()
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if pids:
        with suppress(Exception, SystemExit):  # it is gone; this leaves nothing to do at the exit
            wandb.teardown()


def service_pids() -> list[int]:
    """Return the pids of the service processes that wandb started in this process."""
    children = " ".join(_read(f) for f in Path("/proc/self/task").glob("*/children")).split()
    return [int(c) for c in children if _read(Path(f"/proc/{c}/comm")) == "wandb-core\n"]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _within(action: Callable[[], object], limit_s: float, *, stopping_s: float) -> bool:
    """Run an action in a thread; return True if it ended within a time limit.

    Args:
        action: what to run.
        limit_s: the time limit.
        stopping_s: the time limit once the training was asked to stop.

    Raises:
        Exception: whatever the action raised.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as e:  # noqa: BLE001 -- raised again in the caller's thread
            raised.append(e)

    thread = threading.Thread(target=run, daemon=True)
    start = time.monotonic()
    thread.start()
    while thread.is_alive():
        waited = time.monotonic() - start
        if waited > (stopping_s if STOP.requested else limit_s):
            return False
        thread.join(0.1)
    if raised:
        raise raised[0]
    return True
