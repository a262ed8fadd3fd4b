"""`mtf verify-resume`: prepares and runs the proof, with the spec and code of the work tree.

``python -m mtf.trainer.verify`` runs the trainings in a scratch folder, in the environment of a
local job.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf import proc, rundir
from mtf.core.sbatch.demand import gpu_count
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.ids import RunId, Token
from mtf.core.vocabulary.jobs import JobRequest, Task
from mtf.core.vocabulary.spelling import did_you_mean
from mtf.errors import EXIT_USAGE, MtfError, SpecError
from mtf.executor.script import render
from mtf.project.settings_file import folder_in_repository, project_root, shown, top_of
from mtf.project.spec_tree import SpecTree
from mtf.report.tables import count
from mtf.spec.load import is_spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtf.core.vocabulary.experiments import Desired, Experiment
    from mtf.spec.load import Loaded

PHASES = (
    "INIT",
    "TRAIN_START_EPOCH",
    "TRAIN_BATCH_LOAD",
    "TRAIN_BATCH_FORWARD",
    "TRAIN_BATCH_BACKWARD",
    "TRAIN_BATCH_OPTIM_STEP",
    "SCHEDULER_BATCH_STEP",
    "TRAIN_BATCH_END",
    "SCHEDULER_EPOCH_STEP",
    "VAL_START_EPOCH",
    "VAL_BATCH_LOAD",
    "VAL_BATCH_FORWARD",
    "VAL_BATCH_END",
    "EPOCH_END",
)
_EPOCHS, _STEPS, _VAL_BATCHES = 2, 4, 3  # the lengths of a shortened training
_SILENCE_S = 3600.0  # trainings that print nothing for so long are ended
_LOG, _SCRIPT = "verify.log", "job.sh"
_REMOVED = ("SLURM_", "SBATCH_", "MTF_")  # variables of a job that the command is run in


class UnknownNameError(MtfError):
    """The command line names a spec or member that does not exist."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class Options:
    """The options of the command line; None means the default."""

    member: str | None = None
    epochs: int | None = None
    steps: int | None = None
    workers: int | None = None
    phases: tuple[str, ...] = ()  # none: all
    stops: int = 10
    jobs: int | None = None  # trainings at once


@dataclass(frozen=True)
class Shortened:
    """A configuration that is short enough to be trained many times."""

    config: Mapping[str, Any]
    batches: int  # in an epoch, at most
    notes: tuple[str, ...]  # differences from the spec, for people


@dataclass(frozen=True)
class Prepared:
    """A scratch folder with everything that the proof needs."""

    folder: Path
    root: Path  # of the work tree
    name: str
    gpus: int  # requested by the spec
    notes: tuple[str, ...]


def prepare(where: Path, spec: str, options: Options) -> Prepared:
    """Make the scratch folder for a spec in the work tree.

    Args:
        where: the folder that the command runs in.
        spec: the path of a spec, or the name of an experiment or a grid.
        options: of the command line.

    Raises:
        UnknownNameError: there is no such spec or member.
        SpecError: the spec or the settings contain mistakes.
    """
    root = project_root(where)
    experiment = _experiment(where, spec, options.member)
    short = shortened(experiment.config, options)
    if experiment.resources["container"] is not None:
        raise MtfError(
            f"{spec}: its jobs run in the container {experiment.resources['container']}. Run"
            " mtf verify-resume in that container, with slurm.container: null"
        )
    folder = Path(tempfile.mkdtemp(prefix="mtf-verify-"))
    gpus = gpu_count(experiment.resources["gpus_per_node"])
    prepared = Prepared(folder, root, experiment.name, gpus, short.notes)
    with ExitStack() as on_failure:
        on_failure.callback(remove, prepared)
        _write(prepared, experiment, short, options)
        on_failure.pop_all()
    return prepared


def events(prepared: Prepared) -> Iterator[dict[str, Any]]:
    """Run the proof and yield its events, the verdict last.

    Raises:
        MtfError: there is no verdict because a training failed.
    """
    env = {k: v for k, v in os.environ.items() if not k.startswith(_REMOVED)}
    env |= {"MTF_RUN_DIR": str(prepared.folder), "MTF_JOB_ID": "verify", "MTF_RESTARTS": "0"}
    log = prepared.folder / _LOG
    command = ("bash", str(prepared.folder / _SCRIPT))
    for line in proc.lines(command, silence_s=_SILENCE_S, log=log, env=env, cwd=prepared.root):
        if not line.startswith('{"verify":'):
            continue
        event: dict[str, Any] = json_text.loads(line)
        if event["verify"] == "problem":
            raise MtfError(event["message"])
        yield event
        if event["verify"] == "verdict":
            return
    raise MtfError(f"the proof ended without a verdict: {_last_line(log)} (log: {log})")


def remove(prepared: Prepared) -> None:
    """Remove the scratch folder."""
    shutil.rmtree(prepared.folder, ignore_errors=True)


