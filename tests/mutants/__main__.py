"""Test a sample of mutants: `python -m tests.mutants --sample 200 --seed 1`."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
import tomllib
from collections import Counter
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutants.operators import sample
from tests.mutants.runner import ROOT, Outcome, Slot, preload, run_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.mutants.operators import Mutant

WANTED = 0.90
# The rooms whose code is changed, with the tests that decide: nearest first.
TESTS = {
    "mtf/core/vocabulary": ["tests/core", "tests/ledger/test_store.py", "tests/reconcile"],
    "mtf/core/planner": ["tests/core", "tests/spec/test_load.py"],
    "mtf/core/review": ["tests/core", "tests/report", "tests/cli/test_review.py", "tests/cli/test_diff.py"],
    "mtf/spec": ["tests/spec"],
    "mtf/ledger": ["tests/ledger"],
    "mtf/reconcile": ["tests/reconcile", "tests/core", "tests/commands", "tests/cli/test_drift.py"],
    "mtf/trainer/loop": ["tests/trainer/loop", "tests/trainer/plain_loop", "tests/trainer/test_trainer.py"],
    "mtf/trainer/compute": ["tests/trainer/compute", "tests/trainer/plain_loop", "tests/trainer/test_ranks.py"],
    "mtf/trainer/resume": ["tests/trainer/resume", "tests/trainer/test_exact.py"],
}  # fmt: skip


def room_of(path: str) -> str:
    """Return the entry of TESTS that a module belongs to."""
    return next(room for room in TESTS if path.startswith(f"{room}/"))


def tests_of(path: str) -> list[str]:
    """Return the tests that decide on a mutant of a module: those of its folder first."""
    room = room_of(path)
    mirrored = str(Path("tests", *Path(path).parent.parts[1:]))
    nearest = str(Path(mirrored, f"test_{Path(path).name}"))
    wanted = [p for p in (nearest, mirrored, *TESTS[room]) if (ROOT / p).exists()]
    return [
        p for n, p in enumerate(wanted) if not any(Path(p).is_relative_to(q) for q in wanted[:n])
    ]


def chosen(only: list[str], seed: int) -> Iterator[Mutant]:
    """Yield mutants in random order, one of each room in turn; the seed decides the order."""
    return (
        m for row in zip_longest(*(_of_room(room, only, seed) for room in TESTS)) for m in row if m
    )


def _of_room(room: str, only: list[str], seed: int) -> Iterator[Mutant]:
    rng = random.Random(f"{seed} {room}")
    names = [str(p.relative_to(ROOT)) for p in sorted((ROOT / room).rglob("*.py"))]
    names = [
        name
        for name in names
        if any(part in name for part in only) and (ROOT / name).stat().st_size > 100
    ]
    weights = [(ROOT / name).stat().st_size for name in names]
    left = {name: sample(ROOT / name, name, random.Random(f"{seed} {name}")) for name in names}
    while left:
        (name,) = rng.choices(names, weights)
        if name in left and (mutant := next(left[name], None)):
            yield mutant
        else:
            left.pop(name, None)


def known() -> dict[tuple[str, str, str], dict[str, str]]:
    """Return the known survivors with the reason recorded for each."""
    table = tomllib.loads((Path(__file__).parent / "survivors.toml").read_text())
    return {(s["path"], s["was"], s["became"]): s for s in table.get("survivor", [])}


def limits(slots: list[Slot], mutants: list[Mutant]) -> dict[str, float]:
    """Run each room's tests on the code as it is; return how long they may take on a mutant."""
    rooms = sorted({room_of(m.path) for m in mutants})
    found = {}
    for room in rooms:
        (outcome,) = run_all(slots[:1], iter([(None, TESTS[room], 1200.0)]))
        if outcome.caught:
            sys.exit(f"these tests fail without a mutant: {TESTS[room]}\n{outcome.output[-3000:]}")
        found[room] = 60 + 4 * outcome.seconds
        print(f"{outcome.seconds:5.1f} s unchanged: {' '.join(TESTS[room])}", flush=True)
    return found


def report(outcome: Outcome, verdict: str) -> None:
    mutant = outcome.mutant
    assert mutant
    by = f" by {outcome.caught}" if outcome.caught else ""
    print(f"{verdict + by:16} {outcome.seconds:5.1f} s {mutant.path}:{mutant.line}", flush=True)
    if not by:
        print(f"    - {mutant.was}\n    + {mutant.became}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Test the sample; return 1 if too few are caught or a survivor is new."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sample", type=int, default=180, help="how many mutants")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=30, help="begin no mutant after that time")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=[""], help="modules by parts of their paths")
    parser.add_argument("--limit", type=float, help="seconds a mutant; else measured first")
    parser.add_argument("--list", action="store_true", help="show the mutants and stop")
    asked = parser.parse_args(arguments)
    mutants = [m for m, _ in zip(chosen(asked.only, asked.seed), range(asked.sample), strict=False)]
    if asked.list:
        for m in mutants:
            print(f"{m.path}:{m.line}\n    - {m.was}\n    + {m.became}")
        return 0
    end = time.monotonic() + asked.minutes * 60
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    preload()
    looked_at = known()
    counts: Counter[str] = Counter()
    rooms: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        slots = [Slot(Path(folder, str(n))) for n in range(asked.jobs)]
        allowed = dict.fromkeys(TESTS, asked.limit) if asked.limit else limits(slots, mutants)
        work = (
            (m, tests_of(m.path), allowed[room_of(m.path)])
            for m in mutants
            if time.monotonic() < end
        )
        for outcome in run_all(slots, work):
            assert outcome.mutant
            listed = looked_at.get(outcome.mutant.key)
            verdict = "caught" if outcome.caught else listed["verdict"] if listed else "survived"
            report(outcome, verdict)
            counts[verdict] += 1
            rooms.setdefault(room_of(outcome.mutant.path), Counter())[verdict] += 1
    return summary(counts, rooms, left=len(mutants) - counts.total(), seed=asked.seed)


def summary(counts: Counter[str], rooms: dict[str, Counter[str]], left: int, seed: int) -> int:
    """Print the table; return the exit code."""
    columns = ("caught", "survived", "accepted", "equivalent")
    print(f"\n{'room':24}", *(f"{c:>10}" for c in columns))
    for room, found in sorted(rooms.items()):
        print(f"{room:24}", *(f"{found[c]:10}" for c in columns))
    print(f"{'all':24}", *(f"{counts[c]:10}" for c in columns))
    meant = counts.total() - counts["equivalent"]
    share = counts["caught"] / meant if meant else 1.0
    print(f"seed {seed}: {share:.0%} caught of {meant} ({left} of the sample not begun in time)")
    if counts["survived"]:
        print("test the property that a survivor lost, or say in survivors.toml why not")
    return int(share < WANTED or counts["survived"] > 0)


if __name__ == "__main__":
    sys.exit(main())
