"""`mtf hooks`: installs them, and is what they run."""

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
    """The git hooks of this repository."""


@hooks.command()
@click.pass_obj
def install(folder: str) -> None:
    """Install the hooks; those that are there go on running first.

    A clone gets pre-commit and pre-push, a bare repository (a server) pre-receive.
    """
    from mtf.commands.hooks.install import install as install_hooks
    from mtf.git.repo import GitRepo

    for path in install_hooks(GitRepo(Path(folder))):
        inform(f"installed {path}")


@hooks.command()
@click.pass_obj
def uninstall(folder: str) -> None:
    """Remove the hooks and put back those that were there before."""
    from mtf.commands.hooks.install import uninstall as uninstall_hooks
    from mtf.git.repo import GitRepo

    for path in uninstall_hooks(GitRepo(Path(folder))):
        inform(f"removed {path}")


@hooks.command(context_settings={"ignore_unknown_options": True})
@click.argument("name", type=click.Choice(["pre-commit", "pre-push", "pre-receive"]))
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENT]...")
@click.pass_obj
def run(folder: str, name: str, words: tuple[str, ...]) -> None:
    """Do what a hook does, with git's arguments and standard input. For hooks of your own."""
    runs: dict[str, Callable[[Path, tuple[str, ...]], None]] = {
        "pre-commit": _pre_commit,
        "pre-push": _pre_push,
        "pre-receive": _pre_receive,
    }
    runs[name](Path(folder), words)


def _pre_commit(where: Path, _: tuple[str, ...]) -> None:
    from mtf.git.repo import GitRepo

    if not any(p.endswith((".yaml", ".yml")) for p in GitRepo(where, inherit=True).staged("")):
        return  # most commits hold no spec: nothing else is imported for them
    from mtf.commands.validate import staged

    checked = staged(where)
    if checked.problems:
        report_checked(checked, "text")


def _pre_push(where: Path, words: tuple[str, ...]) -> None:
    from mtf.commands.hooks.pre_push import check_push
    from mtf.core.planner.push_rules import read_pre_push
    from mtf.git.repo import GitRepo
    from mtf.report.cost_words import cost_text
    from mtf.report.reviews import headline

    repo = GitRepo(where, inherit=True)
    update = _told_by_framework(repo)
    remote = words[0] if words else os.environ.get("PRE_COMMIT_REMOTE_NAME", "")
    push = check_push(repo, remote, [update] if update else read_pre_push(sys.stdin))
    for branch, review in push.plans:
        asks = any(spec.to_submit for spec in review.specs)
        cost = f", at most {cost_text(review.cost)}" if asks else ""
        inform(f"mtf: {branch}: {headline(review)}{cost}")
        for rule, message in review.over_budget:
            inform(f"mtf: warning: {branch}: all changes together: {message} [{rule}]")
    for ref, checked in push.refs:
        if checked.problems:
            inform(f"mtf: {ref}:")
            click.echo(render_problems(checked.problems, "text"), err=True)
    if any(p.is_error for _, checked in push.refs for p in checked.problems):
        inform(
            "mtf: not pushed. Mend the specs and commit them (git push --no-verify goes past this)"
        )
        sys.exit(EXIT_ERROR)


def _told_by_framework(repo: GitRepo) -> Update | None:
    """Return the push as the pre-commit framework tells it, which takes git's words for itself.

    It tells of the first ref alone, and of no commits where the remote has none of the history.
    """
    from mtf.core.planner.push_rules import Update

    told = os.environ
    if "PRE_COMMIT_REMOTE_BRANCH" not in told:
        return None
    old = repo.commit(told["PRE_COMMIT_FROM_REF"]) if "PRE_COMMIT_FROM_REF" in told else None
    new = repo.commit(told.get("PRE_COMMIT_TO_REF", told["PRE_COMMIT_LOCAL_BRANCH"]))
    return Update(told["PRE_COMMIT_REMOTE_BRANCH"], old, new)


def _pre_receive(where: Path, _: tuple[str, ...]) -> None:
    from mtf.commands.hooks.pre_receive import refusals
    from mtf.core.planner.push_rules import read_pre_receive
    from mtf.git.repo import GitRepo

    refused = refusals(GitRepo(where, inherit=True), read_pre_receive(sys.stdin))
    for line in refused:
        inform(f"mtf: {line}")
    if refused:
        sys.exit(EXIT_ERROR)
