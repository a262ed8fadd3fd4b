"""Interrupts trainings of every kind at every phase and compares their bits: `python -m tests.soak.exact`.

Each kind of training is done once without an interruption. Then, for each phase, at its first and its last
occurrence and between them, others get a signal or are killed, right before or after, and are resumed in a new
process: what they leave must be the same bits. Finally, one training is interrupted again and again. Exit code
1: a result differs.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mtf import rundir
from mtf.trainer.loop.phases import Phase
from mtf.trainer.verify import trial_process
from mtf.trainer.verify.batch_records import BatchRecorder
from mtf.trainer.verify.interruption_points import STOP_SIGNALS, chain
from mtf.trainer.verify.trial_process import COMPLETE, OUTPUT, STOPPED, Interruption
from tests.trainer.changing import CHANGING
from tests.trainer.hard_training import HARD, difference, result, train
from tests.trainer.kinds import ALIKE, BESIDES, KINDS
from tests.trainer.ranks import train_ranks
from tests.trainer.runs import config_with, make_run, read_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_COUNTS = "phases.json"


@dataclass(frozen=True)
class Kind:
    """A kind of training: its differences from ``HARD``, at its start and at each resume."""

    changes: Mapping[str, Any]
    ranks: int = 1
    precision: str = "32-true"
    resumed: Mapping[str, Any] = field(default_factory=dict)


def _ranks(number: int, precision: str = "32-true", **changes: Any) -> Kind:
    # no last batch of one sample, which BatchNorm refuses
    training = {"batch_size": 3, "gradient_accumulation_steps": 3}
    several = {"slurm": {"ntasks_per_node": number}, "training": training}
    return Kind({**ALIKE, **several, **changes}, number, precision)


ALL = {
    "main": Kind(BESIDES),
    **{name: Kind({**BESIDES, **changes}) for name, changes in KINDS.items()},
    **{name: Kind({**BESIDES, **changes}) for name, changes in CHANGING.items()},
    "bf16": Kind(BESIDES, precision="bf16-mixed"),
    "bf16, workers": Kind({**BESIDES, **KINDS["workers"]}, precision="bf16-mixed"),
    "16 bits, scaler": Kind(BESIDES, precision="16-mixed"),
    "2 workers, then 0": Kind(
        {**BESIDES, **KINDS["workers"]}, resumed={"data": {"num_workers": 0}}
    ),
    "0 workers, then 2": Kind(BESIDES, resumed=KINDS["workers"]),
    "2 ranks": _ranks(2),
    "2 ranks, workers": _ranks(2, **KINDS["workers"]),
    "2 ranks, bf16": _ranks(2, "bf16-mixed"),
    "3 ranks": _ranks(3),
    "3 ranks, bf16": _ranks(3, "bf16-mixed"),
    "2 ranks, torchmetrics": _ranks(2, **KINDS["torchmetrics"]),
    "3 ranks, torchmetrics": _ranks(3, **KINDS["torchmetrics"]),
}


@dataclass
class Tally:
    """The interruptions tried for one kind, and those that changed the result."""

    stops: int = 0
    kills: int = 0
    too_late: int = 0  # signals in the very last instructions: the training was complete
    left_out: int = 0  # places not tried for want of time
    faults: list[str] = field(default_factory=list)

    def count(self, code: int) -> None:
        self.stops += code == STOPPED
        self.kills += code == -signal.SIGKILL
        self.too_late += code == COMPLETE


class Campaign:
    """All interruptions of one kind of training."""

    def __init__(self, folder: Path, kind: Kind) -> None:
        self._folder, self._kind = folder, kind
        self._whole = make_run(folder, base=HARD, **kind.changes)
        self._turns = itertools.count()
        self.tally = Tally()
        self._demand(self._train(self._whole, training=_watched), COMPLETE, "uninterrupted")
        self._result = result(self._whole)
        self.counts: dict[str, int] = json.loads((self._whole / _COUNTS).read_text())

    def interrupt(self, *interruptions: Interruption) -> bool:
        """Interrupt a training and compare its result; return True if it could be interrupted."""
        run = make_run(self._folder, base=HARD, **self._kind.changes)
        where = ", then ".join(map(str, interruptions))
        suffered = 0
        try:
            for interruption in interruptions:
                code = self._train(run, interruption)
                self.tally.count(code)
                if code == COMPLETE:
                    break
                suffered += 1
                self._demand(
                    code, -signal.SIGKILL if interruption.is_kill else STOPPED, str(interruption)
                )
                self._change(run)
            else:
                self._demand(self._train(run), COMPLETE, f"the resume after {where}")
            found = difference(self._result, result(run))
        except RuntimeError as e:
            found = str(e)
        if found is not None:
            self.tally.faults.append(f"{where}: {found}")
        shutil.rmtree(run)
        return suffered > 0

    def _train(
        self, run: Path, interruption: Interruption | None = None, training: Any = train
    ) -> int:
        """Train in new processes; return how the interrupted one ended."""
        body = functools.partial(training, precision=self._kind.precision)
        prepare = interruption.install if interruption else lambda: None
        if self._kind.ranks == 1:

            def alone() -> None:
                prepare()
                body(run)

            return trial_process.fork(alone, log=run / OUTPUT).wait()
        rank = next(self._turns) % self._kind.ranks
        codes = train_ranks(run, self._kind.ranks, {rank: prepare}, body)
        is_kill = interruption is not None and interruption.is_kill
        return codes[rank] if is_kill or len(set(codes)) == 1 else trial_process.FAILED

    def _change(self, run: Path) -> None:
        if self._kind.resumed:
            changed = config_with(read_config(run), self._kind.resumed)
            (run / rundir.CONFIG).write_text(rundir.render_yaml(changed))

    @staticmethod
    def _demand(code: int, wanted: int, what: str) -> None:
        if code != wanted:
            raise RuntimeError(f"{what}: it ended with {code}, not with {wanted}")


def _watched(run: Path, precision: str) -> None:
    """Train, and count how often each phase occurs."""
    recorder = BatchRecorder(run, process=1)
    recorder.install()
    train(run, precision)
    if os.environ.get("SLURM_PROCID", "0") == "0":
        (run / _COUNTS).write_text(json.dumps(recorder.counts))


def places(counts: Mapping[str, int], parts: int) -> Iterator[Interruption]:
    """Yield the interruptions: several occurrences of each phase, by a signal and by a kill."""
    soft, after = itertools.cycle(STOP_SIGNALS), itertools.cycle((True, False, False, True))
    for phase in Phase:
        total = counts.get(phase, 0)
        chosen = {1 + (total - 1) * part // parts for part in range(parts + 1)} if total else set()
        for nth in sorted(chosen):
            yield Interruption(next(soft), phase, nth, next(after))
            yield Interruption(signal.SIGKILL, phase, nth, next(after))


def campaign(folder: Path, name: str, parts: int, stops: int, limit_s: float) -> Tally:
    """Interrupt one kind of training everywhere, then repeatedly, until the time is over."""
    ends_s = time.monotonic() + limit_s
    work = Campaign(folder, ALL[name])
    chosen = list(places(work.counts, parts))
    random.Random(0).shuffle(chosen)  # if it is cut short, all phases have been seen
    for number, interruption in enumerate(chosen):
        if time.monotonic() > ends_s:
            work.tally.left_out = len(chosen) - number + stops
            return work.tally
        work.interrupt(interruption)
    left = chain(work.counts, stops)
    while left and not work.tally.faults:
        before = work.tally.stops + work.tally.kills
        if not work.interrupt(*left):
            break
        left = left[work.tally.stops + work.tally.kills - before :]
    return work.tally


def main() -> None:
    """Run the campaigns and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.exact", description=__doc__)
    parser.add_argument("--only", action="append", choices=ALL, help="one kind; may be repeated")
    parser.add_argument(
        "--parts", type=int, default=2, help="of a training, to interrupt at the ends of"
    )
    parser.add_argument("--stops", type=int, default=20, help="interruptions in a chain")
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="for each kind of training"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    failed = False
    print(f"{'CONFIGURATION':<22}{'STOPS':>7}{'KILLS':>7}{'TOO LATE':>10}{'SECONDS':>9}  EXACT")
    for name in options.only or ALL:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="mtf-exact-") as folder:
            limit_s = options.minutes * 60
            tally = campaign(Path(folder), name, options.parts, options.stops, limit_s)
        failed |= bool(tally.faults)
        exact = f"no: {len(tally.faults)} differ" if tally.faults else "all"
        if tally.left_out:
            exact += f", {tally.left_out} left out for want of time"
        spent = f"{time.monotonic() - began:.0f}"
        print(f"{name:<22}{tally.stops:>7}{tally.kills:>7}{tally.too_late:>10}{spent:>9}  {exact}")
        for fault in tally.faults[:5]:
            print(f"  {fault}")
        sys.stdout.flush()
    sys.exit(failed)


if __name__ == "__main__":
    main()
