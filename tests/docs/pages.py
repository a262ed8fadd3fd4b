"""The fenced blocks of README and docs, and a shell that runs those of a page in order.

The first word after a block's fence, and its first line, decide what is done with it:

- ``console`` and ``bash`` blocks are run, all of a page in one shell and one fresh folder. In a
  ``console`` block the lines that begin with ``$`` are commands, the others what they print.
- A block of any language whose first line is a comment with a file name, such as
  ``# experiments/first.yaml``, is written to that file.
- ``python`` blocks without a file name are run by a Python of their own.
- ``not-run: REASON`` after the language marks a block that nothing here can run; ``slurm`` one
  that the private SLURM of tests/slurm runs; ``fails`` one whose last command must fail.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
RUN = ("console", "bash", "python")  # languages of blocks that people execute

_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"\A# (?P<path>[\w./-]*[\w-]\.(?:ya?ml|py))\b.*\n")


@dataclass(frozen=True)
class Command:
    """A shell command and what the page says that it prints."""

    text: str
    printed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Block:
    """One fenced block of a page; ``line`` is that of its fence."""

    page: str
    line: int
    language: str
    marks: str
    text: str

    @property
    def is_run(self) -> bool:
        return self.language in RUN and not self.marks.startswith("not-run") and not self.file

    @property
    def file(self) -> str | None:
        """The file that the block is to be written to."""
        match = _FILE.match(self.text)
        return match["path"] if match else None

    def commands(self) -> tuple[Command, ...]:
        if self.language == "console":
            return tuple(_transcript(self.text))
        if self.language == "python":
            return (Command(f"{shlex.quote(sys.executable)} - <<'PYTHON'\n{self.text}PYTHON"),)
        return (Command(self.text),)


def pages() -> list[str]:
    found = [p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts]
    texts = ["README.md", "CONTRIBUTING.md", *sorted(str(p.relative_to(ROOT)) for p in found)]
    return [name for name in texts if (ROOT / name).exists()]


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text("utf-8")
    found = []
    for match in _FENCE.finditer(text):
        language, _, marks = match["info"].strip().partition(" ")
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page, line, language, marks.strip(), match["text"]))
    return found


def _transcript(text: str) -> Iterator[Command]:
    command: list[str] = []
    printed: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            if command:
                yield Command("\n".join(command), tuple(printed))
            command, printed = [line[2:]], []
        elif command and command[-1].endswith("\\"):
            command.append(line)
        elif line.strip() and line.strip() != "..." and not line.startswith("# "):
            printed.append(line)
    if command:
        yield Command("\n".join(command), tuple(printed))


def run(script: Sequence[Block], folder: Path, env: Mapping[str, str], timeout: float) -> list[str]:
    """Run blocks in one shell in a folder; return the differences from what the page says."""
    outputs = folder.parent / "outputs"
    outputs.mkdir()
    lines, asked = _script(script, outputs)
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=folder, env=env, timeout=timeout, stdin=subprocess.DEVNULL, capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode:
        return [f"the shell ended with {done.returncode}: {done.stderr}"]
    problems = []
    for number, (block, command, must_fail) in enumerate(asked):
        code = int((outputs / f"{number}.code").read_text())
        output = (outputs / f"{number}.out").read_text()
        where = f"{block.page}:{block.line}: $ {command.text}"
        if (code != 0) != must_fail:
            problems.append(f"{where}\nended with {code}:\n{output}")
        problems += [
            f"{where}\ndoes not print: {missing}\nbut:\n{output}"
            for missing in not_printed(command.printed, output)
        ]
        if has_silent_failure(command.printed, output):
            problems.append(f"{where}\nthe page shows no failed run, but:\n{output}")
    return problems


def _script(
    script: Sequence[Block], outputs: Path
) -> tuple[list[str], list[tuple[Block, Command, bool]]]:
    lines: list[str] = []
    asked: list[tuple[Block, Command, bool]] = []
    for block in script:
        if block.file:
            name = shlex.quote(block.file)
            lines.append(
                f"mkdir -p $(dirname {name}); cat > {name} <<'WRITTEN'\n{block.text}WRITTEN"
            )
            continue
        commands = block.commands()
        for i, command in enumerate(commands):
            place = shlex.quote(str(outputs / str(len(asked))))
            lines.append(f"{{ {command.text}\n}} > {place}.out 2>&1; echo $? > {place}.code")
            asked.append((block, command, block.marks == "fails" and i == len(commands) - 1))
    return lines, asked


_FAILED_RUNS = re.compile(r"^\s*\d+ runs?: .*\d+ failed", re.MULTILINE)
_CHANGES = (  # what differs from one time to the next
    (re.compile(r"\d{8}T\d{6}Z|\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?Z?"), "TIME"),
    (re.compile(r"(?<![\w.])\d+\.\d+(e-?\d+)?(?![\w.])"), "N"),
    (re.compile(r"(?<!\w)(?=[a-f]*\d)[0-9a-f]{7,64}(?!\w)"), "ID"),
    (re.compile(r"(?<![\w./])/[\w./-]*\w"), "PATH"),
    (re.compile(r"\d+(\.\d+)?(e-?\d+)?"), "N"),
    (re.compile(r"[\s-]+"), " "),
)


def plain(line: str) -> str:
    """Return a line without the parts that change each time, such as ids and numbers."""
    for pattern, word in _CHANGES:
        line = pattern.sub(word, line)
    return line.strip()


def not_printed(expected: Sequence[str], output: str) -> list[str]:
    """Return the lines that do not stand in the output, in their order."""
    rest = iter([plain(line) for line in output.splitlines()])
    missing = []
    for line in expected:
        wanted = [plain(part) for part in line.split("...")]
        if not any(_holds(printed, wanted) for printed in rest):
            missing.append(line)
            break  # what follows was searched for in vain
    return missing


def has_silent_failure(expected: Sequence[str], output: str) -> bool:
    """Return True if a summary of runs counts failed ones that the page does not show.

    A page may end a line with ``...``, which would hide them.
    """
    return _FAILED_RUNS.search(output) is not None and "failed" not in "".join(expected)


def _holds(printed: str, parts: Sequence[str]) -> bool:
    if len(parts) == 1:
        return printed == parts[0]
    at = 0
    for part in parts:
        at = printed.find(part, at)
        if at < 0:
            return False
        at += len(part)
    return True
