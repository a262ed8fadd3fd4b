"""What is legal in a spec and yet hardly meant: warnings beyond types. Pure, one function a check.

Each says something only where whoever wrote the spec would agree: what a check needs to know and
does not (how long an epoch of one's own data is) keeps it silent.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtf.core.review.costs import hours_of
from mtf.core.vocabulary.times import duration
from mtf.errors import Problem
from mtf.spec.lint.key_positions import position_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mtf.core.vocabulary.experiments import Desired, Experiment
    from mtf.core.vocabulary.jobs import Resources

Finding = tuple[str, Any, str]  # a key, its value, and what about it
_DIGITS = 1797 * 4 // 5  # images that the built-in data set trains on
_SYNTHETIC = 1000
_WORKERS = "data.num_workers"
_ABOUT_WORKERS = (_WORKERS, "slurm.cpus_per_task")
_MANY_SAMPLES = 1 << 16  # in one optimizer step: beyond what large-batch trainings have used


@dataclass(frozen=True)
class Check:
    """A check, and the sections that its verdict depends on."""

    sections: tuple[str, ...]
    find: Callable[[Experiment], Iterator[Finding]]


def warnings(desired: Desired) -> Iterator[Problem]:
    """Yield what is hardly meant in a spec, at the values that make it so; each once."""
    said: set[Finding] = set()
    for check in CHECKS:
        seen = set()
        for one in desired.experiments:
            same = tuple(id(one.config[name]) for name in check.sections)
            if same not in seen:  # members of a grid share the sections that are equal
                seen.add(same)
                said.update(check.find(one))
    said.update(_throttle(desired))
    for key, value, message in said:
        if key == _WORKERS and not any(k.startswith(_ABOUT_WORKERS) for k in desired.places):
            continue  # the defaults of both
        position = position_of(desired.places, f"{key}={json.dumps(value)}")
        yield Problem(*position, f"{key}: {message}", severity="warning")


def _throttle(desired: Desired) -> Iterator[Finding]:
    number, most = len(desired.experiments), desired.max_parallel
    if most is not None and most > number and desired.experiments[0].grid is not None:
        yield "max_parallel", most, f"{most}, and the grid has {number} members"


def _signal(one: Experiment) -> Iterator[Finding]:
    limit, lead = _limit_s(one.resources), one.resources["signal_lead"]
    if limit is not None and lead >= limit:
        yield (
            "slurm.time", one.resources["time"],
            f"{duration(limit)} is not more than signal_lead, {lead} s: the training would be told"
            " to save and stop at its very start",
        )  # fmt: skip


def _interval(one: Experiment) -> Iterator[Finding]:
    minutes, limit = one.config["checkpoint"]["every_n_minutes"], _limit_s(one.resources)
    if minutes is not None and limit is not None and minutes * 60 >= limit:
        yield (
            "checkpoint.every_n_minutes", minutes,
            f"{minutes:g} minutes are not less than the time limit, {duration(limit)}: no"
            " checkpoint would be due before the job ends",
        )  # fmt: skip


def _epochs(one: Experiment) -> Iterator[Finding]:
    epochs, every = one.config["training"]["max_epochs"], one.config["checkpoint"]["every_n_epochs"]
    if every is not None and every > epochs > 1:
        yield (
            "checkpoint.every_n_epochs", every,
            f"{every}, and the training has {epochs} epochs: none would be due",
        )  # fmt: skip
    stopping = one.config["callbacks"]["early_stopping"]
    if stopping is not None and stopping["patience"] >= epochs:
        yield (
            "callbacks.early_stopping", None,
            f"patience {stopping['patience']}, and the training has {epochs} epochs: it can never"
            " stop early",
        )  # fmt: skip


def _wandb(one: Experiment) -> Iterator[Finding]:
    logging = one.config["logging"]
    if logging["use_wandb"] and not logging["wandb_project"]:
        yield (
            "logging.use_wandb", True,
            "there is no wandb_project: the runs go to W&B's catch-all. Name one",
        )  # fmt: skip


def _workers(one: Experiment) -> Iterator[Finding]:
    workers, cpus = one.config["data"]["num_workers"], one.resources["cpus_per_task"]
    if workers > cpus:
        yield (
            _WORKERS, workers,
            f"{workers} processes load data on {cpus} {'CPU' if cpus == 1 else 'CPUs'}:"
            f" write slurm.cpus_per_task: {workers}, or fewer workers",
        )  # fmt: skip


def _ranks(one: Experiment) -> Iterator[Finding]:
    gpu, ranks = one.resources["gpus_per_node"], one.resources["ntasks_per_node"]
    if gpu and ranks != gpu and one.config["entrypoint"] is None:
        spare = f"{gpu - ranks} of them would idle" if gpu > ranks else "they would share"
        yield (
            "slurm.gpus_per_node", gpu,
            f"{gpu} for {ranks} {'process' if ranks == 1 else 'processes'} a node, and each uses"
            f" one: {spare}. Write slurm.ntasks_per_node: {gpu}",
        )  # fmt: skip


def _batch(one: Experiment) -> Iterator[Finding]:
    training, world = one.config["training"], _world(one)
    size, windows = training["batch_size"], training["gradient_accumulation_steps"]
    effective, samples = size * windows * world, _samples(one)
    parts = [f"batch_size {size}"]
    parts += [f"{windows} accumulation steps"] if windows > 1 else []
    parts += [f"{world} processes"] if world > 1 else []
    total = f"{effective:,} samples in an optimizer step ({' x '.join(parts)})"
    if samples is not None and effective > samples:
        yield "training.batch_size", size, f"{total}, and an epoch has {samples:,}"
    elif effective > _MANY_SAMPLES:
        yield "training.batch_size", size, f"{total} are unusually many"


def _warm_up(one: Experiment) -> Iterator[Finding]:
    scheduler = one.config["scheduler"]
    if scheduler is None or one.config["entrypoint"] is not None:
        return
    epochs, steps = one.config["training"]["max_epochs"], _steps(one)
    lengths = {"step": ("steps", steps), "epoch": ("epochs", epochs)}
    for key, interval in _warm_up_keys(scheduler).items():
        value, (unit, length) = scheduler.get(key), lengths[interval]
        if isinstance(value, int | float) and length is not None and value >= length:
            yield (
                f"scheduler.{key}", value,
                f"the warm-up takes {value:g} {unit}, and the whole training has {length}",
            )  # fmt: skip


def _warm_up_keys(scheduler: dict[str, Any]) -> dict[str, str]:
    """Return the keys that say how long a warm-up takes, each with its unit."""
    keys = {"warmup_epochs": "epoch", "warmup_steps": "step", "num_warmup_steps": "step"}
    rising = scheduler.get("start_factor", 1.0) < scheduler.get("end_factor", 1.0)
    if (
        scheduler["type"].lower() in {"linear", "linearlr"}
        and "start_factor" in scheduler
        and rising
    ):
        keys["total_iters"] = str(scheduler.get("interval", "step"))
    return {key: unit for key, unit in keys.items() if unit in {"step", "epoch"}}


# -- what they all need to know --------------------------------------------------------------------


def _limit_s(needs: Resources) -> float | None:
    hours = hours_of(needs)
    return None if hours is None else hours * 3600


def _world(one: Experiment) -> int:
    return one.resources["nodes"] * one.resources["ntasks_per_node"]


def _samples(one: Experiment) -> int | None:
    """Return how many samples an epoch has, None where only the user's own code knows."""
    data = one.config["data"]
    if one.config["entrypoint"] is not None or data["train_split"] != "train":
        return None
    if data["dataset_name"] == "digits":
        return _DIGITS
    number = data.get("num_samples", _SYNTHETIC)
    known = data["dataset_name"] == "synthetic" and isinstance(number, int)
    return number * 4 // 5 if known else None


def _steps(one: Experiment) -> int | None:
    """Return how many optimizer steps the training has, None where that is not known here."""
    samples, training = _samples(one), one.config["training"]
    if samples is None:
        return None
    batches = math.ceil(math.ceil(samples / _world(one)) / training["batch_size"])
    windows = math.ceil(batches / training["gradient_accumulation_steps"])
    return int(windows * training["max_epochs"])


CHECKS = (
    Check(("slurm",), _signal),
    Check(("checkpoint", "slurm"), _interval),
    Check(("training", "checkpoint", "callbacks"), _epochs),
    Check(("logging",), _wandb),
    Check(("data", "slurm"), _workers),
    Check(("slurm",), _ranks),
    Check(("training", "data", "slurm"), _batch),
    Check(("scheduler", "training", "data", "slurm"), _warm_up),
)
