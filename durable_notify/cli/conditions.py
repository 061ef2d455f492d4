"""Options that choose messages: dead letters, and those that wait for a retry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .params import Moment, resolve

if TYPE_CHECKING:
    from collections.abc import Callable

    from .database import Connection

__all__ = ["check_chosen", "choosing", "given_conditions"]


def choosing(*, since: str, until: str) -> Callable[[Any], Any]:
    """Return what adds the options that choose messages; `since` and `until` are their help."""
    options = (
        click.option("--topic", help="Those of one topic."),
        click.option("--id", "ids", type=int, multiple=True, help="This one; may be repeated."),
        click.option("--key", help="Those with this key."),
        click.option("--error", "error_type", help="Those whose exception was of this type."),
        click.option("--since", type=Moment(), help=since),
        click.option("--until", type=Moment(), help=until),
    )

    def add(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def given_conditions(connection: Connection, options: dict[str, Any]) -> dict[str, Any]:
    """Return the conditions that were given, with times by the database's clock."""
    given = {name: value for name, value in options.items() if value not in (None, ())}
    for name in {"since", "until"} & given.keys():
        given[name] = resolve(given[name], connection)
    return given


def check_chosen(given: dict[str, Any], everything: bool) -> None:
    """Refuse a change of messages that no condition chooses."""
    if bool(given) is everything:
        raise click.UsageError(
            "choose messages with --id, --topic, --key, --error, --since, or --all"
        )
