"""The submodules of a commit, read from what the clone has, and fetched if it has too little.

A submodule's repository is where git puts it (``modules/<name>`` in the git dir) or in its folder
of the work tree. One that the clone does not have is fetched into a folder of mtf's own, so that
neither the work tree nor git's own view of submodules changes.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from mtf.errors import RepositoryError
from mtf.git.process import GitProcesses
from mtf.git.repo import GitRepo

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mtf.core.vocabulary.ids import CommitId

_SETTING = re.compile(r"submodule\.(?P<name>.+)\.(?P<key>path|url|update|active)", re.DOTALL)
_PINNED = "refs/mtf/pinned/"  # keeps fetched commits in a submodule's repository


class Submodule(NamedTuple):
    """One submodule as ``.gitmodules`` and the clone's configuration describe it."""

    name: str
    path: str
    url: str | None = None
    is_wanted: bool = True  # False: ``update = none``, or ``active = false`` in the configuration


def submodules_of(repo: GitRepo, commit: CommitId | Literal[""]) -> dict[str, Submodule]:
    """Return the submodules in ``.gitmodules`` of a commit, by path; "" stands for the index."""
    blob = f"{commit}:.gitmodules"
    raw = repo.processes.attempt("config", "--blob", blob, "-z", "--get-regexp", "^submodule")[1]
    committed = _by_name(raw)
    own = _by_name(repo.processes.attempt("config", "-z", "--get-regexp", r"^submodule\.")[1])
    found = {}
    for name, values in committed.items():
        if path := values.get("path"):
            here = {**values, **own.get(name, {})}
            is_wanted = here.get("update") != "none" and here.get("active") != "false"
            found[path] = Submodule(name, path, here.get("url"), is_wanted)
    return found


def _by_name(raw: bytes) -> dict[str, dict[str, str]]:
    """Return the settings in the output of ``git config -z``, by the submodule's name and key."""
    found: dict[str, dict[str, str]] = {}
    for entry in os.fsdecode(raw).split("\0")[:-1]:
        key, _, value = entry.partition("\n")
        if match := _SETTING.fullmatch(key):
            found.setdefault(match["name"], {})[match["key"]] = value
    return found


def open_submodule(
    repo: GitRepo, submodule: Submodule, commit: CommitId, remote: str | None
) -> GitRepo:
    """Return a submodule's repository, which has ``commit``; it is fetched if need be.

    Args:
        repo: of which it is a submodule.
        submodule: to open.
        commit: of the submodule.
        remote: of ``repo``, which a relative URL starts from.

    Raises:
        RepositoryError: the clone lacks the commit, and it cannot be fetched; with git's reason.
    """
    if (here := find_submodule(repo, submodule, commit)) is not None:
        return here
    known = _known(repo, submodule)
    reasons = []
    for found, source in [*_sources(repo, submodule, known, remote)]:
        for wanted in ((f"+{commit}:{_PINNED}{commit}",), _EVERYTHING):
            options = ("--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
            code, _, err = found.processes.attempt("fetch", *options, "--", source, *wanted)
            if found.find_commit(commit):
                return found
            reasons += [err.strip()] if code else []
    raise RepositoryError(reasons[-1] if reasons else "it is in no place that git or mtf knows")


def find_submodule(repo: GitRepo, submodule: Submodule, commit: CommitId) -> GitRepo | None:
    """Return a submodule's repository if the clone has it with ``commit``; nothing is fetched."""
    found = _known(repo, submodule)
    return next((each for each in found if each.find_commit(commit)), None)


def _known(repo: GitRepo, submodule: Submodule) -> list[GitRepo]:
    """Return the repositories of a submodule that the clone has."""
    places = (place for place in _places(repo, submodule) if _is_git_dir(place))
    return [GitRepo(place, is_git_dir=True) for place in places]


# of a server that gives out single commits only by name
_EVERYTHING = (f"+refs/heads/*:{_PINNED}heads/*", f"+refs/tags/*:{_PINNED}tags/*")


def _places(repo: GitRepo, submodule: Submodule) -> Iterator[Path]:
    """Yield the folders in which a submodule's repository may be."""
    if _is_safe(submodule.name):
        own = os.fsdecode(repo.processes.run("rev-parse", "--absolute-git-dir")).rstrip("\n")
        yield from (
            git_dir / "modules" / submodule.name for git_dir in (Path(own), repo.common_dir)
        )
    in_work_tree = repo.root / submodule.path / ".git"
    if repo.root != repo.common_dir and in_work_tree.exists():
        inner = GitRepo(in_work_tree.parent)
        if inner.root != repo.root:
            yield inner.common_dir
    yield _own_place(repo, submodule)


def _own_place(repo: GitRepo, submodule: Submodule) -> Path:
    digest = hashlib.sha256(f"{submodule.name}\0{submodule.url}".encode(errors="replace"))
    return repo.common_dir / "mtf" / "modules" / digest.hexdigest()[:16]


def _is_safe(name: str) -> bool:
    """Return True for the name of a submodule that git allows. Source: git's submodule-config.c."""
    return bool(name) and ".." not in re.split(r"[/\\]", name) and not Path(name).is_absolute()


def _is_git_dir(place: Path) -> bool:
    return (place / "objects").is_dir()


def _sources(
    repo: GitRepo, submodule: Submodule, known: list[GitRepo], remote: str | None
) -> Iterator[tuple[GitRepo, str]]:
    """Yield repositories to fetch into, each with the remote or URL to fetch from."""
    for found in known:
        if (origin := found.config("remote.origin.url")) is not None:
            yield found, origin
    url = _absolute_url(repo, submodule.url, remote)
    if url is None or url.startswith("-") or "\n" in url:
        return
    place = _own_place(repo, submodule)
    if not _is_git_dir(place):
        place.mkdir(parents=True, exist_ok=True)
        kind = repo.processes.run("rev-parse", "--show-object-format").decode().strip()
        made = GitProcesses(place, inherit=False)
        made.run("init", "--quiet", "--bare", f"--object-format={kind}", ".")
        GitRepo(place, is_git_dir=True).processes.run("config", "remote.origin.url", url)
    yield GitRepo(place, is_git_dir=True), url


def _absolute_url(repo: GitRepo, url: str | None, remote: str | None) -> str | None:
    """Return a submodule's URL; a relative one starts from the remote's, or from the repository.

    Source: git-submodule(1), add.
    """
    if url is None or not url.startswith(("./", "../")):
        return url
    urls = (repo.config(f"remote.{name}.url") for name in (remote, "origin") if name)
    base = next(filter(None, urls), str(repo.root))
    if re.match(r"[^/]+:", base) is None:
        base = str((repo.root / base).resolve())
    while url.startswith(("./", "../")):
        head, _, url = url.partition("/")
        if head == "..":
            cut = max(base.rstrip("/").rfind("/"), base.rfind(":"))
            base = base[: cut + 1]
    return base + url if base.endswith((":", "/")) else posixpath.join(base, url)