def shortened(config: Mapping[str, Any], options: Options) -> Shortened:
    """Return a configuration that trains for a few steps and logs all of them."""
    training, data, slurm = (dict(config[name]) for name in ("training", "data", "slurm"))
    windows = training["gradient_accumulation_steps"]
    epochs = options.epochs or min(_EPOCHS, training["max_epochs"])
    steps = options.steps or _STEPS
    batches = steps * windows - (windows > 1)  # a smaller last window is the harder case
    notes = [
        f"shortened: {epochs} of {training['max_epochs']} epochs, each of {steps} optimizer steps"
        f" and {_VAL_BATCHES} validation batches at most; a checkpoint every 2 steps"
    ]
    training["max_epochs"] = epochs
    if options.workers is not None and options.workers != data["num_workers"]:
        notes.append(f"data.num_workers: {options.workers} instead of {data['num_workers']}")
        data["num_workers"] = options.workers
    ranks = slurm["nodes"] * slurm["ntasks_per_node"]
    if ranks > 1:
        notes.append(f"one process: the spec's {ranks} ranks are not verified together")
    if config.get("init_from") is not None:
        notes.append("from new weights: init_from is left out")
    sections = {
        "init_from": None,
        "training": training,
        "data": data,
        "checkpoint": {
            **config["checkpoint"],
            "every_n_steps": 2,
            "every_n_epochs": 1,
            "every_n_minutes": None,
            "keep_last": 2,
        },
        "logging": {
            **config["logging"],
            "use_wandb": False,
            "tensorboard": False,
            "csv": False,
            "log_scalars_every_n_steps": 1,
        },
    }
    return Shortened({**config, **sections}, batches, tuple(notes))


def _experiment(where: Path, spec: str, member: str | None) -> Experiment:
    path = where / spec
    if path.is_file() and not is_spec(spec):
        raise UnknownNameError(f"{spec} is not a spec: the name of a spec ends in .yaml")
    tree = SpecTree.on_disk(where, also=[path.parent] if path.is_file() else [])
    loaded = tree.checked().load_all()
    wanted = shown(path, where) if path.is_file() else None
    return _member(_desired(loaded, spec, wanted), member)


def _desired(loaded: Loaded, spec: str, path: str | None) -> Desired:
    errors = [problem for problem in loaded.problems if problem.is_error]
    if problems := [p for p in errors if p.path == path]:
        raise SpecError(problems)
    found = [d for d in loaded.desired if path == d.path or (path is None and spec == d.name)]
    if found:
        return found[0]
    if path is not None:
        raise UnknownNameError(f"{spec} is a base. Name an experiment or a grid that builds on it")
    near = did_you_mean(spec, [d.name for d in loaded.desired])
    wrong = count(len(errors), "mistake")
    broken = f" (other specs have {wrong}: mtf validate)" if errors else ""
    raise UnknownNameError(f"{spec}: no such spec, experiment or grid. {near}".rstrip() + broken)


def _member(desired: Desired, member: str | None) -> Experiment:
    if member is None:
        return desired.experiments[0]
    found = {e.member: e for e in desired.experiments if e.member is not None}
    if member not in found:
        none = f"--member {member}: {desired.path} is a single experiment, not a grid"
        near = did_you_mean(member, list(found)) or f"The first is {next(iter(found), '')}"
        raise UnknownNameError(f"--member {member}: no such member. {near}" if found else none)
    return found[member]


def _run_section(experiment: Experiment, root: Path) -> dict[str, Any]:
    """Return the ``mtf`` section of the configuration; the code is the work tree."""
    name = experiment.name
    return {
        "run": name,
        "submission": name,
        "experiment": name,
        "grid": experiment.grid,
        "key": "",
        "commit": "",
        "code_dir": str(top_of(root)),
        "folder": folder_in_repository(root),
        "manifest": "",
        "repository": str(top_of(root)),
    }


def _write(prepared: Prepared, experiment: Experiment, short: Shortened, options: Options) -> None:
    config = {**short.config, "mtf": _run_section(experiment, prepared.root)}
    request = {
        "batches": short.batches,
        "val_batches": _VAL_BATCHES,
        "phases": list(options.phases),
        "stops": options.stops,
        "jobs": options.jobs,
    }
    texts = {
        rundir.CONFIG: rundir.render_yaml(config),
        "request.json": json_text.dumps(request),
        _SCRIPT: _script(experiment, prepared.folder, prepared.root),
    }
    for name, text in texts.items():
        (prepared.folder / name).write_text(text, encoding="utf-8")


def _script(experiment: Experiment, folder: Path, root: Path) -> str:
    """Return the script of a local job, with the verifier in place of the trainer."""
    request = JobRequest(
        token=Token("verify"),
        name=experiment.name,
        tasks=(Task(RunId(experiment.name), 0, str(folder)),),
        resources=experiment.resources,
        code_dir=str(top_of(root)),
        folder=folder_in_repository(root),
        job_dir=str(folder),
        array=False,
        max_parallel=None,
        python=sys.executable,
        module="mtf.trainer.verify",
    )
    templates = {p.name: p.read_text() for p in sorted((root / "templates").glob("*.j2"))}
    return render(request, "local", templates)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "no output")
