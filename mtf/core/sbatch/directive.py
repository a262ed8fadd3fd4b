"""Writes values into `#SBATCH` lines."""

from __future__ import annotations

import re

from mtf.errors import MtfError


def directive(text: str) -> str:
    r"""Return text as one word of an ``#SBATCH`` line, quoted if needed.

    Raises:
        MtfError: quotes are not enough. (A backslash in a file name would turn off its patterns.)
    """
    if re.fullmatch(r"[A-Za-z0-9_./%+:,=@&|*!()\[\]-]+", text):
        return text
    if re.search(r"[\x00-\x1f\x7f\x85\u2028\u2029\"\\]", text):
        raise MtfError(f"{text!r} is not allowed in an #SBATCH line. Rename that folder or value")
    return f'"{text}"'
