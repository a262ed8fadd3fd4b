"""The one owner of paths and files in a run folder: names, claims and the journal.

Both sides use it: ``mtf sync`` writes down, once for all the jobs of a request, what each is to
run, and reads the journals; a job makes and claims its run's folder and appends to the journal. A
run folder mirrors the run id under the run root.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import re
import secrets
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from mtf.core.vocabulary.ids import CommitId, JobId, RunId, SubmissionId, Token

CONFIG = "config.yaml"
JOURNAL = "journal.jsonl"
CHECKPOINTS = "checkpoints"
LATEST = "latest.ckpt"
BEST = "best.ckpt"
CLAIMS = ".claims"
JOBS = ".jobs"
CONFIGS = "configs.jsonl"  # of a job request: the configuration of each of its runs, a line each
SCRIPT = "job.sbatch"  # of a job request
CODE = ".code"
FENCED = "fenced"  # holder of a claim that no job may have any more


def run_dir(root: Path, run: RunId) -> Path:
    """Return the folder of a run."""
    return root.joinpath(*run.split("/"))


def root_of(folder: Path, run: RunId) -> Path:
    """Return the run root that a run's folder lies in."""
    return folder.parents[run.count("/")]


def submission_dir(root: Path, submission: SubmissionId) -> Path:
    """Return the folder of a submission (for a single experiment, the run's own)."""
    return root.joinpath(*submission.split("/"))


def job_dir(root: Path, submission: SubmissionId, token: Token) -> Path:
    """Return the folder of one job request: its script, its runs' configurations, its output."""
    return submission_dir(root, submission) / JOBS / token


def code_dir(root: Path, commit: CommitId) -> Path:
    """Return the read-only checkout that all runs pinned to ``commit`` share."""
    return root / CODE / commit


def code_manifest(root: Path, commit: CommitId) -> Path:
    """Return the manifest beside the checkout that proves its content (see ``git_tree_ids``)."""
    return root / CODE / f"{commit}.json"


# -- claims ----------------------------------------------------------------------------------------


def claim(folder: Path, token: Token, holder: str) -> str:
    """Claim a run folder for the attempt ``token`` and return who holds it now.

    The first caller wins, for ever: it gets its own ``holder`` back, and so does the same job
    when it is requeued; everybody else gets the winner's. The reconciler claims with ``FENCED``
    before it gives an attempt up, so that a job of that attempt which wakes up late finds the
    folder taken. Exclusive by link(2), which is atomic on NFS too.

    Raises:
        OSError: the folder cannot be written.
    """
    path = folder / CLAIMS / token
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = beside(path)
    write_durably(mine, holder.encode())
    # taken; not found: the one that has taken it was faster, and has swept ours away
    with suppress(FileExistsError, FileNotFoundError):
        os.link(mine, path)
    sweep(path)
    return path.read_text(encoding="utf-8")


def claim_holder(folder: Path, token: Token) -> str | None:
    """Return who holds a run folder for an attempt, None while nobody does.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        return (folder / CLAIMS / token).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None


# -- journal ---------------------------------------------------------------------------------------


def append_journal(folder: Path, event: str, fields: Mapping[str, Any]) -> None:
    """Append one event durably; ``journal_reader`` in ``mtf.core.planner`` lists the events.

    One ``write`` of one line to a file opened for appending: a torn line costs that line only.

    Raises:
        OSError: the folder cannot be written.
    """
    fact = {"event": event, "at": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
    line = json.dumps(fact, ensure_ascii=False, allow_nan=True) + "\n"
    fd = os.open(folder / JOURNAL, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":  # a torn line: end it, keep ours whole
            line = "\n" + line
        raw = line.encode()
        if os.write(fd, raw) < len(raw):  # the rest would follow without an error: it is torn
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / JOURNAL))
        os.fsync(fd)
    finally:
        os.close(fd)


def read_journal(folder: Path) -> tuple[dict[str, Any], ...]:
    """Return a run's facts in the order they were written; damaged lines are left out."""
    try:
        raw = (folder / JOURNAL).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    facts = []
    for line in raw.split(b"\n"):
        try:
            fact = json.loads(line)
        except ValueError:
            continue
        if isinstance(fact, dict) and isinstance(fact.get("event"), str):
            facts.append(fact)
    return tuple(facts)


# -- what a job finds, and what it shows -----------------------------------------------------------


