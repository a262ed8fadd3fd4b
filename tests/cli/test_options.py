"""The command line's names are a contract: commands, options, types and defaults in a golden file.

Scripts depend on them. Regenerate the file with `python -m tests.cli.test_options`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from mtf.cli.main import COMMANDS, SECTIONS, cli

if TYPE_CHECKING:
    from collections.abc import Iterator

GOLDEN = Path(__file__).parent / "golden" / "options.txt"


def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and all below it, each with its full name."""
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=name)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from walk(f"{name} {child}", found)


def type_text(type_: click.ParamType[Any]) -> str:
    match type_:
        case click.Choice():
            return "|".join(map(str, type_.choices))
        case click.IntRange() | click.FloatRange():
            most = "" if type_.max is None else f"..{type_.max}"
            return f"{type_.name.split()[0]} from {type_.min}{most}"
        case click.Path():
            kinds = ["file"] * type_.file_okay + ["folder"] * type_.dir_okay
            return " or ".join(kinds)
        case _:
            return {"filename": "file"}.get(type_.name, type_.name)


def parameter_text(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Argument):
        name = parameter.human_readable_name
        repeats = parameter.nargs == -1
    else:
        assert isinstance(parameter, click.Option)
        name, repeats = ", ".join(parameter.opts), parameter.multiple
    parts = ["flag" if getattr(parameter, "is_flag", False) else type_text(parameter.type)]
    parts += ["required"] if parameter.required else []
    parts += ["repeatable"] if repeats else []
    default = parameter.to_info_dict()["default"]
    if default not in (None, False, ()) and isinstance(default, str | int | float):
        parts.append(f"default {default}")
    return f"  {name:<22} {', '.join(parts)}"


def options_text() -> str:
    """Return every command with its parameters, in the order of the help."""
    blocks = []
    for name, command in walk("mtf", cli):
        lines = [parameter_text(p) for p in command.params if p.name != "help"]
        blocks.append("\n".join([name, *lines]))
    return "\n\n".join(blocks) + "\n"


EVERY_COMMAND = [pytest.param(command, id=name) for name, command in walk("mtf", cli)]


def test_commands_options_and_defaults_are_those_of_the_golden_file() -> None:
    assert options_text() == GOLDEN.read_text(encoding="utf-8"), (
        "The command line has changed, and scripts depend on it. If that is meant:"
        " python -m tests.cli.test_options, then review the diff of tests/cli/golden/options.txt"
    )


@pytest.mark.parametrize("command", EVERY_COMMAND)
def test_each_command_says_in_its_first_line_what_it_does(command: click.Command) -> None:
    first = (command.help or "").split("\n")[0]
    assert first.endswith("."), first
    assert len(first) <= 90


@pytest.mark.parametrize("command", EVERY_COMMAND)
def test_each_option_has_help(command: click.Command) -> None:
    options = [p for p in command.params if isinstance(p, click.Option)]
    assert [p.opts for p in options if not p.help] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_and_the_help_of_each_say_the_same(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert (command.help or "").split("\n")[0] == COMMANDS[name][1]


def test_the_help_lists_every_command_in_a_section_and_one_line() -> None:
    lines = cli.get_help(click.Context(cli, info_name="mtf", terminal_width=80)).splitlines()
    for title, commands in SECTIONS.items():
        start = lines.index(f"{title}:") + 1
        assert [line.split()[0] for line in lines[start : start + len(commands)]] == list(commands)


if __name__ == "__main__":
    GOLDEN.write_text(options_text(), encoding="utf-8")
