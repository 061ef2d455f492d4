"""docs/command-line.md names every command, option and argument, and none that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest

from durable_notify.cli import cli
from tests.support.cli import run
from tests.support.postgres import CHECKOUT

PAGE = (CHECKOUT / "docs" / "command-line.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
COMMANDS = dict(cli.commands)


def options(command: click.Command) -> set[str]:
    """The names of a command's own options."""
    found = (param for param in command.params if isinstance(param, click.Option))
    return {name for option in found for name in (*option.opts, *option.secondary_opts)}


def documented(section: str) -> set[str]:
    """The options in the first column of a section's tables."""
    cells = re.findall(r"^\| (`-[^|]*) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(--?[\w-]+)", cell)}


def subcommands(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """A command, or those of a group."""
    if isinstance(command, click.Group):
        for word, inner in command.commands.items():
            yield from subcommands(f"{name} {word}", inner)
    else:
        yield name, command


COMMON = documented(SECTIONS["The database"]) - {"-h", "--help"}


def test_every_command_has_a_section() -> None:
    assert set(SECTIONS) - {"The database"} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_options(name: str) -> None:
    assert documented(SECTIONS[name]) == {
        option
        for _, command in subcommands(name, COMMANDS[name])
        for option in options(command) - COMMON
    }


@pytest.mark.parametrize("name", COMMANDS)
def test_usage(name: str) -> None:
    for words, command in subcommands(name, COMMANDS[name]):
        places = [
            param.human_readable_name
            for param in command.params
            if isinstance(param, click.Argument)
        ]
        assert f"`durable-notify {' '.join([words, *places])}" in SECTIONS[name]


def test_common_options() -> None:
    assert COMMON | {"--version"} == options(cli) - {"-h", "--help"}
    assert "--version" in SECTIONS["The database"]
    for name, command in COMMANDS.items():
        if not isinstance(command, click.Group):
            assert options(command) >= COMMON, name


def test_required_options_are_marked() -> None:
    for name, command in COMMANDS.items():
        for param in command.params:
            if isinstance(param, click.Option) and param.required:
                (row,) = re.findall(rf"^\| `{param.opts[0]} .*$", SECTIONS[name], re.MULTILINE)
                assert "required" in row


def test_lists_that_are_empty_say_so(dsn: str) -> None:
    for command in ("audit", "replay-job list", "dead-letters", "retries", "status", "topics"):
        done = run(*command.split(), dsn=dsn)
        assert (done.returncode, done.stdout) == (0, ""), command
        assert done.stderr.strip(), command


def every_group(name: str, command: click.Command) -> Iterator[tuple[str, click.Group]]:
    """A group of commands, and those in it."""
    if isinstance(command, click.Group):
        yield name, command
        for word, inner in command.commands.items():
            yield from every_group(f"{name} {word}", inner)


@pytest.mark.parametrize(("name", "group"), [*every_group("durable-notify", cli)])
def test_help_lists_every_command_once_and_in_full(name: str, group: click.Group) -> None:
    context = click.Context(group, info_name=name, terminal_width=80)
    listed = group.get_help(context).partition("\nOptions:\n")[2]
    for word in group.commands:
        assert len(re.findall(rf"^  {re.escape(word)}  ", listed, re.MULTILINE)) == 1, word
    assert "..." not in listed