def put_configs(job_dir: Path, configs: Iterable[Mapping[str, Any]]) -> None:
    """Write down what the tasks of a job request are to run, in the order of their indices.

    Raises:
        OSError: the folder cannot be written.
    """
    put(job_dir / CONFIGS, "".join(f"{json.dumps(config)}\n" for config in configs).encode())


def read_configs(job_dir: Path) -> list[dict[str, Any]]:
    """Return what ``put_configs`` has written.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    return [json.loads(line) for line in (job_dir / CONFIGS).read_bytes().splitlines()]


def read_config(job_dir: Path, index: int) -> dict[str, Any]:
    """Return the configuration of one task of a job request.

    Raises:
        OSError, ValueError: it cannot be read, or has no such task.
    """
    with (job_dir / CONFIGS).open("rb") as file:
        config: dict[str, Any] = json.loads(next(islice(file, index, None), b""))
    return config


def show(folder: Path, job_dir: Path, job: JobId, config: Mapping[str, Any]) -> None:
    """Put into a run's folder what people look for there: configuration, script and output.

    Raises:
        OSError: the folder cannot be written.
    """
    text = render_yaml(config).encode()
    path = folder / CONFIG
    sweep(path)
    if not path.exists() or path.read_bytes() != text:  # a retry may change its resources
        put(path, text)
    _link(folder / f"{job}.sbatch", job_dir / SCRIPT)
    for err in (False, True):
        output = job_output(job_dir, job, err=err)
        _link(folder / output.name, output)


def _link(name: Path, file: Path) -> None:
    """Give a file, if it is there, another name: as one more entry of a folder, or else by a link.

    Some parallel file systems have the first within one folder only.
    """
    with suppress(FileExistsError, FileNotFoundError):
        try:
            name.hardlink_to(file)
        except (FileExistsError, FileNotFoundError):
            raise
        except OSError:
            name.symlink_to(file)


def job_output(job_dir: Path, job: JobId, *, err: bool = False) -> Path:
    """Return the file that an executor writes a job's output to."""
    return job_dir / f"{job}.{'err' if err else 'out'}"


# -- config.yaml -----------------------------------------------------------------------------------

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# YAML takes some of these for line breaks and refuses others (Source: YAML 1.2, section 5.1)
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
# what YAML 1.1 or 1.2 readers take for something else than text
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


def render_yaml(value: Mapping[str, Any]) -> str:
    """Return a mapping of JSON values as block YAML 1.2 that reads back as the same values.

    Scalars and lists are written as JSON, which YAML 1.2 contains; ruamel's own writer takes 5 ms
    a file, too long for grids of thousands. Members of a grid share most of their sections.
    """
    return "".join(_section(json.dumps({key: item})) for key, item in value.items()) or "{}\n"


@lru_cache(maxsize=512)
def _section(text: str) -> str:
    """Return a section, given as JSON, as YAML."""
    return "\n".join(_lines(json.loads(text), "")) + "\n"


def _lines(value: Mapping[str, Any], indent: str) -> list[str]:
    out = []
    for key, item in value.items():
        plain = _PLAIN_KEY.fullmatch(key) and key.lower() not in _WORDS
        name = key if plain else _json(key)
        if isinstance(item, dict) and item:
            out += [f"{indent}{name}:", *_lines(item, indent + "  ")]
        else:
            out.append(f"{indent}{name}: {_json(item)}")
    return out


def _json(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


# -- files -----------------------------------------------------------------------------------------


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and wait until its bytes are on disk (the name is not: see ``replace``)."""
    with path.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def replace(path: Path, data: bytes) -> None:
    """Put a whole file in place: readers see the old content or the new, never a part."""
    new = beside(path)
    write_durably(new, data)
    new.replace(path)


def put(path: Path, data: bytes) -> None:
    """Put a whole file in place without waiting for the disk: for what can be made again."""
    new = beside(path)
    new.write_bytes(data)
    new.replace(path)


def beside(path: Path) -> Path:
    """Return a name for what becomes ``path`` when it is whole."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def left_beside(path: Path) -> list[Path]:
    """Return what is to become ``path``, or was when its writer was killed."""
    return list(path.parent.glob(f".{glob.escape(path.name)}.*"))


def sweep(path: Path) -> None:
    """Remove the files that writers of ``path`` have left beside it.

    For whoever has the right to write it now: a writer that is still at it is shut out.
    """
    for left in left_beside(path):
        left.unlink(missing_ok=True)
