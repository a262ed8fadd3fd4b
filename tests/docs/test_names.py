"""What the documents name exists: tests, commands of the command line, pages."""

from __future__ import annotations

import ast
import re

import pytest

from mtf.cli.main import COMMANDS
from tests.docs.pages import ROOT, pages

_TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[\w-]*)?\)")


@pytest.mark.parametrize("page", [*pages(), "CHANGELOG.md"])
def test_the_tests_and_files_that_a_page_names_exist(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    missing = [f"{name}::{test}" for name, test in _TEST.findall(text) if not defines(name, test)]
    links = [
        link for link in _LINK.findall(text) if not (ROOT / page).parent.joinpath(link).exists()
    ]
    assert (missing, links) == ([], [])


def defines(name: str, test: str) -> bool:
    path = ROOT / name
    if not path.exists():
        return False
    tree = ast.parse(path.read_text("utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == test for node in ast.walk(tree))


def test_the_reference_has_every_command() -> None:
    named = re.findall(r"^\| `mtf ([\w-]+)", (ROOT / "docs/commands.md").read_text("utf-8"), re.M)
    assert sorted(named) == sorted(COMMANDS)


def test_every_page_is_in_the_index() -> None:
    indices = [
        (ROOT / name).read_text("utf-8") for name in ("docs/index.md", "docs/decisions/index.md")
    ]
    listed = {entry for text in indices for entry in re.findall(r"^[\w/-]+$", text, re.M)}
    names = {p.removeprefix("docs/").removesuffix(".md") for p in pages() if p.startswith("docs/")}
    assert {n.removeprefix("decisions/") if n != "decisions/index" else n for n in names} == {
        *listed,
        "index",
    }
