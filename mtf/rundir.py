"""Run folders: the paths in them, claims, the journal, configurations, and atomic file writes.

``mtf sync`` writes the configurations of all jobs of a request, and reads the journals. A job makes
and claims the folder of its run, and appends to the journal. The path of a run folder below the run
root is the run id.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import pwd
import re
import secrets
import stat
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

from mtf.core.vocabulary import json_text
from mtf.core.vocabulary.ids import is_job_id
from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from mtf.core.vocabulary.ids import CommitId, JobId, RunId, SubmissionId, Token

CONFIG = "config.yaml"
JOURNAL = "journal.jsonl"
CHECKPOINTS = "checkpoints"
LATEST = "latest.ckpt"
BEST = "best.ckpt"
CLAIMS = ".claims"
JOBS = ".jobs"
CONFIGS = "configs.jsonl"  # of a job request: one line with the configuration of each run
SCRIPT = "job.sbatch"  # of a job request
CODE = ".code"
FENCED = "fenced"  # the holder of a claim that no job may get any more
_LONGEST_HOLDER = 64  # bytes of a job's id


def run_dir(root: Path, run: RunId) -> Path:
    """Return the folder of a run."""
    return root.joinpath(*run.split("/"))


def root_of(folder: Path, run: RunId) -> Path:
    """Return the run root that the folder of a run is in."""
    return folder.parents[run.count("/")]


def submission_dir(root: Path, submission: SubmissionId) -> Path:
    """Return the folder of a submission; for a single experiment, that of its run."""
    return root.joinpath(*submission.split("/"))


def job_dir(root: Path, submission: SubmissionId, token: Token) -> Path:
    """Return the folder of a job request: its script, configurations and output."""
    return submission_dir(root, submission) / JOBS / token


def code_dir(root: Path, commit: CommitId) -> Path:
    """Return the read-only checkout of a commit, which all runs pinned to it share."""
    return root / CODE / commit


def code_manifest(root: Path, commit: CommitId) -> Path:
    """Return the manifest that proves the content of the checkout (see ``git_tree_ids``)."""
    return root / CODE / f"{commit}.json"


# -- a run root that several people share ----------------------------------------------------------


def make_shared(folder: Path, root: Path) -> None:
    """Make a folder below the run root, and those above it, with the group's rights of the root.

    A run root that a group may write is usable for all of the group, whatever the umask of the one
    who comes first. The folders of runs themselves follow the umask.

    Raises:
        OSError: it cannot be made.
    """
    if folder.is_dir():
        return
    if folder == root:
        folder.mkdir(parents=True, exist_ok=True)
        return
    make_shared(folder.parent, root)
    with suppress(FileExistsError):
        folder.mkdir()
        share(folder, root)


def share(place: Path, root: Path) -> None:
    """Give the group the rights on a folder or file of this user that it has on the run root."""
    found = place.stat().st_mode
    rights = root.stat().st_mode & (0o2070 if stat.S_ISDIR(found) else 0o060)
    if found | rights != found:
        place.chmod(stat.S_IMODE(found | rights))


def owner_of(place: Path) -> str:
    """Return the name of the user whom a file or folder belongs to, or "another user"."""
    for path in (place, *place.parents):
        with suppress(OSError, KeyError):
            return pwd.getpwuid(path.stat().st_uid).pw_name
    return "another user"


# -- claims ----------------------------------------------------------------------------------------


def claim(folder: Path, token: Token, holder: str) -> str:
    """Claim a run folder for the attempt ``token`` and return the holder of the claim.

    The first caller wins for ever: it gets its own ``holder`` back, also when the same job is
    requeued; all others get the winner's. Before the reconciler gives an attempt up, it claims the
    folder with ``FENCED``, so that a job of that attempt which starts late finds the folder taken.
    The claim is exclusive by link(2), which is atomic on NFS too.

    Raises:
        OSError: the folder cannot be written.
        MtfError: the claim holds something else than a job's id.
    """
    path = folder / CLAIMS / token
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    write_durably(temporary, holder.encode())
    # exists: another claim is in place; not found: its holder has removed our temporary file
    with suppress(FileExistsError, FileNotFoundError):
        os.link(temporary, path)
    remove_temporary_files(path)
    found = claim_holder(folder, token)
    if found is None:
        raise MtfError(f"{path}: not a claim of mtf. If no job of this run is running, remove it")
    return found


def claim_holder(folder: Path, token: Token) -> str | None:
    """Return the holder of the claim of an attempt, None if there is no claim.

    Only a job's id or ``FENCED`` is a holder: no other content of a file reaches the ledger.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        with (folder / CLAIMS / token).open("rb") as file:
            text = file.read(_LONGEST_HOLDER).decode(errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return text if text == FENCED or is_job_id(text) else None


# -- journal ---------------------------------------------------------------------------------------


def append_journal(
    folder: Path,
    event: str,
    fields: Mapping[str, Any],
    before_write: Callable[[], None] = lambda: None,
) -> None:
    """Append an event durably; ``mtf.core.planner.journal_reader`` lists the events.

    Each event is one ``write`` of one line in append mode, so a torn line costs that line only.
    ``before_write`` is called when the file is open; what it raises leaves the file as it is.

    Raises:
        OSError: the folder cannot be written.
    """
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    entry = {"event": event, "at": at, **fields}
    line = json_text.dumps(entry, ensure_ascii=False) + "\n"
    fd = os.open(folder / JOURNAL, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        before_write()
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            line = "\n" + line  # ends a torn line, so that this one stays whole
        raw = line.encode()
        if os.write(fd, raw) < len(raw):  # the disk is full; writing the rest might succeed
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder / JOURNAL))
        os.fsync(fd)
    finally:
        os.close(fd)


