"""Renders job scripts from templates, and refuses those that a job could not run from: pure text.

The templates that mtf ships are in ``templates/``; the user's repository may replace each.
"""

from __future__ import annotations

import re
import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from mtf.core.causes import CONTINUE_EXIT_CODE
from mtf.core.ids import job_name
from mtf.errors import MtfError
from mtf.resources import data_dir

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.core.jobs import JobRequest, Resources

Kind = Literal["slurm", "local"]
TEMPLATES: Mapping[Kind, str] = {"slurm": "job.sbatch.j2", "local": "local.sh.j2"}


def render(request: JobRequest, kind: Kind, own: Mapping[str, str] | None = None) -> str:
    """Return the script of a job request.

    Args:
        request: what is submitted.
        kind: for which executor.
        own: texts of the user's templates by their names; each replaces the one of mtf.

    Raises:
        MtfError: a template is broken, or its script could not work; name and line are said.
    """
    from jinja2 import (
        ChoiceLoader,
        DictLoader,
        Environment,
        FileSystemLoader,
        StrictUndefined,
        TemplateError,
        TemplateSyntaxError,
    )

    name = TEMPLATES[kind]
    jinja = Environment(
        loader=ChoiceLoader([DictLoader(dict(own or {})), FileSystemLoader(data_dir("templates"))]),
        undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True,  # noqa: S701
        keep_trailing_newline=True,
    )  # fmt: skip
    jinja.filters["quote"] = lambda value: shlex.quote(str(value))
    try:
        text = jinja.get_template(name).render(_values(request, kind))
    except TemplateSyntaxError as e:
        raise MtfError(f"templates/{e.name or name}:{e.lineno}: {e.message}") from e
    except TemplateError as e:
        raise MtfError(f"templates/{name}: {e}. Compare it with mtf's own template") from e
    check_script(text, kind)
    return text


def _values(request: JobRequest, kind: Kind) -> dict[str, Any]:
    return {
        "job_name": job_name(request.name, request.token),
        "token": request.token,
        "name": request.name,
        "options": slurm_options(request) if kind == "slurm" else [],
        "array": request.array,
        "job_dir": request.job_dir,
        "run_dir": request.tasks[0].run_dir,
        "code_dir": request.code_dir,
        "nodes": request.resources["nodes"],
        "resources": request.resources,
        "command": _command(request),
        "continue_code": CONTINUE_EXIT_CODE,
    }


def _command(request: JobRequest) -> str:
    """Return the quoted words that start the trainer; the run folder follows them."""
    needs = request.resources
    own = needs["venv"] or needs["conda"] or needs["container"]
    words = ["python" if own else request.python, "-m", "mtf.trainer"]
    if needs["container"]:
        # the run root and the checkout are bound: they hold all that a job reads and writes
        root = str(PurePosixPath(request.code_dir).parents[1])
        bind = ["--bind", root, "--pwd", request.code_dir]
        words = ["apptainer", "exec", *bind, needs["container"], *words]
    return shlex.join(words)


_FLAGS: Mapping[str, str] = {
    "partition": "--partition", "account": "--account", "qos": "--qos", "mem": "--mem",
    "time": "--time", "constraint": "--constraint", "reservation": "--reservation",
}  # fmt: skip


def slurm_options(request: JobRequest) -> list[str]:
    """Return the ``#SBATCH`` options of a request. Source: sbatch(1)."""
    needs: Resources = request.resources
    options = [
        f"--nodes={needs['nodes']}",
        f"--ntasks-per-node={needs['ntasks_per_node']}",
        f"--cpus-per-task={needs['cpus_per_task']}",
    ]
    given: dict[str, Any] = dict(needs)
    options += [f"{flag}={_word(given[key])}" for key, flag in _FLAGS.items() if given[key]]
    if needs["gpus_per_node"]:
        options.append(f"--gpus-per-node={needs['gpus_per_node']}")
    if needs["time"]:
        # without `B:`: to the steps, so that every rank hears it (SLURM rounds up to a minute)
        options.append(f"--signal=USR1@{needs['signal_lead']}")
    options.append("--requeue" if needs["requeue"] else "--no-requeue")
    options += ["--open-mode=append", *_outputs(request)]
    return [*options, *needs["extra"]]


def _outputs(request: JobRequest) -> list[str]:
    if not request.array:
        base = f"{_path(request.tasks[0].run_dir)}/%j"
        return [f"--output={_word(base + '.out')}", f"--error={_word(base + '.err')}"]
    base = f"{_path(request.job_dir)}/%a/%A_%a"
    array = _ranges([task.index for task in request.tasks])
    throttle = f"%{request.max_parallel}" if request.max_parallel else ""
    return [
        f"--array={array}{throttle}",
        f"--output={_word(base + '.out')}",
        f"--error={_word(base + '.err')}",
    ]


def _path(path: str) -> str:
    """Return a path in which sbatch sees no pattern. Source: sbatch(1), filename pattern."""
    return path.replace("%", "%%")


def _word(text: str) -> str:
    """Return one word of an ``#SBATCH`` line, which knows double quotes and backslashes."""
    if re.fullmatch(r"[A-Za-z0-9_./%+:,=@&|*!()\[\]-]+", text):
        return text
    if "\n" in text or '"' in text:
        raise MtfError(f"{text!r}: cannot stand in an #SBATCH line. Rename that folder or value")
    return f'"{text}"'


def _ranges(indices: list[int]) -> str:
    """Return indices as sbatch takes them: ``0-3,7``."""
    parts: list[list[int]] = []
    for index in sorted(indices):
        if parts and parts[-1][-1] == index - 1:
            parts[-1][1:] = [index]
        else:
            parts.append([index])
    return ",".join("-".join(map(str, part)) for part in parts)


def check_script(text: str, kind: Kind) -> None:
    """Refuse a script that could not work as a job of this kind.

    Raises:
        MtfError: the template, the line, and what to change.
    """
    name = f"templates/{TEMPLATES[kind]}"
    if "\r" in text:
        line = text[: text.index("\r")].count("\n") + 1
        raise MtfError(f"{name}:{line}: Windows line ends, which sbatch refuses. Save it with LF")
    lines = text.splitlines()
    if not lines or not lines[0].startswith("#!"):
        raise MtfError(f"{name}:1: the first line must name the shell, like #!/bin/bash")
    if "mtf.trainer" not in text:
        raise MtfError(f"{name}: nothing starts the trainer. Put {{{{ command }}}} in it")
    if kind == "slurm":
        _check_directives(name, lines)


def _check_directives(name: str, lines: list[str]) -> None:
    body = False
    for number, line in enumerate(lines[1:], 2):
        if not line.startswith("#SBATCH"):
            body = body or bool(line.strip() and not line.startswith("#"))
        elif body:
            raise MtfError(f"{name}:{number}: sbatch ignores #SBATCH lines after a command")
        elif re.search(r"--(no-)?requeue=", line):
            raise MtfError(f"{name}:{number}: --requeue takes no value: sbatch would refuse it")
    if not any(re.match(r"\s*(exec )?srun\s", line) for line in lines):
        raise MtfError(f"{name}: without srun the trainer does not hear SLURM's signals in time")
