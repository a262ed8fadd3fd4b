"""The CI files: their shell steps, run in a clone against a stand-in for the forge's API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ruamel.yaml import YAML

from mtf.report.comments import MARKER
from tests.cli.specs import BASE, GRID, SINGLE
from tests.repos import Repo, make_remote, make_repo

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]


class StandIn(ThreadingHTTPServer):
    """Answers requests about comments as GitHub and GitLab document it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.comments: list[dict[str, Any]] = []
        self.read_only = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        assert path in {"/repos/lab/specs/issues/7/comments", "/projects/3/merge_requests/7/notes"}
        size, page = (int(part.split("=")[1]) for part in query.split("&"))
        self._answer(200, self.server.comments[(page - 1) * size : page * size])

    def do_POST(self) -> None:
        self.server.comments.append(
            {"id": len(self.server.comments), **self._body()}
        ) if not self.server.read_only else None
        self._answer(
            403 if self.server.read_only else 201,
            self.server.comments[-1] if self.server.comments else {},
        )

    def do_PATCH(self) -> None:
        assert self.path.startswith(
            ("/repos/lab/specs/issues/comments/", "/projects/3/merge_requests/7/notes/")
        )
        comment = self.server.comments[int(self.path.rpartition("/")[2])]
        comment.update(self._body())
        self._answer(200, comment)

    do_PUT = do_PATCH  # noqa: N815

    def _body(self) -> dict[str, Any]:
        assert "secret" in (self.headers["Authorization"] or self.headers["PRIVATE-TOKEN"])
        return {
            "user": {"type": "Bot"},
            **json.loads(self.rfile.read(int(self.headers["Content-Length"]))),
        }

    def _answer(self, code: int, value: Any) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(value).encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def forge() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def clone(tmp_path: Path) -> Repo:
    """Return a clone on a branch that adds a grid of four runs to main."""
    repo = make_repo(tmp_path / "r", {"mtf.yaml": "", "experiments/alone.yaml": SINGLE})
    make_remote(tmp_path / "origin.git", repo)
    repo.git("checkout", "-qb", "search")
    repo.commit({"experiments/base.yaml": BASE, "experiments/search.yaml": GRID})
    return repo


def step(folder: Path, script: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a step as a runner does, in a bash that stops at the first failure."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": path, **env},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def yaml(path: str) -> Any:
    return YAML(typ="safe", pure=True).load(ROOT / path)


def test_github_gets_one_comment_that_is_updated_and_a_summary(
    clone: Repo, forge: StandIn, tmp_path: Path
) -> None:
    steps = yaml(".github/workflows/mtf.yml")["jobs"]["review"]["steps"]
    script = next(s["run"] for s in steps if s.get("name") == "Plan")
    summary = tmp_path / "summary"
    variables = {
        "BASE": "main",
        "NUMBER": "7",
        "GITHUB_TOKEN": "secret",
        "GITHUB_API_URL": forge.url,
        "GITHUB_REPOSITORY": "lab/specs",
        "GITHUB_STEP_SUMMARY": str(summary),
    }
    forge.comments += [{"id": n, "body": "Nice!", "user": {"type": "User"}} for n in range(120)]
    forge.comments[3]["body"] = f"{MARKER} by somebody else"
    assert step(clone.path, script, **variables).returncode == 0
    assert len(forge.comments) == 121
    assert "4 new runs" in forge.comments[120]["body"]
    assert "4 new runs" in summary.read_text()
    clone.commit({"experiments/search.yaml": GRID.replace("[1, 2]", "[1, 2, 3]")})
    assert step(clone.path, script, **variables).returncode == 0
    assert len(forge.comments) == 121
    assert "6 new runs" in forge.comments[120]["body"]
    forge.comments.clear()
    forge.read_only = True  # as the token of a pull request from a fork is
    done = step(clone.path, script, **variables)
    assert (done.returncode, forge.comments) == (0, [])
    assert "no comment" in done.stderr


def test_gitlab_gets_one_note_that_is_updated(clone: Repo, forge: StandIn) -> None:
    (script,) = yaml("templates/ci/mtf.gitlab-ci.yml")["mtf"]["script"]
    variables = {
        "CI_MERGE_REQUEST_IID": "7",
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
        "MTF_COMMENT_TOKEN": "secret",
        "CI_API_V4_URL": forge.url,
        "CI_PROJECT_ID": "3",
    }
    for _ in range(2):
        done = step(clone.path, script, **variables)
        assert done.returncode == 0, done.stderr
    (note,) = forge.comments
    assert note["body"].startswith(MARKER)
    clone.commit({"experiments/alone.yaml": SINGLE.replace("max_epochs", "max_epoch")})
    assert step(clone.path, script, **variables).returncode == 1
    assert len(forge.comments) == 1


def test_mistakes_become_annotations_on_github(clone: Repo) -> None:
    steps = yaml(".github/workflows/mtf.yml")["jobs"]["review"]["steps"]
    script = next(s["run"] for s in steps if s.get("name") == "Validate")
    clone.write({"experiments/alone.yaml": SINGLE.replace("max_epochs", "max_epoch")})
    done = step(clone.path, script)
    assert done.returncode == 1
    assert done.stdout.startswith("::error file=experiments/alone.yaml,line=5,")


def test_ci_files_ask_what_to_install_instead_of_guessing(tmp_path: Path) -> None:
    workflow = yaml(".github/workflows/mtf.yml")
    asked = workflow["on"]["workflow_call"]["inputs"]["mtf"]
    assert asked["required"] is True
    assert "default" not in asked
    job = yaml("templates/ci/mtf.gitlab-ci.yml")["mtf"]
    assert "MTF_PACKAGE" not in job["variables"]
    (install,) = job["before_script"]
    done = step(tmp_path, install)
    assert done.returncode != 0
    assert "MTF_PACKAGE: set it to what pip installs" in done.stderr
