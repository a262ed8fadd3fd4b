"""`mtf hooks`: installs and removes the git hooks, and runs their checks."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mtf.cli.terminal.output import inform
from mtf.cli.validate import report_checked
from mtf.errors import EXIT_ERROR
from mtf.report.problems import render_problems

if TYPE_CHECKING:
    from collections.abc import Callable

    from mtf.core.planner.push_rules import Update
    from mtf.git.repo import GitRepo


@click.group()
def hooks() -> None:
    """Install or remove the git hooks that check specs."""


@hooks.command()
@click.pass_obj
def install(folder: str) -> None:
    """Install the hooks.

    A clone gets pre-commit and pre-push, a bare repository (a server) pre-receive. An existing hook
    is kept as <name>.legacy and runs first.
    """
    _change(folder, remove=False)


@hooks.command()
@click.pass_obj
def uninstall(folder: str) -> None:
    """Remove the hooks and restore those that were there before."""
    _change(folder, remove=True)


def _change(folder: str, *, remove: bool) -> None:
    from mtf.commands.hooks import install as installer
    from mtf.git.repo import GitRepo

    repo = GitRepo(Path(folder))
    for path in installer.uninstall(repo) if remove else installer.install(repo):
        inform(f"{'removed' if remove else 'installed'} {path}")


@hooks.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", type=click.Choice(["pre-commit", "pre-push", "pre-receive"]))
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENT]...")
@click.pass_obj
def run(folder: str, name: str, words: tuple[str, ...]) -> None:
    """Run the checks of one hook, for hook scripts of your own.

    It takes git's arguments and standard input, like this in a hook script:

    mtf hooks run pre-push "$@"
    """
    checks: dict[str, Callable[[Path, tuple[str, ...]], None]] = {
        "pre-commit": _pre_commit,
        "pre-push": _pre_push,
        "pre-receive": _pre_receive,
    }
    checks[name](Path(folder), words)


def _pre_commit(folder: Path, _: tuple[str, ...]) -> None:
    from mtf.git.repo import GitRepo

    if not any(p.endswith((".yaml", ".yml")) for p in GitRepo(folder, inherit=True).staged("")):
        return  # most commits change no spec: they do not pay for further imports
    from mtf.commands.validate import staged

    checked = staged(folder)
    if checked.problems:
        report_checked(checked, "text")


def _pre_push(folder: Path, words: tuple[str, ...]) -> None:
    from mtf.commands.hooks.pre_push import check_push
    from mtf.core.planner.push_rules import read_pre_push
    from mtf.git.repo import GitRepo
    from mtf.report.cost_words import cost_text
    from mtf.report.reviews import headline

    repo = GitRepo(folder, inherit=True)
    update = _update_of_framework(repo)
    remote = words[0] if words else os.environ.get("PRE_COMMIT_REMOTE_NAME", "")
    push = check_push(repo, remote, [update] if update else read_pre_push(sys.stdin))
    for branch, review in push.plans:
        submits = any(spec.to_submit for spec in review.specs)
        cost = f", at most {cost_text(review.cost)}" if submits else ""
        inform(f"mtf: {branch}: {headline(review)}{cost}")
        for rule, message in review.over_budget:
            inform(f"warning: {branch}: all changes together: {message} [{rule}]")
    for ref, checked in push.refs:
        if checked.problems:
            inform(f"mtf: {ref}:")
            inform(render_problems(checked.problems, "text"))
    if any(p.is_error for _, checked in push.refs for p in checked.problems):
        inform(
            "error: nothing was pushed. Fix the specs, commit, and push again"
            " (git push --no-verify skips this check)"
        )
        sys.exit(EXIT_ERROR)


def _update_of_framework(repo: GitRepo) -> Update | None:
    """Return the pushed ref from the variables of the pre-commit framework, None outside it.

    The framework consumes git's standard input itself. It passes on the first ref only, and no
    old commit when the remote has none of the history.
    """
    from mtf.core.planner.push_rules import Update

    env = os.environ
    if "PRE_COMMIT_REMOTE_BRANCH" not in env:
        return None
    old = repo.commit(env["PRE_COMMIT_FROM_REF"]) if "PRE_COMMIT_FROM_REF" in env else None
    new = repo.commit(env.get("PRE_COMMIT_TO_REF", env["PRE_COMMIT_LOCAL_BRANCH"]))
    return Update(env["PRE_COMMIT_REMOTE_BRANCH"], old, new)


def _pre_receive(folder: Path, _: tuple[str, ...]) -> None:
    from mtf.commands.hooks.pre_receive import refusals
    from mtf.core.planner.push_rules import read_pre_receive
    from mtf.git.repo import GitRepo

    reasons = refusals(GitRepo(folder, inherit=True), read_pre_receive(sys.stdin))
    for line in reasons:
        inform(f"error: {line}")
    if reasons:
        sys.exit(EXIT_ERROR)
