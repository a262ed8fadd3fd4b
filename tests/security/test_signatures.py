"""`policies.require_signed`: git verifies signatures with real keys."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cli.lab import QUICK, SETTINGS, make_lab, runs, stop_jobs
from tests.cli.mtf import mtf, mtf_json

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.repos import Repo

SPEC = QUICK.replace("kind: base", "kind: experiment\nexperiment_name: quick")
SIGNED = SETTINGS + "policies: {require_signed: true}\n"


def make_key(folder: Path, name: str) -> Path:
    key = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    return key


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Repo]:
    """Yield a repository that requires signatures and whose controller allows one signer."""
    made = make_lab(tmp_path, {"quick.yaml": SPEC}, settings=SIGNED)
    key = make_key(tmp_path, "boss")
    signers = tmp_path / "allowed"
    signers.write_text(f"test@localhost {key.with_suffix('.pub').read_text()}")
    for name, value in (
        ("gpg.format", "ssh"),
        ("user.signingKey", str(key)),
        ("gpg.ssh.allowedSignersFile", str(signers)),
    ):
        made.git("config", name, value)
    yield made
    stop_jobs(tmp_path)


def push(lab: Repo, *options: str) -> None:
    lab.git("commit", "-q", "--allow-empty", "-m", "change", *options)
    lab.git("push", "-q", "origin", "main")


def planned(lab: Repo) -> list[str]:
    found = mtf_json(lab.path, "plan", "--format", "json", code=None)
    return [action["action"] for action in found["actions"]]


def test_only_a_commit_of_an_allowed_signer_is_submitted(lab: Repo, tmp_path: Path) -> None:
    done = mtf(lab.path, "sync", "--executor", "local", code=1)
    assert "has no good signature of an allowed signer" in done.stderr
    assert runs(lab) == {}
    lab.git("config", "user.signingKey", str(make_key(tmp_path, "stranger")))
    push(lab, "-S")
    assert "No principal matched" in mtf(lab.path, "sync", code=1).stderr
    lab.git("config", "user.signingKey", str(tmp_path / "boss"))
    push(lab, "-S")
    assert planned(lab) == ["submit"]


def test_a_commit_cannot_switch_off_the_rule(lab: Repo) -> None:
    push(lab, "-S")
    mtf(lab.path, "sync", "--executor", "local")
    lab.write({"mtf.yaml": SETTINGS, "experiments/more.yaml": SPEC.replace("quick", "more")})
    lab.git("add", "-A")
    push(lab)
    done = mtf(lab.path, "sync", code=1)
    assert "[require_signed]" in done.stderr
    assert set(runs(lab)) == {"quick"}
    push(lab, "-S")  # who may sign may lift it
    assert "submit" in planned(lab)


def test_a_clone_may_require_signatures_whatever_is_committed(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, {"quick.yaml": SPEC})
    lab.git("config", "mtf.requireSigned", "true")
    assert "has no good signature" in mtf(lab.path, "sync", code=1).stderr
    assert runs(lab) == {}
