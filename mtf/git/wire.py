"""Git's wire formats: cat-file's objects, fast-import's commits, raw diffs and logs.

Nothing here starts a process (``mtf.git.process`` does); ``Objects`` uses the pipes it is given.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from mtf.core.vocabulary.git_tree_ids import GITLINK
from mtf.errors import RepositoryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from io import BufferedReader

    from mtf.core.vocabulary.ids import CommitId
    from mtf.git.pipes import Questions

SCRATCH = "refs/mtf/scratch/"
# Git's messages when another writer came first (seen with git 2.39; see also git-push(1)).
MOVED = re.compile(
    r"stale info|fetch first|non-fast-forward|failed to update ref|cannot lock ref"
    r"|reference already exists|incorrect old value|is at [0-9a-f]+ but expected"
)
_PIECE = 1 << 20  # bytes
_BATCH = 500  # object names, which mostly fit into a pipe


class Entry(NamedTuple):
    """One file of a tree or of the index."""

    mode: str
    oid: str


class Step(NamedTuple):
    """A change of one file by one commit."""

    side: str  # ">": a commit's change, "<>": of two histories, see ``GitRepo.steps``
    path: str
    old: str | None  # blob ids; None: the file does not exist
    new: str | None
    mode: str | None = None  # of the new file


class Object(NamedTuple):
    """A git object: its id, its kind (blob, tree, commit, tag) and its content."""

    oid: str
    kind: str
    content: bytes


class Objects:
    """Reads any number of objects through one `git cat-file --batch`: a new process takes 2 ms."""

    def __init__(self, questions: Questions, answers: BufferedReader) -> None:
        self._questions, self._answers = questions, answers

    def ask(self, names: Sequence[str], most: int | None = None) -> list[Object | None]:
        """Return the objects with these names, None for each that does not exist.

        Of longer contents than ``most`` bytes only so many are kept in memory and returned.
        """
        lines = [os.fsencode(name) + b"\n" if "\n" not in name else b"\n" for name in names]
        found: list[Object | None] = []
        for start in range(0, len(lines), _BATCH):
            found += self._answers_to(lines[start : start + _BATCH], most)
        return found

    def _answers_to(self, lines: Sequence[bytes], most: int | None) -> Iterator[Object | None]:
        """Yield the answers to some names, each of which is written before its answer is read.

        So neither side waits for the other to read, however long the names are.
        """
        asked, sent = memoryview(b"".join(lines)), 0
        with suppress(BrokenPipeError):  # git has ended: reading the answer fails
            sent = self._questions.offer(asked)
        for end in accumulate(map(len, lines)):
            with suppress(BrokenPipeError):
                while sent < end:
                    self._questions.wait()
                    sent += self._questions.offer(asked[sent:])
            yield self._answer(most)

    def _answer(self, most: int | None) -> Object | None:
        header = self._answers.readline()
        if not header:
            raise RepositoryError("git cat-file ended without an answer. Run git fsck")
        oid, _, rest = header.decode(errors="replace").partition(" ")
        kind, _, size = rest.strip().partition(" ")
        if not size.isdigit():  # "<name> missing" or "<name> ambiguous"
            return None
        left = int(size) + 1  # with the line break after the content
        if most is None or left <= most:
            return Object(oid, kind, self._answers.read(left)[:-1])
        content = self._answers.read(most)
        left -= most
        while left:
            left -= len(self._answers.read(min(left, _PIECE))) or left
        return Object(oid, kind, content)


@dataclass(frozen=True)
class FileChange:
    """A file that differs between two commits."""

    path: str
    status: str  # A, D, M or T, as in git diff
    added: int | None  # lines; None: a binary file
    deleted: int | None
    submodule: tuple[str, str] | None = None  # its commits before and after


def commit_stream(
    changes: Iterable[tuple[str, bytes | None]],
    parents: tuple[CommitId, ...],
    message: str,
    committer: str,
    width: int,
) -> Iterator[bytes]:
    """Yield the input for fast-import that writes a commit and prints its id.

    ``width`` is the number of digits of the repository's ids.
    """
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
    # the same command removes the scratch branch, so that a killed writer leaves no ref behind
    yield f"\nget-mark :1\nreset {scratch}\nfrom {'0' * width}\n\ndone\n".encode()


def required(oid: str, answer: Object | None) -> Object:
    """Return the object; raise RepositoryError if it is missing."""
    if answer is None:
        raise RepositoryError(f"object {oid} is missing from the repository. Run git fsck")
    return answer


def entries_of(tree: Object) -> list[tuple[str, Entry]]:
    """Return a tree's entries by name; a raw entry is: mode, space, name, NUL, id.

    Raises:
        RepositoryError: the object is not a tree, or is damaged.
    """
    raw, at, width = tree.content, 0, len(tree.oid) // 2
    found = []
    try:
        while at < len(raw):
            space, end = raw.index(b" ", at), raw.index(b"\0", at)
            mode, name = raw[at:space].decode("ascii"), os.fsdecode(raw[space + 1 : end])
            at = end + 1 + width
            found.append((name, Entry(mode.zfill(6), raw[end + 1 : at].hex())))
    except ValueError:
        at = -1
    if tree.kind != "tree" or at != len(raw):
        raise RepositoryError(f"object {tree.oid} is not a valid tree. Run git fsck")
    return found


def changes_of(raw: bytes) -> tuple[FileChange, ...]:
    """Return the changes in the output of ``git diff-tree -r --raw --numstat -z --no-abbrev``."""
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
    """Return the steps in the output of ``git log --raw -z --format=%m``.

    Source: git-diff(1), raw output format.
    """
    found, side = [], ">"
    parts = iter(os.fsdecode(raw).split("\0"))
    for part in parts:
        meta = part.lstrip("\n")
        if not meta.startswith(":"):
            side = meta or side
            continue
        _, mode, old, new, _ = meta.split(" ")
        found.append(Step(side, next(parts), _blob(old), _blob(new), mode))
    return found


def staged_files(raw: bytes) -> dict[str, Entry | None]:
    """Return the files in the output of ``git diff-index --raw -z``, None for deleted ones.

    Source: git-diff-index(1), raw output format.
    """
    parts = os.fsdecode(raw).split("\0")
    found: dict[str, Entry | None] = {}
    for meta, path in zip(parts[0:-1:2], parts[1::2], strict=True):
        _, mode, _, oid, status = meta.split()
        found[path] = None if status == "D" else Entry(mode, oid)
    return found


def index_files(raw: bytes) -> dict[str, Entry]:
    """Return the files in the output of ``git ls-files --stage -z``."""
    found = {}
    for line in os.fsdecode(raw).split("\0")[:-1]:
        meta, name = line.split("\t", 1)
        mode, oid, _ = meta.split()
        found[name] = Entry(mode, oid)
    return found


def _blob(oid: str) -> str | None:
    return oid if oid.strip("0") else None
