"""What git's long-lived programs say and are told: objects from cat-file, a commit to fast-import.

Pure but for the pipes it is handed; ``mtf.git.process`` starts the processes.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from mtf.core.vocabulary.git_tree_ids import GITLINK
from mtf.errors import RepositoryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import IO

    from mtf.core.vocabulary.ids import CommitId

SCRATCH = "refs/mtf/scratch/"
# What git says when another writer was faster (measured with git 2.39; see also git-push(1)).
MOVED = re.compile(
    r"stale info|fetch first|non-fast-forward|failed to update ref|cannot lock ref"
    r"|reference already exists|incorrect old value|is at [0-9a-f]+ but expected"
)
_AT_ONCE = 500  # questions: they fit into a pipe's buffer, so that neither side waits for ever


class Entry(NamedTuple):
    """One file of a tree or of the index."""

    mode: str
    oid: str


class Step(NamedTuple):
    """What one commit did to one file."""

    side: str  # ">": on the way to the new commit, "<": only the old one has it, "<>": see steps
    path: str
    old: str | None  # blob ids; None: the file is not there
    new: str | None


class Object(NamedTuple):
    """A git object: its id, its kind (blob, tree, commit, tag) and its content."""

    oid: str
    kind: str
    content: bytes


class Objects:
    """One `git cat-file --batch`, which answers any number of questions: a process costs 2 ms."""

    def __init__(self, questions: IO[bytes], answers: IO[bytes]) -> None:
        self._questions, self._answers = questions, answers

    def ask(self, names: Sequence[str]) -> list[Object | None]:
        """Return what is there by these names, None where nothing is."""
        found: list[Object | None] = []
        for at in range(0, len(names), _AT_ONCE):
            some = [n if "\n" not in n else "" for n in names[at : at + _AT_ONCE]]  # one a line
            with suppress(BrokenPipeError):  # it has ended: nothing answers
                self._questions.write(b"".join(os.fsencode(name) + b"\n" for name in some))
                self._questions.flush()
            found += [self._answer() for _ in some]
        return found

    def _answer(self) -> Object | None:
        header = self._answers.readline()
        if not header:
            raise RepositoryError("git cat-file: ended without an answer. Run git fsck")
        oid, _, rest = header.decode(errors="replace").partition(" ")
        kind, _, size = rest.strip().partition(" ")
        if not size.isdigit():  # "<name> missing" or "<name> ambiguous"
            return None
        return Object(oid, kind, self._answers.read(int(size) + 1)[:-1])


@dataclass(frozen=True)
class FileChange:
    """One file that differs between two commits."""

    path: str
    status: str  # A, D, M or T, as git says it
    added: int | None  # lines; None: not text
    deleted: int | None
    submodule: tuple[str, str] | None = None  # its commits


def commit_stream(
    changes: Iterable[tuple[str, bytes | None]],
    parents: tuple[CommitId, ...],
    message: str,
    committer: str,
) -> Iterator[bytes]:
    """Yield what makes fast-import write a commit and print its id."""
    scratch = SCRATCH + secrets.token_hex(8)
    text = message.encode()
    yield f"commit {scratch}\nmark :1\ncommitter {committer} now\ndata {len(text)}\n".encode()
    yield text + b"\n"
    for number, parent in enumerate(parents):
        yield f"{'merge' if number else 'from'} {parent}\n".encode()
    for path, content in changes:
        name = os.fsencode(path)
        if content is None:
            yield b"D " + name + b"\n"
        else:
            yield b"M 100644 inline " + name + b"\ndata %d\n" % len(content) + content + b"\n"
    # the scratch branch goes again in the same breath: a killed writer leaves no ref behind
    nothing = "0" * len(parents[0]) if parents else "0" * 40
    yield f"\nget-mark :1\nreset {scratch}\nfrom {nothing}\n\ndone\n".encode()


def there(oid: str, answer: Object | None) -> Object:
    """Return the object that git answered with, or raise if the repository lacks it."""
    if answer is None:
        raise RepositoryError(f"{oid}: missing from the repository. Run git fsck")
    return answer


def entries_of(folder: str, tree: Object) -> Iterator[tuple[str, Entry]]:
    """Yield what a tree holds, by full paths; a raw entry is: mode, space, name, NUL, id."""
    raw, at, width = tree.content, 0, len(tree.oid) // 2
    while at < len(raw):
        space, end = raw.index(b" ", at), raw.index(b"\0", at)
        mode, name = raw[at:space].decode(), os.fsdecode(raw[space + 1 : end])
        at = end + 1 + width
        yield folder + name, Entry(mode.zfill(6), raw[end + 1 : at].hex())


def changes_of(raw: bytes) -> tuple[FileChange, ...]:
    """Return what ``git diff-tree -r --raw --numstat -z --no-abbrev`` says."""
    parts = os.fsdecode(raw).split("\0")[:-1]
    heads = [part.split() for part in parts if part.startswith(":")]
    paths = parts[1 : 2 * len(heads) : 2]
    lines = (part.split("\t", 2)[:2] for part in parts[2 * len(heads) :])
    return tuple(
        FileChange(
            path,
            status,
            None if added == "-" else int(added),
            None if deleted == "-" else int(deleted),
            (before, after) if GITLINK in (mode[1:], mode_after) else None,
        )
        for path, (mode, mode_after, before, after, status), (added, deleted) in zip(
            paths, heads, lines, strict=True
        )
    )


def steps_of(raw: bytes) -> list[Step]:
    """Return what ``git log --raw -z --format=%m`` prints. Source: git-diff(1), raw format."""
    found, side = [], ">"
    parts = iter(os.fsdecode(raw).split("\0"))
    for part in parts:
        meta = part.lstrip("\n")
        if not meta.startswith(":"):
            side = meta or side
            continue
        _, _, old, new, _ = meta.split(" ")
        found.append(Step(side, next(parts), _blob(old), _blob(new)))
    return found


def _blob(oid: str) -> str | None:
    return oid if oid.strip("0") else None
