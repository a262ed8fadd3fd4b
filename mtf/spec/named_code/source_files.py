"""`SourceFiles`: the files of the code that specs name, wherever they are read from."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# A syntax tree takes up to 700 times the bytes of its text, and Python 3.11 parses a text with many
# replacement fields in f-strings in the square of its length.
MAX_BYTES = 1 << 18  # of one module that is read; longer ones are left alone
_MAX_TOTAL = 1 << 22  # of all modules
_MAX_SQUARES = 10_000_000_000  # braces times bytes, of all modules: 3 seconds


class EntryKind(Enum):
    """The kinds of entries in a folder."""

    FILE = "file"
    FOLDER = "folder"
    SUBMODULE = "submodule"  # a folder if the clone has its content
    OTHER = "other"  # a symbolic link, which is not followed


class SourceFiles:
    """The files of one commit, index or folder; each is read when it is first needed."""

    def __init__(
        self,
        list_folder: Callable[[str], Mapping[str, EntryKind]],
        read_file: Callable[[str, int], bytes | None],
        roots: tuple[str, ...] = ("", "src"),
    ) -> None:
        """Take the readers of the files.

        Args:
            list_folder: returns the entries of a folder by name (``""`` is the root), none if there
                is no such folder.
            read_file: returns at most so many bytes of a file.
            roots: the folders that a job imports code from, in its order.
        """
        self.list_folder, self.read_file, self.roots = list_folder, read_file, roots
        self._folders: dict[str, Mapping[str, EntryKind]] = {}
        self._left, self._squares_left = _MAX_TOTAL, _MAX_SQUARES

    def folder(self, path: str) -> Mapping[str, EntryKind]:
        """Return the entries of a folder by name."""
        if path not in self._folders:
            self._folders[path] = self.list_folder(path)
        return self._folders[path]

    def kind(self, folder: str, name: str) -> EntryKind | None:
        """Return the kind of an entry, None if the folder has no such entry.

        A submodule is a folder, or something that cannot be read.
        """
        kind = self.folder(folder).get(name)
        if kind is not EntryKind.SUBMODULE:
            return kind
        inside = f"{folder}/{name}" if folder else name
        return EntryKind.FOLDER if self.folder(inside) else EntryKind.OTHER

    def read(self, path: str) -> bytes | None:
        """Return a file's content, None if it is too large or too much was read already."""
        content = self.read_file(path, MAX_BYTES + 1)
        if content is None or len(content) > MAX_BYTES:
            return None
        self._left -= len(content)
        self._squares_left -= len(content) * content.count(b"{")
        return content if self._left >= 0 and self._squares_left >= 0 else None


def no_files() -> SourceFiles:
    """Return the files of a configuration that no commit belongs to: none."""
    return SourceFiles(lambda _: {}, lambda _, __: None)
