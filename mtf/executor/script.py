"""Renders job scripts from templates, and refuses scripts that could not work.

mtf's templates are in ``templates/``; the user's repository may replace each of them.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from mtf.core.sbatch.directive import directive
from mtf.core.sbatch.read_script import Option
from mtf.core.sbatch.section_options import EXPEDITE, section_options
from mtf.core.vocabulary.causes import CONTINUE_EXIT_CODE
from mtf.core.vocabulary.ids import job_name
from mtf.errors import MtfError
from mtf.executor.array_indices import render_indices
from mtf.executor.template_names import TEMPLATES, own_templates, shipped_templates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mtf.core.vocabulary.jobs import JobRequest
    from mtf.executor.template_names import Kind

FOLDERS = "folders"  # file beside a script: a line for each task of an array, index and run folder


def render(
    request: JobRequest,
    kind: Kind,
    templates: Mapping[str, str] | None = None,
    cache: Path | None = None,
    *,
    context: Mapping[str, Any] | None = None,
) -> str:
    """Return the script of one job request; see ``render_all``.

    Raises:
        MtfError: a template has an error, or its script could not work; with name and line.
    """
    (script,) = render_all([request], kind, templates, cache, context=context)
    if isinstance(script, MtfError):
        raise script
    return script


def render_all(
    requests: Sequence[JobRequest],
    kind: Kind,
    templates: Mapping[str, str] | None = None,
    cache: Path | None = None,
    *,
    context: Mapping[str, Any] | None = None,
) -> list[str | MtfError]:
    """Return the scripts of job requests. In place of one that could not work, there is its error.

    Args:
        requests: the jobs to submit.
        kind: the executor.
        templates: the user's own, text by name; each replaces the one of mtf.
        cache: private folder for compiled templates of mtf.
        context: further values for the templates, before those of mtf.

    Raises:
        MtfError: the templates take too much time or memory.
    """
    from mtf.executor.sandbox import render_apart, render_texts

    name, values = TEMPLATES[kind], [_values_or_error(request, kind) for request in requests]
    valid = [{**each, **(context or {})} for each in values if not isinstance(each, MtfError)]
    if own := own_templates(templates or {}):
        found = iter(render_apart(name, {**shipped_templates(), **own}, valid))
    else:
        found = iter(render_texts(name, shipped_templates(), valid, cache))
    texts = (each if isinstance(each, MtfError) else next(found) for each in values)
    return [_checked(text, kind) for text in texts]


def _values_or_error(request: JobRequest, kind: Kind) -> dict[str, Any] | MtfError:
    try:
        return _values(request, kind)
    except MtfError as e:
        return e


def _checked(text: str | MtfError, kind: Kind) -> str | MtfError:
    """Return a script, or the error for which it could not work."""
    try:
        if isinstance(text, str):
            check_script(text, kind)
    except MtfError as e:
        return e
    return text


def _values(request: JobRequest, kind: Kind) -> dict[str, Any]:
    for name in request.resources["variables"]:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise MtfError(f"slurm.variables: {name!r} is not a valid environment variable name")
    return {
        "job_name": job_name(request.name, request.token),
        "token": request.token,
        "name": request.name,
        "options": slurm_options(request) if kind == "slurm" else [],
        "srun_options": _srun_options(request),
        "array": request.array,
        "job_dir": request.job_dir,
        "folders": FOLDERS,
        "index": request.tasks[0].index,
        "run_dir": request.tasks[0].run_dir,
        "code_dir": request.work_dir,
        "import_path": request.import_path,
        "nodes": request.resources["nodes"],
        "resources": request.resources,
        "command": _command(request, kind),
        "continue_code": CONTINUE_EXIT_CODE,
    }


def _srun_options(request: JobRequest) -> str:
    needs = request.resources
    options = [
        "--export=ALL",
        f"--cpus-per-task={int(needs['cpus_per_task'])}",  # newer sruns do not inherit it
        "--kill-on-bad-exit=1",  # otherwise the other ranks would wait for ever
    ]
    if _is_pyxis(needs["container"]):
        root = _run_root(request)
        options += [
            f"--container-image={needs['container']}",
            f"--container-mounts={root}:{root}",
            f"--container-workdir={request.work_dir}",
        ]
    return shlex.join(options)


def _command(request: JobRequest, kind: Kind) -> str:
    """Return the shell words that start the trainer; the run folder is appended to them."""
    needs = request.resources
    has_environment = needs["venv"] or needs["conda"] or needs["container"]
    python = "python" if has_environment else request.python
    trainer = shlex.join([python, "-m", request.module])
    image, starter = needs["container"], _rank_starter(request) if kind == "local" else ""
    if image is None:
        return starter + trainer
    if _is_pyxis(image):
        if kind == "local":
            raise MtfError(
                f"slurm.container: {image} needs SLURM's pyxis. Use a .sif file with local runs"
            )
        return trainer
    options = ["--bind", _run_root(request), "--pwd", request.work_dir]
    options += ["--nv"] if needs["gpus_per_node"] else []
    runtime = '"$(command -v apptainer || command -v singularity || echo apptainer)"'
    return f"{starter}{runtime} exec {shlex.join([*options, image])} {trainer}"


def _rank_starter(request: JobRequest) -> str:
    """Return the words that start several processes of a command on this machine, if it needs so.

    SLURM's ``srun`` starts them itself.
    """
    ranks = int(request.resources["ntasks_per_node"])
    if ranks == 1:
        return ""
    program = Path(__file__).parent / "local" / "start_ranks.py"
    return f"{shlex.join([request.python, '-I', str(program), str(ranks)])} "


def _is_pyxis(image: str | None) -> bool:
    """Return True for an image that needs pyxis: ``registry#image`` or a ``.sqsh`` file."""
    return image is not None and ("#" in image or image.endswith(".sqsh"))