def read_journal(folder: Path | str) -> tuple[dict[str, Any], ...]:
    """Return the events of a run in the order they were written, without damaged lines."""
    try:
        with open(f"{folder}/{JOURNAL}", "rb") as file:  # noqa: PTH123 -- most runs have none yet
            raw = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return ()
    events = []
    for line in raw.split(b"\n"):
        try:
            event = json_text.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("event"), str):
            events.append(event)
    return tuple(events)


# -- configurations and links ----------------------------------------------------------------------


def write_configs(job_dir: Path, configs: Iterable[Mapping[str, Any]]) -> None:
    """Write the configurations of the tasks of a job request, in the order of their indices.

    Raises:
        OSError: the folder cannot be written.
    """
    write_atomically(
        job_dir / CONFIGS, "".join(f"{json_text.dumps(config)}\n" for config in configs).encode()
    )


def read_configs(job_dir: Path) -> list[dict[str, Any]]:
    """Return the configurations of all tasks of a job request.

    Raises:
        OSError, ValueError: the file cannot be read.
    """
    return [json.loads(line) for line in (job_dir / CONFIGS).read_bytes().splitlines()]


def read_config(job_dir: Path, index: int) -> dict[str, Any]:
    """Return the configuration of one task of a job request.

    Raises:
        OSError, ValueError: the file cannot be read, or has no such task.
    """
    with (job_dir / CONFIGS).open("rb") as file:
        config: dict[str, Any] = json.loads(next(islice(file, index, None), b""))
    return config


def fill_run_folder(folder: Path, job_dir: Path, job: JobId, config: Mapping[str, Any]) -> None:
    """Put the configuration into the folder of a run, and links to the job's script and output.

    Raises:
        OSError: the folder cannot be written.
    """
    text = render_yaml(config).encode()
    path = folder / CONFIG
    remove_temporary_files(path)
    if not path.exists() or path.read_bytes() != text:  # a retry may change resources
        write_atomically(path, text)
    _link(folder / f"{job}.sbatch", job_dir / SCRIPT)
    for err in (False, True):
        output = job_output(job_dir, job, err=err)
        _link(folder / output.name, output)


def _link(name: Path, file: Path) -> None:
    """Give a file, if it exists, another name: by a hard link, or else by a symbolic link.

    Some parallel file systems allow hard links within one folder only.
    """
    with suppress(FileExistsError, FileNotFoundError):
        try:
            name.hardlink_to(file)
        except (FileExistsError, FileNotFoundError):
            raise
        except OSError:
            name.symlink_to(file)


def job_output(job_dir: Path, job: JobId, *, err: bool = False) -> Path:
    """Return the file with the standard output of a job, or with its standard error."""
    return job_dir / f"{job}.{'err' if err else 'out'}"


# -- config.yaml -----------------------------------------------------------------------------------

_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# line breaks for YAML, or not allowed at all (Source: YAML 1.2, section 5.1)
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
# words that YAML 1.1 or 1.2 readers do not take for strings
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n"})


def render_yaml(value: Mapping[str, Any]) -> str:
    """Return a mapping of JSON values as block YAML 1.2 that reads back as the same values.

    Scalars and lists are written as JSON, which is valid YAML 1.2. ruamel.yaml takes 5 ms per file,
    too long for grids of thousands. Sections are cached, since members of a grid share most of
    them.
    """
    return "".join(_section(json_text.dumps({key: item})) for key, item in value.items()) or "{}\n"


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
    text = json_text.dumps(value, ensure_ascii=False)
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


# -- files -----------------------------------------------------------------------------------------


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Return a context whose errors name a file: a disk that is full names none."""
    try:
        yield
    except OSError as e:
        e.filename = e.filename or str(path)
        raise


def write_durably(path: Path, data: bytes) -> None:
    """Write a file and wait until its content, though perhaps not its name, is on disk."""
    with _naming(path), path.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def replace_durably(path: Path, data: bytes) -> None:
    """Replace a file durably: readers see the old content or the new one, never a part."""
    new = temporary_path(path)
    write_durably(new, data)
    new.replace(path)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file without waiting for the disk, for content that can be made again."""
    new = temporary_path(path)
    try:
        with _naming(path):
            new.write_bytes(data)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def temporary_path(path: Path) -> Path:
    """Return a new path in the same folder, to be renamed to ``path`` when it is complete."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def temporary_files(path: Path) -> list[Path]:
    """Return the temporary files of current and of killed writers of ``path``."""
    return list(path.parent.glob(f".{glob.escape(path.name)}.*"))


def remove_temporary_files(path: Path) -> None:
    """Remove the temporary files of all writers of ``path``.

    Call it only if no other writer may succeed: a writer that is still at work fails.
    """
    for temporary in temporary_files(path):
        temporary.unlink(missing_ok=True)
