"""What mtf tells people to install: itself, never the unrelated project `mtf` on PyPI."""

from __future__ import annotations

import importlib.metadata
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from mtf.distribution import DISTRIBUTION, pip_install

ROOT = Path(__file__).parents[1]

# `pip install mtf`, `pip install -U 'mtf[train]'`, `MTF_PACKAGE: "mtf==0.1.0"`, `mtf: mtf`
_STRANGER = re.compile(
    r"""pip3?\ install\ [^\n#`]*?(?<![\w./@+-])mtf(?![\w./-])
    | (?:MTF_PACKAGE|\bmtf|default):\ ["']?mtf(?:["'\[=<>~!]|[ ]*$)""",
    re.VERBOSE | re.MULTILINE,
)
_TEXTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", ".pre-commit-hooks.yaml", "Makefile")
_FOLDERS = ("mtf", "docs", "templates", "hooks", "experiments", ".github", ".ci", "benchmarks")


def texts() -> list[Path]:
    found = [path for folder in _FOLDERS for path in sorted((ROOT / folder).rglob("*"))]
    kept = [p for p in found if p.is_file() and not {"__pycache__", "_build"} & set(p.parts)]
    return [*(ROOT / name for name in _TEXTS if (ROOT / name).exists()), *kept]


def test_no_text_tells_to_install_the_unrelated_project() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match[0].strip()}"
        for path in texts()
        for match in _STRANGER.finditer(path.read_text("utf-8"))
    ]
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "pip install mtf", "pip install 'mtf[train]'", "python -m pip install -U mtf==0.1.0",
        'MTF_PACKAGE: "mtf==0.1.0"', "        default: mtf\n", "pip3 install --user mtf\n",
    ],
)  # fmt: skip
def test_the_search_finds_such_texts(text: str) -> None:
    assert _STRANGER.search(text)


@pytest.mark.parametrize(
    "text",
    [
        "pip install mtf-gitops", "pip install ./mtf", "pip install -e '/home/you/mtf[train]'",
        "pip install tensorboard  # mtf", "pip install 'mtf-gitops @ git+https://forge/lab/mtf@v1'",
    ],
)  # fmt: skip
def test_the_search_leaves_others_alone(text: str) -> None:
    assert not _STRANGER.search(text)


def test_the_name_is_that_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["name"] == DISTRIBUTION
    assert {"train", "hydra"} <= project["optional-dependencies"].keys()


class Installed:
    """Stands for the metadata that pip has left of an installation."""

    version = "0.1.0"

    def __init__(self, origin: dict[str, Any] | None) -> None:
        self._origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self._origin is None else json.dumps(self._origin)


@pytest.mark.parametrize(
    ("origin", "command"),
    [
        (None, "pip install 'mtf-gitops[hydra]==0.1.0'"),
        (
            {"url": "file:///home/you/a%20clone", "dir_info": {"editable": True}},
            "pip install --editable '/home/you/a clone[hydra]'",
        ),
        ({"url": "file:///src/mtf", "dir_info": {}}, "pip install '/src/mtf[hydra]'"),
        (
            {"url": "https://forge/mtf.git", "vcs_info": {"vcs": "git", "commit_id": "c0ffee"}},
            "pip install 'mtf-gitops[hydra] @ git+https://forge/mtf.git@c0ffee'",
        ),
        (
            {"url": "https://forge/mtf.whl", "archive_info": {}},
            "pip install 'mtf-gitops[hydra] @ https://forge/mtf.whl'",
        ),
    ],
)
def test_an_extra_is_installed_from_where_mtf_came(
    origin: dict[str, Any] | None, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Installed(origin))
    assert pip_install("hydra") == command
    assert pip_install("hydra", python="/venv/bin/python") == f"/venv/bin/python -m {command}"


def test_without_an_installation_the_name_alone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Installed:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    assert pip_install("train") == "pip install 'mtf-gitops[train]'"