def _run_root(request: JobRequest) -> str:
    """Return the folder that contains everything that a job reads and writes."""
    return str(PurePosixPath(request.code_dir).parents[1])


def request_options(request: JobRequest) -> tuple[Option, ...]:
    """Return the options that a request's script has, without ``slurm.extra``."""
    own = [Option("job-name", job_name(request.name, request.token))]
    own.append(Option("comment", f"mtf:{request.token}"))
    base = f"{_path(request.job_dir)}/{'%A_%a' if request.array else '%j'}"
    outputs = [Option("output", f"{base}.out"), Option("error", f"{base}.err")]
    if request.array:
        array = render_indices(task.index for task in request.tasks)
        throttle = f"%{request.max_parallel}" if request.max_parallel else ""
        outputs.insert(0, Option("array", f"{array}{throttle}"))
    return (*own, *section_options(request.resources), Option("open-mode", "append"), *outputs)


def slurm_options(request: JobRequest) -> list[str]:
    """Return the words of the ``#SBATCH`` lines, without name and comment. Source: sbatch(1)."""
    options = request_options(request)[2:]
    words = (f"--{o.name}" + (f"={directive(o.value)}" if o.value else "") for o in options)
    return [*words, *map(_option, request.resources["extra"])]


def _path(path: str) -> str:
    """Return a path with its % escaped for sbatch. Source: sbatch(1), filename pattern."""
    return path.replace("%", "%%")


def _option(text: str) -> str:
    """Return an option of ``slurm.extra``, if it is a single sbatch option."""
    if not re.fullmatch(r"--[a-z][a-z0-9-]*(=[A-Za-z0-9_.@:/+,=%*&|()\[\]-]+)?", text):
        raise MtfError(f"slurm.extra: expected one sbatch option like --exclusive, got {text!r}")
    return text


def check_script(text: str, kind: Kind) -> None:
    """Refuse a script that could not work as a job of this kind.

    Raises:
        MtfError: with the template, the line, and what to change.
    """
    name = f"templates/{TEMPLATES[kind]}"
    try:
        text.encode()
    except UnicodeEncodeError as e:
        raise MtfError(f"{name}: {text[e.start]!r} cannot be written as UTF-8. Remove it") from e
    if "\r" in text:
        line = text[: text.index("\r")].count("\n") + 1
        raise MtfError(f"{name}:{line}: sbatch refuses Windows line endings. Save the file with LF")
    lines = text.splitlines()
    if not lines or not lines[0].startswith("#!"):
        raise MtfError(f"{name}:1: the first line must name the shell. Write #!/bin/bash")
    commands = [line for line in lines if not line.lstrip().startswith("#")]
    if not any("mtf.trainer" in line for line in commands):
        raise MtfError(f"{name}: no line starts the trainer. Add a line with {{{{ command }}}}")
    if kind == "slurm":
        _check_directives(name, lines)
        if not any(re.search(r"(^|[\s;&|(])srun\s", line) for line in commands):
            raise MtfError(
                f"{name}: no line starts srun, so the trainer would miss SLURM's signals. Write"
                " srun before {{ command }}"
            )


def _check_directives(name: str, lines: list[str]) -> None:
    body = False
    for number, line in enumerate(lines[1:], 2):
        if not line.startswith("#SBATCH"):
            body = body or bool(line.strip() and not line.startswith("#"))
        elif body:
            raise MtfError(
                f"{name}:{number}: sbatch ignores #SBATCH lines after a command. Move it up"
            )
        elif re.search(rf"--(no-)?requeue=(?!{EXPEDITE}\b)", line):
            raise MtfError(
                f"{name}:{number}: --requeue takes no value. Write --requeue or --no-requeue"
            )
