"""Kills syncs that change what waits: `python -m tests.soak.updates [--executor slurm]`.

A waiting run gets other resources, is held back after a failure, or follows its canary. Each effect of such
a sync is killed before it, after it and, for a program, while it runs; the first and the last of each name.
Then each run must be executed exactly once, with the resources that its record names. SLURM is a private one,
or that of SLURM_CONF. Exit code 1: something was lost or done twice.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from tests.crash import updates
from tests.executor.local.bench import end_all
from tests.slurm_cluster import Cluster

CAMPAIGNS = {
    "changed resources": updates.update_waiting,
    "max_failed": updates.hold_back,
    "canary": updates.follow_canary,
}


_AT_A_TIME = 8  # parts of a campaign: so many that the jobs of one part find room together


def _campaigns(folder: Path, executor: str) -> bool:
    """Print what each campaign has found; return True if nothing was wrong."""
    clean = True
    for name, campaign in CAMPAIGNS.items():
        kills = runs = 0
        faults = []
        for part in range(_AT_A_TIME):
            with tempfile.TemporaryDirectory(dir=folder) as place:
                base = updates.Base(Path(place), executor, True, (part, _AT_A_TIME))
                try:
                    worlds = campaign(base)
                except AssertionError as e:
                    faults.append(str(e))
                else:
                    kills += len(worlds) - 1
                    runs += sum(len(world.runs) for world in worlds)
                finally:
                    end_all(Path(place))
            print(f"  {name}: {kills} kills, {len(faults)} faults", file=sys.stderr, flush=True)
        print(f"{name}: {kills} kills, {runs} runs, {len(faults)} faults", *faults, sep="\n")
        clean = clean and not faults
    return clean


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--executor", choices=("local", "slurm"), default="slurm")
    executor = parser.parse_args().executor
    with tempfile.TemporaryDirectory(prefix="mtf-updates-") as name:
        folder = Path(name)
        cluster = None
        if executor == "slurm" and "SLURM_CONF" not in os.environ:
            cluster = Cluster(folder / "slurm")
            cluster.up()
            os.environ["SLURM_CONF"] = str(cluster.conf)
        try:
            clean = _campaigns(folder, executor)
        finally:
            if cluster:
                cluster.down()
    sys.exit(not clean)


if __name__ == "__main__":
    main()
