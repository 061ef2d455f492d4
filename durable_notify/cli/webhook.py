"""``webhook``: try an endpoint out; the options that ``relay`` has for one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from .._async.database.connection import connect
from ..brokers.broker import Sent
from ..brokers.endpoints import send_test_to
from ..brokers.webhooks import WebhookOptions, send_test
from ..endpoints import KEY, read_places
from .common import common, pass_database
from .errors import Failure
from .listing import Listing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..brokers.broker import Outcome
    from .database import Database

__all__ = ["headers_of", "key_option", "reaching", "webhook", "webhook_of", "webhook_options"]


def reaching(command: Any) -> Any:
    """Add the options that say what may be reached."""
    command = click.option(
        "--proxy", metavar="URL", help="Webhooks: a proxy that all requests take, such as "
        "smokescreen. It decides which addresses are reached.",
    )(command)  # fmt: skip
    return click.option(
        "--allow", multiple=True, metavar="CIDR",
        help="Webhooks: a network that may be reached although it is not public.",
    )(command)  # fmt: skip


def webhook_options(command: Any) -> Any:
    """Add the options of an endpoint."""
    for option in (
        click.option("--header-prefix", metavar="PREFIX-",
                     help="Webhooks: send the headers of the signature once more, with this prefix "
                     "instead of webhook-; svix- for example."),
        click.option("--header", "headers", multiple=True, metavar="NAME=VALUE",
                     help="Webhooks: a further header of each request. The value may stand "
                     "elsewhere: NAME=env:NAME or NAME=file:PATH."),
    ):  # fmt: skip
        command = option(command)
    command = reaching(command)
    return click.option(
        "--secret", "secrets", multiple=True, metavar="env:NAME|file:PATH",
        help="Webhooks: where a secret to sign with is; several while one replaces another. "
        "Otherwise the environment variable DURABLE_NOTIFY_WEBHOOK_SECRET.",
    )(command)  # fmt: skip


def key_option(command: Any) -> Any:
    """Add the option that says where the key is."""
    return click.option(
        "--key", default=KEY, show_default=True, metavar="env:NAME|file:PATH",
        help="Where the key is from which the secrets of endpoints are derived.",
    )(command)  # fmt: skip


def webhook_of(
    *,
    secrets: tuple[str, ...],
    allow: tuple[str, ...],
    proxy: str | None,
    headers: tuple[str, ...],
    header_prefix: str | None,
) -> WebhookOptions | None:
    """Return the options of an endpoint, if any were given."""
    about: dict[str, Any] = {
        "secrets": secrets, "allow": allow, "proxy": proxy, "header_prefix": header_prefix,
        "headers": {
            name: read_places([value])[0][0] if value.startswith(("env:", "file:")) else value
            for name, value in headers_of(headers).items()
        },
    }  # fmt: skip
    given = {name: value for name, value in about.items() if value}
    return WebhookOptions(**given) if given else None


def headers_of(given: Iterable[str]) -> dict[str, str]:
    """Return headers that were given as NAME=VALUE."""
    found = {}
    for header in given:
        name, equals, value = header.partition("=")
        if not equals:
            raise click.UsageError("write a header as NAME=VALUE")
        found[name] = value
    return found


@click.group("webhook", cls=Listing)
@common
def webhook() -> None:
    """Manage endpoints of webhooks, send to them, and try them out."""


@webhook.command("test")
@common
@click.argument("target", metavar="URL|NAME")
@webhook_options
@key_option
@pass_database
def test(database: Database, /, *, target: str, key: str, **about: Any) -> None:
    """Send one signed message of the type durable_notify.test to a URL, or to the endpoint NAME.

    An endpoint has its own secrets, headers and limits.
    """
    if "://" in target:
        outcome = asyncio.run(send_test(target, webhook_of(**about)))
    else:
        outcome = asyncio.run(_test_endpoint(database.dsn, target, key, about))
    if not isinstance(outcome, Sent):
        raise Failure(outcome.reason)
    click.echo("the endpoint accepted it")


async def _test_endpoint(dsn: str, name: str, key: str, about: dict[str, Any]) -> Outcome:
    if about["secrets"] or about["headers"] or about["header_prefix"]:
        raise click.UsageError("an endpoint has its own secrets and headers: leave them out")
    async with await connect(dsn, "webhook") as connection:
        return await send_test_to(
            connection, name, key=key, allow=about["allow"], proxy=about["proxy"]
        )
