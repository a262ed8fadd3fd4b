"""Warnings about values that are valid but probably unintended, one function per check.

A check warns only if the author of the spec would surely agree. It is silent where it would need
facts that it does not have, such as the length of an epoch of custom data.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from mtf.core.sbatch.demand import gpu_count
from mtf.core.sbatch.section_options import section_hours
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.times import duration
from mtf.errors import Problem
from mtf.spec.lint.key_positions import position_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from mtf.core.vocabulary.experiments import Desired, Experiment
    from mtf.core.vocabulary.jobs import Resources

Finding = tuple[str, Any, str]  # a key, its value, the message
_DIGITS_SAMPLES = 1797 * 4 // 5  # in the training split of the built-in digits
_SYNTHETIC_SAMPLES = 1000
_WORKERS = "data.num_workers"
_WORKER_KEYS = (_WORKERS, "slurm.cpus_per_task")
_MANY_SAMPLES = 1 << 16  # in one optimizer step: more than large-batch trainings have used


class Check(NamedTuple):
    """A check, and the sections that its findings depend on."""

    sections: tuple[str, ...]
    find: Callable[[Experiment], Iterator[Finding]]


def warnings(desired: Desired) -> Iterator[Problem]:
    """Yield a warning for each value of a spec that is probably unintended, each one once."""
    found: set[Finding] = set()
    for check in CHECKS:
        for experiment in _distinct(desired.experiments, check.sections):
            found.update(check.find(experiment))
    found.update(_check_max_parallel(desired))
    for key, value, message in found:
        if key == _WORKERS and not any(k.startswith(_WORKER_KEYS) for k in desired.places):
            continue  # both are defaults
        position = position_of(desired.places, f"{key}={json_text.dumps(value)}")
        yield Problem(*position, f"{key}: {message}", severity="warning")


def _distinct(experiments: Sequence[Experiment], sections: tuple[str, ...]) -> Iterable[Experiment]:
    """Return the experiments that differ in these sections: members of a grid share equal ones."""
    if len(experiments) == 1:
        return experiments
    return {tuple(id(e.config[s]) for s in sections): e for e in reversed(experiments)}.values()


def _check_max_parallel(desired: Desired) -> Iterator[Finding]:
    number, most = len(desired.experiments), desired.max_parallel
    if most is not None and most > number and desired.experiments[0].grid is not None:
        yield "max_parallel", most, f"{most} has no effect: the grid has only {number} members"
    for key, value in (("canary", desired.canary), ("max_failed", desired.max_failed)):
        if value is not None and value >= number:
            yield key, value, f"{value} holds nothing back: the grid has only {number} members"


def _check_signal_lead(experiment: Experiment) -> Iterator[Finding]:
    limit, lead = _limit_s(experiment.resources), experiment.resources["signal_lead"]
    if limit is not None and lead >= limit:
        message = (
            f"{duration(limit)} is not longer than signal_lead ({lead} s): the training would be"
            " asked to save and stop as soon as it starts"
        )
        yield "slurm.time", experiment.resources["time"], message


def _check_checkpoint_minutes(experiment: Experiment) -> Iterator[Finding]:
    minutes = experiment.config["checkpoint"]["every_n_minutes"]
    limit = _limit_s(experiment.resources)
    if minutes is not None and limit is not None and minutes * 60 >= limit:
        message = (
            f"{minutes:g} minutes are not less than the time limit ({duration(limit)}): the job"
            " ends before a checkpoint is due"
        )
        yield "checkpoint.every_n_minutes", minutes, message


def _check_epochs(experiment: Experiment) -> Iterator[Finding]:
    epochs = experiment.config["training"]["max_epochs"]
    every = experiment.config["checkpoint"]["every_n_epochs"]
    if every is not None and every > epochs > 1:
        message = f"{every} exceeds training.max_epochs ({epochs}): no checkpoint is ever due"
        yield "checkpoint.every_n_epochs", every, message
    stopping = experiment.config["callbacks"]["early_stopping"]
    if stopping is not None and stopping["patience"] >= epochs:
        patience = stopping["patience"]
        message = (
            f"patience ({patience}) is not less than training.max_epochs ({epochs}): the training"
            " never stops early"
        )
        yield "callbacks.early_stopping", None, message


def _check_wandb_project(experiment: Experiment) -> Iterator[Finding]:
    logging = experiment.config["logging"]
    if logging["use_wandb"] and not logging["wandb_project"]:
        message = "without wandb_project, runs go to W&B's uncategorized project. Set one"
        yield "logging.use_wandb", True, message


def _check_workers(experiment: Experiment) -> Iterator[Finding]:
    data = experiment.config["data"]
    workers = data["num_workers"] if data else 0
    cpus = experiment.resources["cpus_per_task"]
    if workers > cpus:
        message = (
            f"{workers} processes load data on {cpus} {'CPU' if cpus == 1 else 'CPUs'}. Write"
            f" slurm.cpus_per_task: {workers}, or use fewer workers"
        )
        yield _WORKERS, workers, message


def _check_ranks(experiment: Experiment) -> Iterator[Finding]:
    resources = experiment.resources
    gpus, ranks = gpu_count(resources["gpus_per_node"]), resources["ntasks_per_node"]
    if gpus and ranks != gpus and experiment.config["entrypoint"] is None:
        effect = f"{gpus - ranks} GPUs stay idle" if gpus > ranks else "processes share GPUs"
        message = (
            f"{gpus} for {ranks} {'process' if ranks == 1 else 'processes'} on each node, and each"
            f" process uses one GPU: {effect}. Write slurm.ntasks_per_node: {gpus}"
        )
        yield "slurm.gpus_per_node", resources["gpus_per_node"], message


def _check_batch_size(experiment: Experiment) -> Iterator[Finding]:
    training, processes = experiment.config["training"], _processes(experiment)
    size, steps = training["batch_size"], training["gradient_accumulation_steps"]
    effective, samples = size * steps * processes, _samples(experiment)
    factors = [f"batch_size {size}"]
    factors += [f"{steps} accumulation steps"] if steps > 1 else []
    factors += [f"{processes} processes"] if processes > 1 else []
    total = f"{effective:,} samples in each optimizer step ({' x '.join(factors)})"
    if samples is not None and effective > samples:
        yield "training.batch_size", size, f"{total}, but an epoch has only {samples:,}"
    elif effective > _MANY_SAMPLES:
        yield "training.batch_size", size, f"{total} are unusually many"


def _check_warm_up(experiment: Experiment) -> Iterator[Finding]:
    scheduler = experiment.config["scheduler"]
    if scheduler is None or experiment.config["entrypoint"] is not None:
        return
    epochs, steps = experiment.config["training"]["max_epochs"], _steps(experiment)
    lengths = {"step": ("steps", steps), "epoch": ("epochs", epochs)}
    for key, interval in _warm_up_keys(scheduler).items():
        value, (unit, length) = scheduler.get(key), lengths[interval]
        if isinstance(value, int | float) and length is not None and value >= length:
            message = f"the warm-up takes {value:g} {unit}, the whole training has only {length}"
            yield f"scheduler.{key}", value, message


def _warm_up_keys(scheduler: dict[str, Any]) -> dict[str, str]:
    """Return the keys that give the length of a warm-up, each with its unit."""
    keys = {"warmup_epochs": "epoch", "warmup_steps": "step", "num_warmup_steps": "step"}
    rises = scheduler.get("start_factor", 1.0) < scheduler.get("end_factor", 1.0)
    is_linear = scheduler["type"].lower() in {"linear", "linearlr"}
    if is_linear and "start_factor" in scheduler and rises:
        keys["total_iters"] = str(scheduler.get("interval", "step"))
    return {key: unit for key, unit in keys.items() if unit in {"step", "epoch"}}


# -- facts that the checks need --------------------------------------------------------------------


def _limit_s(resources: Resources) -> float | None:
    hours = section_hours(resources)
    return None if hours is None else hours * 3600


def _processes(experiment: Experiment) -> int:
    return experiment.resources["nodes"] * experiment.resources["ntasks_per_node"]


def _samples(experiment: Experiment) -> int | None:
    """Return the number of samples in an epoch, None if only the user's code knows it."""
    data = experiment.config["data"]
    if data is None or experiment.config["entrypoint"] or data["train_split"] != "train":
        return None
    if data["dataset_name"] == "digits":
        return _DIGITS_SAMPLES
    number = data.get("num_samples", _SYNTHETIC_SAMPLES)
    is_known = data["dataset_name"] == "synthetic" and isinstance(number, int)
    return number * 4 // 5 if is_known else None


def _steps(experiment: Experiment) -> int | None:
    """Return the number of optimizer steps of the training, None if it is not known here."""
    samples, training = _samples(experiment), experiment.config["training"]
    if samples is None:
        return None
    batches = math.ceil(math.ceil(samples / _processes(experiment)) / training["batch_size"])
    windows = math.ceil(batches / training["gradient_accumulation_steps"])
    return int(windows * training["max_epochs"])


CHECKS = (
    Check(("slurm",), _check_signal_lead),
    Check(("checkpoint", "slurm"), _check_checkpoint_minutes),
    Check(("training", "checkpoint", "callbacks"), _check_epochs),
    Check(("logging",), _check_wandb_project),
    Check(("data", "slurm"), _check_workers),
    Check(("slurm",), _check_ranks),
    Check(("training", "data", "slurm"), _check_batch_size),
    Check(("scheduler", "training", "data", "slurm"), _check_warm_up),
)
