"""The options in a rendered job script, checked against those that mtf sets itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtf.core.sbatch.option_table import OPTIONS, Kind
from mtf.core.sbatch.read_script import JobOptions, Option, ScriptOptionError, read_script
from mtf.errors import MtfError
from mtf.executor.script import request_options
from mtf.executor.template_names import TEMPLATES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mtf.core.vocabulary.jobs import JobRequest

_TEMPLATE = f"templates/{TEMPLATES['slurm']}"
_ONE = {"no-requeue": "requeue"}  # the last of the two counts


def script_options(request: JobRequest, script: str) -> JobOptions:
    """Return the options that sbatch will read in the script of a request.

    Raises:
        MtfError: they cannot be read, or one that mtf sets is missing or has another value.
    """
    try:
        found = read_script(script)
    except ScriptOptionError as e:
        raise MtfError(f"{_TEMPLATE}: its script, line {e.line}: {e}") from e
    wanted, actual = _ours(request_options(request)), _ours(found.all)
    for name, option in actual.items():
        if name not in wanted or str(option) != str(wanted[name]):
            raise MtfError(
                f"{_TEMPLATE}: its script, line {option.line}: {option}: mtf sets --{name} itself."
                " Remove it"
            )
    if missing := [str(option) for name, option in wanted.items() if name not in actual]:
        raise MtfError(
            f"{_TEMPLATE}: its script lacks {missing[0]}. Take over the #SBATCH lines of mtf's own"
            " template"
        )
    return found


def _ours(options: tuple[Option, ...]) -> Mapping[str, Option]:
    """Return the options that mtf sets; of those that are repeated, the last."""
    ours = (o for o in options if o.is_known and OPTIONS[o.name].kind is Kind.OURS)
    return {_ONE.get(o.name, o.name): o for o in ours}
