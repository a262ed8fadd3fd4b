"""Renders templates in Jinja's sandbox, where an expression reaches nothing but its values.

Templates that are not mtf's own are rendered in a process of their own, with an empty environment,
and with limits on time, memory and size: `python -m mtf.executor.sandbox`.
"""

from __future__ import annotations

import json
import resource
import shlex
import sys
import traceback
from typing import TYPE_CHECKING, Any

from jinja2 import FunctionLoader, StrictUndefined, TemplateNotFound, TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mtf import proc
from mtf.core.sbatch.directive import directive
from mtf.core.vocabulary import json_text
from mtf.errors import MtfError
from mtf.executor.template_cache import CompiledTemplates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_GLOBALS = ("dict", "namespace", "range")  # of Jinja's; the others are classes and functions
_MOST_BYTES = 1 << 20  # of one script; sbatch takes 4 MiB by default
_CPU_S = 10  # for all scripts of a submission, and 1 more for each 100
_MEMORY_BYTES = 1 << 30
_PATIENCE_S = 300.0


def render_texts(
    template: str,
    sources: Mapping[str, str],
    values: Sequence[Mapping[str, Any]],
    cache: Path | None = None,
) -> list[str | MtfError]:
    """Return the text of a template for each set of values, or the error with its name and line.

    Args:
        template: the name of the template.
        sources: the texts of all templates by name; nothing else can be included.
        values: JSON values by name, for each text.
        cache: private folder for compiled templates.
    """

    def source(name: str) -> tuple[str, str, None] | None:
        return (sources[name], f"templates/{name}", None) if name in sources else None

    jinja = ImmutableSandboxedEnvironment(
        loader=FunctionLoader(source),
        undefined=StrictUndefined,
        autoescape=False,  # a shell script, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        bytecode_cache=CompiledTemplates(cache) if cache else None,
    )
    jinja.globals = {name: jinja.globals[name] for name in _GLOBALS}
    jinja.filters |= {"quote": lambda value: shlex.quote(str(value)), "directive": directive}
    return [_text_or_error(jinja, template, each) for each in values]


def _text_or_error(
    jinja: ImmutableSandboxedEnvironment, template: str, values: Mapping[str, Any]
) -> str | MtfError:
    try:
        return _rendered(jinja, template, values)
    except TemplateSyntaxError as e:
        name = (e.name or template).removeprefix("templates/")
        return MtfError(f"templates/{name}:{e.lineno}: {e.message}")
    except TemplateNotFound as e:
        what = f"the commit has no template {e.name!r}, and nothing else can be included"
        return MtfError(f"{_position(e, template)}: {what}")
    except MemoryError as e:
        return MtfError(f"{_position(e, template)}: it needs more than 1 GiB. Simplify it")
    except MtfError as e:
        return e
    except Exception as e:  # noqa: BLE001 -- a template's expressions may raise anything
        what = str(e).rstrip(".") or type(e).__name__
        return MtfError(f"{_position(e, template)}: {what}. Compare it with mtf's own template")


def _rendered(
    jinja: ImmutableSandboxedEnvironment, template: str, values: Mapping[str, Any]
) -> str:
    parts: list[str] = []
    size = 0
    for part in jinja.get_template(template).generate(values):
        parts.append(part)
        size += len(part)
        if size > _MOST_BYTES:
            raise MtfError(f"templates/{template}: a script of more than 1 MiB. Shorten it")
    return "".join(parts)


def _position(error: Exception, template: str) -> str:
    """Return the template and line that an error comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [f"{f.filename}:{f.lineno}" for f in frames if f.filename.startswith("templates/")]
    return lines[-1] if lines else f"templates/{template}"


# -- in a process of its own -----------------------------------------------------------------------


def render_apart(
    template: str,
    sources: Mapping[str, str],
    values: Sequence[Mapping[str, Any]],
    cpu_s: int = _CPU_S,
) -> list[str | MtfError]:
    """Return the texts of ``render_texts``, from a process that has nothing of this one.

    ``cpu_s`` limits its seconds of CPU time.

    Raises:
        MtfError: a template takes too much time or memory.
    """
    question = {"template": template, "sources": dict(sources), "values": list(values)}
    asked = json_text.dumps([cpu_s + len(values) // 100, question])
    command = (sys.executable, "-I", "-X", "utf8", "-m", "mtf.executor.sandbox")
    try:
        answer = proc.run(command, timeout_s=_PATIENCE_S, stdin=asked, env={})
    except proc.ProgramTimeoutError:
        answer = proc.Output(1, "", "")
    found = json.loads(answer.stdout) if answer.code == 0 else {}
    if "texts" not in found:
        why = answer.stderr.strip().splitlines()[-1:] or ["killed"]
        raise MtfError(
            f"templates/{template}: rendering takes more than {cpu_s} s or 1 GiB ({why[0]})."
            " Simplify its loops"
        )
    return [each["text"] if "text" in each else MtfError(each["error"]) for each in found["texts"]]


def _main() -> None:
    seconds, question = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # of files; the answer goes into a pipe
    texts = [
        {"error": str(text)} if isinstance(text, MtfError) else {"text": text}
        for text in render_texts(**question)
    ]
    sys.stdout.write(json_text.dumps({"texts": texts}))


if __name__ == "__main__":
    _main()
