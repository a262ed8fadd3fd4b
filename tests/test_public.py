"""`import mtf`: the public names, each imported when it is first used."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys

import pytest

import mtf
from tests.docs.pages import ROOT


def imported_for_type_checkers() -> set[str]:
    """Return the names that mypy and editors see in `mtf`."""
    tree = ast.parse(inspect.getsource(mtf))
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in guarded.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def test_the_names_that_mtf_lists_are_those_that_it_imports() -> None:
    names = {*mtf.__all__} - {"__version__"}
    assert names == set(mtf._HOMES) == imported_for_type_checkers()
    assert names <= {*dir(mtf)}


@pytest.mark.parametrize("name", mtf.__all__)
def test_a_public_name_can_be_imported_and_is_documented(name: str) -> None:
    value = getattr(mtf, name)
    assert isinstance(value, str) or inspect.getdoc(value), f"{name} has no docstring"


def test_the_reference_has_every_public_name_once() -> None:
    """And it names nothing of `mtf` that is not public."""
    pages = "".join(path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md")))
    entries = re.findall(r"^\.\. (?:auto\w+|data):: mtf\.(\w+)$", pages, re.MULTILINE)
    assert sorted(entries) == sorted(mtf.__all__)


def test_an_unknown_name_is_an_error_of_the_import() -> None:
    with pytest.raises(AttributeError, match="module 'mtf' has no attribute 'Trainer'"):
        mtf.Trainer  # noqa: B018


def test_import_mtf_imports_nothing_else_until_a_name_is_used() -> None:
    program = (
        "import sys, mtf\n"
        "print([n for n in sys.modules if n.startswith('mtf.')], 'torch' in sys.modules)\n"
        "from mtf import ModelTrainingFramework, TrainerConfig\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[] False\nFalse\n", "")
