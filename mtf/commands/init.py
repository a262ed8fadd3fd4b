"""Scaffolds a project: a repository or a folder of one. Existing files are never overwritten."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtf import proc
from mtf.commands.hooks.install import shipped_hooks
from mtf.core.vocabulary import json_text
from mtf.errors import MtfError, RepositoryError, SpecError
from mtf.git.repo import GitRepo
from mtf.packaged_files import data_dir
from mtf.project import editor_schemas
from mtf.project.editor_schemas import modeline
from mtf.project.location.folder import beside_folders
from mtf.project.location.remote import default_remote
from mtf.project.settings_file import SETTINGS
from mtf.spec.schema.settings import parse_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SETTINGS = """\
# Settings of this experiments repository. Every key has a default; an unknown key is an error.
{branch} # the tracked branch: the specs at its tip are what runs
{remote} # by default that of the tracked branch; null: this clone alone
runs_root: runs         # folder of all runs; on a cluster, a path that the compute nodes share
executor: auto          # slurm if sbatch is there, else local
local: {{max_parallel: 2}}
# slurm: {{partition: gpu, account: lab}}    # defaults under every spec's own `slurm`
# environment: {{venv: null, conda: null, modules: [], container: null, variables: {{}}}}
retry: {{max_attempts: 3, on: [node-failure, preempted, time-limit], backoff: 60}}
"""
_IGNORED = """\
/runs/
__pycache__/
.venv/
"""
_TEMPLATES = """\
Job scripts are rendered from the templates that mtf ships. To change one, put a file of the same
name here and commit it: `job.sbatch.j2` (SLURM), `local.sh.j2` (the local executor),
`environment.sh.j2` (modules, venv, conda, container: included by both).
"""
_WORDS = ("true", "false", "null", "none", "yes", "no", "on", "off", "y", "n")  # not text in YAML
_DEMO = ("digits_baseline.yaml", "digits_search.yaml")
_EXPERIMENT = """\
# A first experiment: commit it, then `mtf plan` and `mtf sync`.
kind: experiment
experiment_name: first
model: {type: mlp, hidden_size: 64, num_layers: 2}
data: {dataset_name: digits, num_workers: 0}
training: {max_epochs: 5, batch_size: 32, use_amp: false, seed: 0}
optimizer: {type: adamw, lr: 1e-3}
slurm: {cpus_per_task: 1, mem: 2G, time: "00:10:00"}
"""


@dataclass(frozen=True)
class Made:
    """The result of scaffolding: new files, and what the user should know about the settings."""

    files: tuple[str, ...]  # relative to the project's folder
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Repository:
    """The repository that a project is made in."""

    branch: str  # that is checked out, or a new one
    remotes: frozenset[str] = frozenset()
    tracked: str | None = None  # the remote of the branch
    default_branch: str | None = None  # of the remote, if it is known here


def init(folder: Path, *, demo: bool) -> Made:
    """Scaffold a project in ``folder``: the top of a repository, or a folder of a larger one.

    A folder outside of any repository becomes one. The tracked branch is the one that is checked
    out.

    Raises:
        MtfError: the folder cannot be written, the repository has another project, or git fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        repository = _repository(folder)
        has_settings = (folder / SETTINGS).exists()
        files = _write(folder, _settings(repository), demo=demo)
    except OSError as e:
        raise MtfError(f"{e.filename}: {e.strerror}") from e
    return Made(tuple(files), () if has_settings else tuple(_notes(repository)))


