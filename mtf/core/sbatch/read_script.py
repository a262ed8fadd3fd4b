"""Reads the options in a job script as sbatch does.

Sources: ``_opt_batch_script`` and ``get_argument`` in ``src/sbatch/opt.c`` of SLURM,
``src/sbatch/xlate.c``, and getopt_long(3). `tests/slurm/test_sbatch_options.py` compares this with
a real sbatch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from mtf.core.sbatch.option_table import ALIASES, BY_SHORT, OPTIONS, Argument, candidates
from mtf.errors import MtfError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_SPACE = " \t\v\f\r"  # isspace in the C locale, without the newline that ends a line
_DIRECTIVES = ("#SBATCH", "#SLURM")
_OTHERS = ("#PBS", "#BSUB")  # translated by sbatch wherever they are, also after commands
_BURST_BUFFER = re.compile(r"#(BB|DW|BB_LUA)\s")  # Source: slurm's burst_buffer plugins
_PLAIN = re.compile(r"[ A-Za-z0-9_./%+=,@&|*!()\[\]:-]*")
_SEPARATED = re.compile(r"(^| )(:|hetjob|packjob)", re.IGNORECASE)
_SEPARATORS = ("hetjob", "packjob")


class ScriptOptionError(MtfError):
    """The options of a script cannot be read with certainty."""

    def __init__(self, line: int, message: str) -> None:
        """Take the line in the script, from 1; 0 if there is no script."""
        super().__init__(message)
        self.line = line


class Option(NamedTuple):
    """One option of a script. A switch has the value None."""

    name: str  # the long name, also where the script abbreviates it
    value: str | None
    line: int = 0  # in the script, from 1
    is_known: bool = True  # False: sbatch itself has no such option, a plugin may

    def __str__(self) -> str:
        """Return the option as one writes it."""
        return f"--{self.name}" if self.value is None else f"--{self.name}={self.value}"


@dataclass(frozen=True)
class JobOptions:
    """All options of one job in their order. If one is repeated, the last counts."""

    all: tuple[Option, ...]

    @cached_property
    def values(self) -> Mapping[str, str | None]:
        """Return the value that counts of each option."""
        return {option.name: option.value for option in self.all}


def read_script(text: str) -> JobOptions:
    """Return the options that sbatch reads in a script.

    Raises:
        ScriptOptionError: sbatch would refuse the script, or could read it in two ways.
    """
    words = [(word, number) for number, line in _directives(text) for word in _words(line, number)]
    return parse_words(words)


def _directives(text: str) -> Iterator[tuple[int, str]]:
    """Yield the number and the rest of each line with options, up to the first command."""
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if line.startswith(_OTHERS):
            kind = next(word for word in _OTHERS if line.startswith(word))
            raise ScriptOptionError(number, f"sbatch reads {kind} lines as options. Remove it")
        if "\0" in line:
            raise ScriptOptionError(number, "a NUL byte. Remove it")
    for number, line in enumerate(lines, 1):
        word = next((word for word in _DIRECTIVES if line.startswith(word)), None)
        if word is not None:
            yield number, line[len(word) :]
        elif found := _BURST_BUFFER.match(line):
            why = f"SLURM's burst buffers read #{found[1]} lines as options. Remove it"
            raise ScriptOptionError(number, why)
        elif line.strip(_SPACE) and not line.lstrip(_SPACE).startswith("#"):
            return


def _words(line: str, number: int) -> Iterator[str]:
    """Yield the words of a line: quotes group, # begins a comment."""
    if _PLAIN.fullmatch(line) and not _SEPARATED.search(line):  # nearly all lines
        yield from line.split()
        return
    at, end = 0, len(line)
    while True:
        while at < end and line[at] in _SPACE:
            at += 1
        if at == end or line[at] == "#":
            return
        if line[at:].split(maxsplit=1)[0].lower() in _SEPARATORS or line[at] == ":":
            raise ScriptOptionError(number, "heterogeneous jobs cannot be judged. Remove it")
        word, at = _word(line, at, number)
        yield word


def _word(line: str, at: int, number: int) -> tuple[str, int]:
    """Return the word that begins at an index, and the index after it."""
    word, quote, end = "", "", len(line)
    while at < end and (quote or line[at] not in _SPACE):
        c = line[at]
        if c == "\\":
            raise ScriptOptionError(
                number, "versions of sbatch read backslashes differently. Remove it"
            )
        if quote:
            if c == quote:
                quote = ""
            else:
                word += c
        elif c in "\"'":
            quote = c
        elif c == "#":
            break
        else:
            word += c
        at += 1
    if quote:
        raise ScriptOptionError(number, f"an unmatched {quote}. Close it")
    return word, at


def parse_words(words: Sequence[tuple[str, int]]) -> JobOptions:
    """Return the options in words with their lines, as getopt_long reads them.

    Raises:
        ScriptOptionError: a word is no option, an option is ambiguous, or its argument is missing.
    """
    found: list[Option] = []
    rest = iter(words)
    for word, line in rest:
        if word == "--" and next(rest, None) is None:
            break
        if not word.startswith("-") or word in ("-", "--"):
            raise ScriptOptionError(line, f"{word!r} is not an option of sbatch. Remove it")
        parse = _long if word.startswith("--") else _short
        found += parse(word, line, rest)
    return JobOptions(tuple(found))


def _long(word: str, line: int, rest: Iterator[tuple[str, int]]) -> Iterator[Option]:
    name, equals, text = word[2:].partition("=")
    value = text if equals else None
    names = candidates(name)
    if len({ALIASES.get(n, n) for n in names}) > 1:
        fitting = ", ".join(f"--{n}" for n in names[:4])
        raise ScriptOptionError(line, f"--{name} may mean {fitting}. Write its whole name")
    if not names:
        yield Option(name, value, line, is_known=False)
        return
    option = OPTIONS[names[0]]
    if option.argument is Argument.NONE and equals:
        raise ScriptOptionError(line, f"--{option.name} takes no value. Write --{option.name}")
    if option.argument is Argument.REQUIRED and not equals:
        value = _next(rest, f"--{option.name}", line)
    yield Option(ALIASES.get(option.name, option.name), value, line)


def _short(word: str, line: int, rest: Iterator[tuple[str, int]]) -> Iterator[Option]:
    """Yield the options of a word like ``-Hp`` or ``-N2``."""
    letters = word[1:]
    while letters:
        option, letters = BY_SHORT.get(letters[0]), letters[1:]
        if option is None:
            raise ScriptOptionError(line, f"{word!r} is not an option of sbatch. Remove it")
        value = None
        if option.argument is not Argument.NONE:
            value, letters = letters or None, ""
        if option.argument is Argument.REQUIRED and value is None:
            value = _next(rest, f"-{option.short}", line)
        yield Option(option.name, value, line)


def _next(rest: Iterator[tuple[str, int]], name: str, line: int) -> str:
    """Return the next word, the argument of an option, whatever it looks like."""
    found = next(rest, None)
    if found is None:
        raise ScriptOptionError(line, f"{name} needs a value. Write {name}=VALUE")
    return found[0]
