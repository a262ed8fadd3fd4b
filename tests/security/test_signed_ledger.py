"""`mtf.requireSignedLedger`: commits of the ledger that no allowed controller has signed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from mtf.core.vocabulary.ids import LEDGER_REF
from mtf.errors import RepositoryError
from mtf.git.repo import GitRepo
from mtf.ledger.ledger_signing import Signing
from mtf.ledger.store import Change, LedgerStore
from mtf.project.project import ledger_signing
from tests.ledger.test_store import run_record
from tests.repos import Repo, git, make_remote, make_repo
from tests.security.test_signatures import make_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIGNED = Signing(sign=True, required=True)


def sign_with(repo: Repo, key: Path, signers: Path) -> None:
    for name, value in (
        ("gpg.format", "ssh"),
        ("user.signingKey", str(key)),
        ("gpg.ssh.allowedSignersFile", str(signers)),
        ("mtf.requireSignedLedger", "true"),
    ):
        repo.git("config", name, value)


@pytest.fixture
def lab(tmp_path: Path) -> Repo:
    """Return a clone of a shared remote whose ledger was begun with a signature."""
    made = make_repo(tmp_path / "lab", {"a": "1"})
    make_remote(tmp_path / "lab.git", made)
    key = make_key(tmp_path, "controller")
    signers = tmp_path / "signers"
    signers.write_text(f"controller {key.with_suffix('.pub').read_text()}")
    sign_with(made, key, signers)
    append(made, 1)
    return made


def store_of(repo: Repo) -> LedgerStore:
    opened = GitRepo(repo.path)
    return LedgerStore(opened, "origin", signing=ledger_signing(opened))


def append(repo: Repo, *numbers: int) -> None:
    store = store_of(repo)
    store.fetch("main")
    store.append(store.read_audited(), Change(runs=tuple(map(run_record, numbers))), "m")


def stranger(lab: Repo, *, key: str | None) -> Repo:
    """Return another clone that pushes to the ledger, unsigned or signed with a key of its own."""
    folder = lab.path.parent / "stranger"
    git(lab.path.parent, "clone", "-q", str(lab.path.parent / "lab.git"), str(folder))
    other = Repo(folder)
    other.git("switch", "-q", "mtf/ledger")
    if key:
        sign_with(other, make_key(folder, key), folder / "own")
        (folder / "own").write_text(f"x {(folder / f'{key}.pub').read_text()}")
    other.git("commit", "-q", "--allow-empty", "-m", "mtf: record 1 run", *(["-S"] if key else []))
    return other


def test_the_controllers_commits_are_signed_and_read(lab: Repo) -> None:
    append(lab, 2, 3)
    assert len(store_of(lab).read().runs) == 3
    commits = lab.git("rev-list", "--first-parent", "mtf/ledger").splitlines()
    for commit in commits:
        lab.git("verify-commit", commit)
    assert len(commits) == 3
    assert lab.git("rev-parse", "refs/mtf/signed") == commits[0]


@pytest.mark.parametrize("key", [None, "mallory"])
def test_a_commit_of_nobody_allowed_is_refused_and_not_followed(lab: Repo, key: str | None) -> None:
    good = lab.git("rev-parse", "mtf/ledger")
    other = stranger(lab, key=key)
    other.git("push", "-q", "origin", "HEAD:mtf/ledger")
    bad = other.git("rev-parse", "HEAD")
    store = store_of(lab)
    for _ in range(2):
        with pytest.raises(RepositoryError, match=f"commit {bad[:12]} .*no good signature"):
            store.fetch("main")
        assert lab.git("rev-parse", "mtf/ledger") == good
    lab.git("push", "-q", "--force", "origin", f"{good}:mtf/ledger")  # as the message says
    append(lab, 2)
    assert len(store_of(lab).read().runs) == 2


def test_a_commit_between_two_signed_ones_is_found(lab: Repo) -> None:
    other = stranger(lab, key=None)
    other.git("push", "-q", "origin", "HEAD:mtf/ledger")
    unsigned = other.git("rev-parse", "HEAD")
    lab.git("config", "mtf.requireSignedLedger", "false")
    lab.git("config", "mtf.signLedger", "true")
    append(lab, 2)
    lab.git("config", "mtf.requireSignedLedger", "true")
    with pytest.raises(RepositoryError, match=unsigned[:12]):
        store_of(lab).read()
    lab.git("config", "mtf.ledgerSignedSince", unsigned)
    lab.git("update-ref", "-d", "refs/mtf/signed")
    assert len(store_of(lab).read().runs) == 2


def test_each_commit_is_verified_once(lab: Repo) -> None:
    append(lab, 2)
    store_of(lab).read()
    lab.git("config", "gpg.ssh.program", "/bin/false")  # nothing can be verified any more
    assert len(store_of(lab).read().runs) == 2


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make an empty keyring of gpg; its path is short, as its agent's socket is in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setenv("GNUPGHOME", folder)
        yield
        subprocess.run(["gpgconf", "--kill", "all"], check=True)


def gpg_key(name: str) -> str:
    """Make a key of gpg without a passphrase and return its id."""
    command = ["gpg", "--batch", "--quiet", "--status-fd", "1", "--passphrase", ""]
    out = subprocess.run(
        [*command, "--quick-generate-key", f"{name} <{name}@x>", "ed25519", "sign", "never"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return next(line.split()[-1] for line in out.splitlines() if "KEY_CREATED" in line)


@pytest.mark.skipif(shutil.which("gpg") is None, reason="needs gpg")
@pytest.mark.usefixtures("keyring")
def test_keys_of_gpg_sign_and_verify_as_those_of_ssh_do(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "lab", {"a": "1"})
    make_remote(tmp_path / "lab.git", made)
    ours, theirs = gpg_key("controller"), gpg_key("mallory")
    made.git("config", "mtf.requireSignedLedger", "true")
    made.git("config", "user.signingKey", ours)
    append(made, 1)
    append(made, 2)
    assert len(store_of(made).read().runs) == 2
    good = made.git("rev-parse", "mtf/ledger")
    other = stranger(made, key=None)
    other.git("config", "user.signingKey", theirs)
    other.git("commit", "-q", "--amend", "--allow-empty", "-S", "--no-edit")
    other.git("push", "-q", "origin", "HEAD:mtf/ledger")
    gpg = ["gpg", "--batch", "--quiet", "--yes"]
    subprocess.run([*gpg, "--delete-secret-and-public-key", theirs], check=True)
    with pytest.raises(RepositoryError, match="no good signature"):
        store_of(made).fetch("main")
    assert made.git("rev-parse", "mtf/ledger") == good


def test_without_a_key_nothing_is_written(lab: Repo) -> None:
    before = lab.git("rev-parse", "mtf/ledger"), lab.git("ls-remote", "origin")
    lab.git("config", "user.signingKey", "/nowhere/key")
    with pytest.raises(RepositoryError, match="must be signed, and git could not"):
        append(lab, 2)
    assert (lab.git("rev-parse", "mtf/ledger"), lab.git("ls-remote", "origin")) == before


def test_a_ledger_that_was_never_signed_is_not_read_until_it_is_accepted(tmp_path: Path) -> None:
    made = make_repo(tmp_path / "r", {"a": "1"})
    store = LedgerStore(GitRepo(made.path), None)
    old = store.append(store.read(), Change(runs=(run_record(1),)), "m").tip
    assert old is not None
    with pytest.raises(RepositoryError, match="no good signature"):
        LedgerStore(GitRepo(made.path), None, signing=SIGNED).read()
    accepted = LedgerStore(GitRepo(made.path), None, signing=Signing(required=True, since=old))
    assert len(accepted.read(LEDGER_REF).runs) == 1