def _repository(folder: Path) -> _Repository:
    """Return the repository that contains ``folder``; make one if there is none."""
    up = _git(folder, "rev-parse", "--show-cdup")
    if up is None and (folder / ".git").exists():
        GitRepo(folder)  # raises, and says why git refuses it
    if up is None:
        branch = _git(folder, "config", "init.defaultBranch") or "main"
        made = proc.run(("git", "init", "--quiet", "-b", branch, str(folder)), timeout_s=30)
        if made.code:
            raise MtfError(f"git init: {made.stderr.strip()}")
        return _Repository(branch)
    _check_alone(folder, (folder / up).resolve())
    remotes = frozenset((_git(folder, "remote") or "").split())
    current = _git(folder, "symbolic-ref", "--quiet", "--short", "HEAD")
    tracked = _git(folder, "config", f"branch.{current}.remote")
    head = f"refs/remotes/{tracked if tracked in remotes else 'origin'}/HEAD"
    default = (_git(folder, "symbolic-ref", "--quiet", head) or "").removeprefix(head[:-4])
    return _Repository(current or default or "main", remotes, tracked, default or None)


def _check_alone(folder: Path, top: Path) -> None:
    """Refuse a second project in a repository.

    Raises:
        MtfError: there is a project around the folder, or elsewhere.
    """
    around = own = folder.resolve()
    while around != top:
        around = around.parent
        if (around / SETTINGS).is_file():
            raise MtfError(
                f"{folder} is inside the project in {around}, whose {SETTINGS} holds for it."
                f" To complete that project, run mtf init {around}"
            )
    if (own / SETTINGS).exists():
        return
    listing = ("ls-files", "-z", "--full-name", "--cached", "--others", "--exclude-standard")
    found = (_git(folder, *listing, "--", f":(top,glob)**/{SETTINGS}") or "").split("\0")
    folders = [path.removesuffix(SETTINGS).rstrip("/") for path in found if path]
    if warning := beside_folders(own.relative_to(top).as_posix().removeprefix("."), folders):
        raise MtfError(f"{folder}: {warning}")


def _git(folder: Path, *args: str) -> str | None:
    """Return the output of git, None if it fails."""
    done = proc.run(("git", "-C", str(folder), *args), timeout_s=30)
    return None if done.code else done.stdout.strip()


def _settings(repository: _Repository) -> str:
    """Return the text of new settings, with the branch and the remote of the repository."""
    try:
        found = default_remote(repository.branch, repository.remotes, repository.tracked)
    except RepositoryError:  # several: ``_notes`` asks for one
        found = None
    branch = f"branch: {_yaml(repository.branch)}".ljust(23)
    remote = f"# remote: {_yaml(found or 'origin')}".ljust(23)
    return _SETTINGS.format(branch=branch, remote=remote)


def _yaml(text: str) -> str:
    """Return a word as YAML, in quotes if it would be read as something else."""
    is_plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", text) and text.lower() not in _WORDS
    return text if is_plain else json_text.dumps(text)


def _notes(repository: _Repository) -> Iterator[str]:
    """Yield notes about the settings that were written."""
    branch, default = repository.branch, repository.default_branch
    try:
        parse_settings(f"branch: {json_text.dumps(branch)}".encode())
    except SpecError as e:
        yield f"{SETTINGS}: {e.problems[0].message}. Rename the branch: git branch -m NAME"
    if default and default != branch:
        yield (
            f"{SETTINGS} tracks the branch that is checked out, {branch}: the experiments at its"
            f" tip are what runs. For the remote's default branch, write `branch: {default}`"
        )
    try:
        default_remote(branch, repository.remotes, repository.tracked)
    except RepositoryError as e:
        yield str(e)


def _write(folder: Path, settings: str, *, demo: bool) -> list[str]:
    texts = {SETTINGS: settings, ".gitignore": _IGNORED, "templates/README.md": _TEMPLATES}
    copies = {f"hooks/{p.name}": p for p in shipped_hooks()}
    if demo:
        shipped = data_dir("experiments")
        texts |= {f"experiments/{name}": (shipped / name).read_text("utf-8") for name in _DEMO}
    else:
        texts["experiments/first.yaml"] = _EXPERIMENT
    texts = {
        name: modeline(name) + text if name.endswith(".yaml") else text
        for name, text in texts.items()
    }
    made = editor_schemas.write(folder)
    for name, text in texts.items():
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
            made.append(name)
    for name, source in copies.items():
        if not (folder / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
            made.append(name)
    return sorted(made)
