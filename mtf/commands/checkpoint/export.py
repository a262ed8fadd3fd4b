"""`mtf checkpoint export`: has the weights of a run written as a plain file.

``python -m mtf.trainer.export`` does it, in the environment of the run's jobs: this side knows no
torch.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf import proc
from mtf.commands.show_runs import rows_of
from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.ids import RunId, Token
from mtf.core.vocabulary.jobs import JobRequest, Resources, Task
from mtf.errors import EXIT_USAGE, MtfError
from mtf.executor.script import render
from mtf.project.run_lookup import find_run
from mtf.project.template_files import templates_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.core.vocabulary.records import Checkpoint, RunRecord
    from mtf.project.project import Project

SUFFIXES = (".pt", ".safetensors")
_SILENCE_S = 3600.0  # an export that prints nothing for so long is ended
_REMOVED = ("SLURM_", "SBATCH_", "MTF_")  # variables of a job that the command is run in


class TargetError(MtfError):
    """The file to write is named wrongly, or exists."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class Exported:
    """A written file of weights."""

    run: RunId
    file: Path  # its facts are beside it, in <file>.json
    checkpoint: Checkpoint
    tensors: int
    parameters: int
    bytes: int
    sha256: str
    has_average: bool  # the run also keeps averaged weights, which were not asked for


def export(
    project: Project, name: str, target: Path, *, best: bool, average: bool, force: bool
) -> Exported:
    """Write the weights of a run's newest checkpoint, or of its best one.

    Args:
        project: the repository.
        name: of the run.
        target: the file; its suffix decides the format.
        best: take the checkpoint with the best value of the monitored metric.
        average: take the averaged weights of ``callbacks.ema``.
        force: replace the file if it exists.

    Raises:
        TargetError: the file has another suffix or exists, or its folder does not.
        MtfError: there is no such run or checkpoint, or the weights could not be written.
    """
    _check_target(target, force=force)
    ledger = project.ledger()
    (row,) = rows_of(project, ledger, [find_run(ledger, name)]).rows
    record = row.record
    checkpoint = checkpoint_of(record, best=best)
    config = project.store().submission(ledger, record.submission).configs.get(record.member, {})
    request = {
        "checkpoint": checkpoint.path,
        "sha256": checkpoint.sha256,
        "target": str(target.absolute()),
        "average": average,
        "facts": _facts(record, checkpoint, config, average=average),
    }
    templates = templates_at(project.repo, record.commit)
    result = _run(request, record, config.get("slurm"), templates)
    return Exported(record.run, target, checkpoint, **result)


def checkpoint_of(record: RunRecord, *, best: bool) -> Checkpoint:
    """Return the newest checkpoint of a run, or its best one.

    Raises:
        MtfError: it has none, or the file is not there.
    """
    found = record.best_checkpoint if best else record.checkpoint
    if found is None:
        other = best and record.checkpoint is not None
        cure = " The newest one can be had without --best" if other else ""
        kind = "best checkpoint" if best else "checkpoint"
        raise MtfError(f"{record.run}: no {kind} yet ({record.state}).{cure}")
    if not Path(found.path).is_file():
        raise MtfError(
            f"{record.run}: its checkpoint {found.path} cannot be reached from this machine. Run"
            " the command where the run root is, or restore the file"
        )
    return found


def _check_target(target: Path, *, force: bool) -> None:
    if target.suffix not in SUFFIXES:
        raise TargetError(f"{target}: the name of the file must end in {' or '.join(SUFFIXES)}")
    if not target.absolute().parent.is_dir():
        raise TargetError(f"{target}: there is no folder {target.parent}. Make it first")
    if target.is_dir() or (target.exists() and not force):
        raise TargetError(f"{target} exists. Name another file, or add --force to replace it")


def _facts(
    record: RunRecord, checkpoint: Checkpoint, config: Mapping[str, Any], *, average: bool
) -> dict[str, Any]:
    place = {"epoch": checkpoint.epoch, "step": checkpoint.step}
    return {
        "run": record.run,
        "experiment": record.label,
        "commit": record.commit,
        "weights": "average" if average else "trained",
        "checkpoint": {**place, "path": checkpoint.path, "sha256": checkpoint.sha256},
        "best": {"name": record.best.name, "value": record.best.value} if record.best else None,
        "newest_metrics": dict(record.metrics),
        "config": dict(config),
    }


def _run(
    request: Mapping[str, Any],
    record: RunRecord,
    resources: Resources | None,
    templates: Mapping[str, str],
) -> dict[str, Any]:
    if resources is None:
        raise MtfError(f"{record.run}: the ledger has no configuration of it: see mtf doctor")
    scratch = Path(tempfile.mkdtemp(prefix="mtf-export-"))
    try:
        (scratch / "request.json").write_text(json_text.dumps(request), encoding="utf-8")
        script = scratch / "job.sh"
        script.write_text(_script(resources, scratch, templates), encoding="utf-8")
        env = {k: v for k, v in os.environ.items() if not k.startswith(_REMOVED)}
        env |= {"MTF_RUN_DIR": str(scratch), "MTF_JOB_ID": "export", "MTF_RESTARTS": "0"}
        log, command = scratch / "export.log", ("bash", str(script))
        for _ in proc.lines(command, silence_s=_SILENCE_S, log=log, env=env, cwd=scratch):
            pass
        return _result(scratch, log)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _result(scratch: Path, log: Path) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads((scratch / "result.json").read_text())
    except OSError:
        lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        reason = lines[-1] if lines else "it printed nothing"
        raise MtfError(f"the export could not run in the environment of jobs: {reason}") from None
    if "problem" in result:
        raise MtfError(result["problem"])
    return result


def _script(resources: Resources, scratch: Path, templates: Mapping[str, str]) -> str:
    """Return the script of a local job with one process, with the export in the trainer's place."""
    needs: Resources = {**resources, "nodes": 1, "ntasks_per_node": 1, "container": None}
    request = JobRequest(
        token=Token("export"),
        name="export",
        tasks=(Task(RunId("export"), 0, str(scratch)),),
        resources=needs,
        code_dir=str(scratch),
        job_dir=str(scratch),
        array=False,
        max_parallel=None,
        python=sys.executable,
        module="mtf.trainer.export",
    )
    return render(request, "local", templates)
