"""Reads what a run has left that can be compared: metrics, final weights and environment."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtf import proc, rundir
from mtf.core.review.reproduction import Evidence
from mtf.core.vocabulary import json_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mtf.core.vocabulary.records import RunRecord

_SCALARS = "scalars.jsonl"
_DIGESTS = "mtf.trainer.verify.weights"
_LIMIT_S = 1800.0


def evidence_of(record: RunRecord, config: Mapping[str, Any]) -> Evidence:
    """Return the evidence of a run; ``config`` names the environment that reads its weights."""
    weights, digest, why = _weights(record, config)
    return Evidence(
        run=record.run,
        rows=_rows(Path(record.run_dir) / _SCALARS),
        weights=weights,
        weights_sha256=digest,
        why_no_weights=why,
        environment=_environment(record),
    )


def _rows(path: Path) -> list[dict[str, Any]] | None:
    """Return the rows of scalars, without damaged lines; None if there is no such file."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return None
    rows = []
    for line in lines:
        try:
            rows.append(json_text.loads(line))
        except ValueError:
            continue
    return [row for row in rows if isinstance(row, dict)]


def _weights(
    record: RunRecord, config: Mapping[str, Any]
) -> tuple[dict[str, str] | None, str | None, str]:
    """Return the digests of the final weights, or the reason why there are none."""
    checkpoint = record.checkpoint
    if checkpoint is None:
        return None, None, f"{record.run} has saved no checkpoint"
    if not Path(checkpoint.path).exists():
        return None, None, f"the last checkpoint of {record.run} is gone"
    environment = config.get("slurm", {}).get("venv")
    own = Path(environment, "bin", "python") if environment else None
    python = str(own) if own is not None and own.exists() else sys.executable
    command = (python, "-m", _DIGESTS, checkpoint.path, checkpoint.sha256)
    try:
        done = proc.run(command, timeout_s=_LIMIT_S)
    except (proc.ProgramMissingError, proc.ProgramTimeoutError) as e:
        return None, None, f"{checkpoint.path} cannot be read here: {e}"
    if done.code:
        said = done.stderr.strip().splitlines() or [f"exit code {done.code}"]
        return None, None, f"{checkpoint.path} cannot be read here: {said[-1]}"
    found = json_text.loads(done.stdout.strip().splitlines()[-1])
    return dict(found["tensors"]), str(found["sha256"]), ""


def _environment(record: RunRecord) -> dict[str, str]:
    """Return the facts that a run's newest job has reported about its environment, by name."""
    try:
        events = rundir.read_journal(Path(record.run_dir))
    except OSError:
        return {}
    newest = {e["event"]: e for e in events if e["event"] in ("started", "proof")}
    return dict(_facts(newest.get("started", {}), newest.get("proof", {})))


def _facts(started: Mapping[str, Any], proof: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("world_size", "host"):
        if name in started:
            yield name, str(started[name])
    if "python" in proof:
        yield "python", str(proof["python"])
    packages, machine = proof.get("packages"), proof.get("machine")
    for name, version in (packages if isinstance(packages, dict) else {}).items():
        yield f"package {name}", str(version)
    for name, value in (machine if isinstance(machine, dict) else {}).items():
        yield str(name), str(value)
