"""Checks of a lab that has policies: who may push what, and whose word counts.

A repository without policies trusts everybody who may push, and nothing is found.
"""

from __future__ import annotations

import os
import shutil
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from mtf.commands.doctor.finding import Checkup, Finding, Theme
from mtf.errors import MtfError
from mtf.project.project import ledger_signing
from mtf.project.settings_file import SETTINGS, settings_at
from mtf.project.signatures import CONFIG, is_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.repo import GitRepo
    from mtf.spec.schema.policies import Policies

_OWNERS = ("CODEOWNERS", ".github/CODEOWNERS", ".gitlab/CODEOWNERS", "docs/CODEOWNERS")
_SEE = "docs/security.md has the commands for each forge"


def _committed(checkup: Checkup) -> tuple[CommitId, Policies] | None:
    """Return the tracked commit and its policies, None if it has none."""
    project = checkup.project
    try:
        commit = project.tracked()
        policies = settings_at(project.repo, commit).policies
    except MtfError:
        return None  # other checks report it
    return (commit, policies) if policies.model_fields_set else None


def signing(checkup: Checkup) -> Iterator[Finding]:
    """Find signatures that are required of commits, and of nothing else that mtf acts on."""
    found, repo = _committed(checkup), checkup.project.repo.whole
    if found is None:
        return
    required_here = is_on(repo.config(CONFIG))
    if found[1].require_signed and not required_here:
        yield Finding(
            "warning",
            "whoever may merge can lift policies.require_signed: this clone does not require it",
            f"{SETTINGS}: policies.require_signed",
            f"git config {CONFIG} true",
        )
    if not (found[1].require_signed or required_here):
        return
    if not ledger_signing(repo).required:
        yield Finding(
            "warning",
            "commits must be signed, and the ledger need not be: anybody who may push can write"
            " records",
            "mtf/ledger",
            "git config mtf.requireSignedLedger true",
        )
    yield from _verification(repo)


def _verification(repo: GitRepo) -> Iterator[Finding]:
    """Find what git lacks to verify signatures, so that it accepts none."""
    if repo.config("gpg.format") in (None, "openpgp"):
        program = repo.config("gpg.openpgp.program") or repo.config("gpg.program") or "gpg"
        if shutil.which(program) is None:
            yield Finding(
                "error",
                f"signatures are required, and git finds no {program}: nothing is accepted",
                "gpg.program",
                "install gpg, or sign with ssh: git config gpg.format ssh",
            )
        return
    signers = repo.config("gpg.ssh.allowedSignersFile")
    if repo.config("gpg.format") == "ssh" and not (
        signers and Path(signers).expanduser().is_file()
    ):
        yield Finding(
            "error",
            "signatures are required, and no file names the allowed signers: nothing is accepted",
            "gpg.ssh.allowedSignersFile",
            "git config gpg.ssh.allowedSignersFile FILE",
        )


def owners(checkup: Checkup) -> Iterator[Finding]:
    """Find settings and templates that anybody's review can change."""
    found, repo = _committed(checkup), checkup.project.repo.whole
    if found is None:
        return
    commit = found[0]
    texts = [text for path in _OWNERS if (text := repo.read(commit, path)) is not None]
    rules = [rule for text in texts for rule in _owned(text.decode(errors="replace"))]
    files = repo.files(commit)
    for name in (SETTINGS, "templates"):
        path = checkup.project.repo.prefix + name
        exists = path in files or any(file.startswith(f"{path}/") for file in files)
        owned = [has for rule, has in rules if rule == "" or fnmatchcase(path, rule)]
        if exists and not any(owned[-1:]):  # the last rule that fits is the one that counts
            yield Finding(
                "warning",
                f"{path} decides what may run and how, and has no owner who must approve changes",
                path,
                f"add a line to {_OWNERS[1]}: /{path} @OWNER",
            )


def _owned(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each pattern of a CODEOWNERS file, and True if it names an owner.

    A pattern without owners has none, except in a section of GitLab that has owners.
    """
    of_section: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if line.lstrip("^").startswith("["):
            of_section = line.rpartition("]")[2].split()
        elif words:
            yield words[0].lstrip("/").rstrip("*/"), bool(words[1:] or of_section)


def server(checkup: Checkup) -> Iterator[Finding]:
    """Find a remote that accepts anything in mtf/ledger and slurm-job/*, as far as that shows."""
    name, repo = checkup.project.remote, checkup.project.repo
    if name is None or _committed(checkup) is None:
        return
    url = repo.config(f"remote.{name}.url") or ""
    folder = Path(url.removeprefix("file://"))
    if not folder.is_absolute():
        folder = repo.root / folder
    if not (folder / "objects").is_dir():
        return  # a forge: who may push there cannot be asked from here
    hook = folder / "hooks" / "pre-receive"
    is_run = hook.is_file() and os.access(hook, os.X_OK)  # git ignores others
    text = hook.read_text(errors="replace") if is_run else ""
    if "mtf" not in text:  # ours, or a hook of the lab that calls it
        yield Finding(
            "warning",
            "everybody who may push can rewrite mtf/ledger and move slurm-job/*: the remote does"
            f" not check pushes ({_SEE})",
            str(hook),
            f"mtf -C {folder} hooks install",
        )


THEME = Theme("security", (signing, owners, server))
