"""``webhook create``, ``list``, ``serve`` and others: endpoints as rows."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import click

from .._sync.webhooks import Webhooks
from ..brokers.endpoints import AsyncWebhookRelays
from .common import common, confirm, listen_dsn, pass_database
from .params import Length, Moment, resolve, shown_age
from .tables import as_json, print_list
from .webhook import headers_of, key_option, reaching, webhook

if TYPE_CHECKING:
    from datetime import datetime

    from ..endpoints import WebhookEndpoint
    from .database import Database

__all__: list[str] = []


def _settings(command: Any) -> Any:
    """Add the options of an endpoint that is a row."""
    for option in reversed(
        (
            click.option("--secret", "secrets", multiple=True, metavar="env:NAME|file:PATH",
                         help="Where a secret of its own is, as the relay sees it; otherwise its "
                         "secret is derived from the key."),
            click.option("--filter", "wanted", metavar="JSON",
                         help='Which messages it gets: {"key": ..., "headers": {...}, '
                         '"payload": {...}}; what these contain.'),
            click.option("--header", "headers", multiple=True, metavar="NAME=VALUE",
                         help="A further header of each request. It is stored as it is."),
            click.option("--header-prefix", metavar="PREFIX-",
                         help="Send the headers of the signature once more, with this prefix "
                         "instead of webhook-; svix- for example."),
            click.option("--cloudevents/--plain", default=None,
                         help="Send CloudEvents, or bodies as they were published."),
            click.option("--timeout", type=float, help="The seconds that a request may take; 15."),
            click.option("--concurrency", type=int,
                         help="How many requests may be under way at once; 10."),
            click.option("--pause-after", type=Length(),
                         help="For how long it may fail before it is paused: 12h, 5d; 0: for ever. "
                         "Otherwise 5 days."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that were given."""
    found = {name: value for name, value in settings.items() if value not in (None, ())}
    if "headers" in found:
        found["headers"] = headers_of(found["headers"])
    if "secrets" in found:
        found["secrets"] = list(found["secrets"])
    if (wanted := found.pop("wanted", None)) is not None:
        try:
            found["filter"] = json.loads(wanted)
        except ValueError as error:
            raise click.UsageError(f"--filter is not JSON: {error}") from error
    return found


@webhook.command("create")
@common
@click.argument("name")
@click.argument("url")
@click.argument("topics", metavar="TOPIC...", nargs=-1, required=True)
@_settings
@click.option("--start", type=Moment("beginning", "now"), default="now", show_default=True,
              help="Where it starts: beginning, now, a time, or how long ago: 7d.")  # fmt: skip
@key_option
@pass_database
def create(
    database: Database,
    /,
    *,
    name: str,
    url: str,
    topics: tuple[str, ...],
    start: Any,
    key: str,
    **settings: Any,
) -> None:
    """Create the endpoint NAME, a group that sends messages of TOPIC to URL; print its secret."""
    given = _given(settings)
    webhooks = Webhooks(key)
    with database.connect("webhook") as connection, connection.transaction():
        at = start if start in ("beginning", "now") else resolve(start, connection)
        made = webhooks.create(connection, name, url=url, topics=topics, start=at, **given)
        if not made.secrets:
            click.echo(webhooks.secret(made))  # before the commit: without a key nothing is made


@webhook.command("change")
@common
@click.argument("name")
@click.option("--url", help="Where its messages are sent.")
@click.option("--topic", "topics", multiple=True, help="What it gets, instead of all so far.")
@_settings
@pass_database
def change(database: Database, /, name: str, **settings: Any) -> None:
    """Change the endpoint NAME; what is not given stays unchanged."""
    given = _given(settings)
    if not given:
        raise click.UsageError("give at least one option to change")
    with database.connect("webhook") as connection:
        Webhooks().change(connection, name, **given)
    click.echo(f"endpoint {name} is changed; running relays apply it at once")


@webhook.command("list")
@common
@as_json
@pass_database
def list_endpoints(database: Database, as_json: bool) -> None:
    """List the endpoints, without what may be secret in their URLs and headers."""
    with database.connect("webhook") as connection:
        found = Webhooks().endpoints(connection)
        now = resolve(timedelta(0), connection)
    print_list(
        found, ("endpoint", "host", "topics", "state", "failure"),
        lambda one: (one.name, one.host, " ".join(one.topics), _state(one, now), one.failure),
        as_json=as_json, empty="No endpoints. durable-notify webhook create makes one.",
        fields=_shown,
    )  # fmt: skip


def _shown(endpoint: WebhookEndpoint) -> dict[str, Any]:
    fields = dataclasses.asdict(endpoint)
    for name in ("url", "salt", "exclusive"):
        del fields[name]
    fields["options"].pop("headers", None)
    return {"host": endpoint.host, **fields}


def _state(endpoint: WebhookEndpoint, now: datetime) -> str:
    for what, since in (("paused", endpoint.paused_at), ("fails", endpoint.failing_since)):
        if since is not None:
            return f"{what} for {shown_age(since, now)}"
    return "works"


@webhook.command("secret")
@common
@click.argument("name")
@key_option
@pass_database
def secret(database: Database, name: str, key: str) -> None:
    """Print the secret with which the receiver of the endpoint NAME verifies."""
    webhooks = Webhooks(key)
    with database.connect("webhook") as connection:
        click.echo(webhooks.secret(webhooks.endpoint(connection, name)))


@webhook.command("rotate")
@common
@click.argument("name")
@click.option("--overlap", type=Length(), default="24h", show_default=True,
              help="For how long the one before stays valid; 0: not at all.")  # fmt: skip
@key_option
@pass_database
def rotate(database: Database, name: str, overlap: float, key: str) -> None:
    """Give the endpoint NAME another secret, and print it."""
    with database.connect("webhook") as connection:
        click.echo(Webhooks(key).rotate_secret(connection, name, overlap=overlap))


@webhook.command("pause")
@common
@click.argument("name")
@pass_database
def pause(database: Database, name: str) -> None:
    """Send nothing more to the endpoint NAME until you resume it; its messages wait."""
    with database.connect("webhook") as connection:
        Webhooks().pause(connection, name)
    click.echo(f"endpoint {name} is paused")


@webhook.command("resume")
@common
@click.argument("name")
@pass_database
def resume(database: Database, name: str) -> None:
    """Resume the paused endpoint NAME, at its position."""
    with database.connect("webhook") as connection:
        Webhooks().resume(connection, name)
    click.echo(f"endpoint {name} is resumed")


@webhook.command("delete")
@common
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_database
def delete(database: Database, name: str, yes: bool) -> None:
    """Delete the endpoint NAME: its position, retries and dead letters. The messages stay."""
    confirm(f"Delete endpoint {name}, with its dead letters?", yes=yes)
    with database.connect("webhook") as connection:
        Webhooks().delete(connection, name)
    click.echo(f"endpoint {name} is deleted")


@webhook.command("serve")
@common
@reaching
@key_option
@click.option("--connections", type=click.IntRange(1, 100), default=4, show_default=True,
              help="How many connections claim; half as many settle, and two more.")  # fmt: skip
@listen_dsn
@pass_database
def serve(database: Database, /, **options: Any) -> None:
    """Send to all endpoints that are not paused, for as long as it runs.

    Changes apply at once. Several processes may serve the same endpoints. SIGTERM and Ctrl-C end
    it.
    """
    relays = AsyncWebhookRelays(database.dsn, **options)
    asyncio.run(relays.run())
    more = f", {relays.rejected} rejected" if relays.rejected else ""
    click.echo(f"ended: {relays.sent} sent{more}", err=True)
