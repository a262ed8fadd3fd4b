"""The options of sbatch that a run's ``slurm`` section asks for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mtf.core.sbatch.demand import UNBOUNDED, demand_of, hours_of
from mtf.core.sbatch.read_script import JobOptions, Option, ScriptOptionError, parse_words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.core.sbatch.demand import Demand
    from mtf.core.vocabulary.jobs import Resources

EXPEDITE = "expedite"  # the value of --requeue since SLURM 25.11
# Keys of the section that have an option of the same name.
_SAME_NAME = ("partition", "account", "qos", "mem", "time", "constraint", "reservation")


def section_options(needs: Resources) -> tuple[Option, ...]:
    """Return the options for the keys of a section, without those in ``extra``."""
    found: dict[str, object] = {
        "nodes": int(needs["nodes"]),
        "ntasks-per-node": int(needs["ntasks_per_node"]),
        "cpus-per-task": int(needs["cpus_per_task"]),
    }
    given: Mapping[str, Any] = {**needs}
    found |= {key: given[key] for key in _SAME_NAME if given[key]}
    if needs["gpus_per_node"]:
        found["gpus-per-node"] = needs["gpus_per_node"]
    if needs["time"]:
        # without `B:`, SLURM signals the steps, and so every rank (it rounds to a minute)
        found["signal"] = f"{signal_of(needs)}@{int(needs['signal_lead'])}"
    options = [Option(name, str(value)) for name, value in found.items()]
    if needs["requeue"] == EXPEDITE:
        return (*options, Option("requeue", EXPEDITE))
    return (*options, Option("requeue" if needs["requeue"] else "no-requeue", None))


def signal_of(needs: Resources) -> str:
    """Return the name, without SIG, of the signal that comes ahead of the time limit."""
    return "USR2" if needs.get("signal") == "USR2" else "USR1"


def knows_expedite(version: str) -> bool:
    """Return True if a version of SLURM, like ``25.11.0``, has ``--requeue=expedite``."""
    found = re.match(r"([0-9]{1,4})\.([0-9]{1,4})", version)
    return found is None or (int(found[1]), int(found[2])) >= (25, 11)


def no_expedite(version: str) -> str:
    """Return the message for a SLURM of a version that is too old for ``requeue: expedite``."""
    return f"slurm.requeue: expedite needs SLURM 25.11, here is {version}. Write requeue: true"


def job_options(needs: Resources) -> JobOptions:
    """Return the options that a section asks for.

    Raises:
        ScriptOptionError: a word in ``extra`` is not one option of sbatch.
    """
    extra = parse_words([(word, 0) for word in needs["extra"]]).all if needs["extra"] else ()
    return JobOptions((*section_options(needs), *extra))


def section_hours(needs: Resources) -> float | None:
    """Return the time limit of a job with a section's options, None if it has none."""
    return section_demand(needs).hours if needs["extra"] else hours_of(needs["time"])


def section_demand(needs: Resources) -> Demand:
    """Return the upper bounds of a job with a section's options; none if they are invalid."""
    try:
        return demand_of(job_options(needs))
    except ScriptOptionError:  # reported where the options are judged
        return UNBOUNDED
