"""``webhook``: try an endpoint out; the options that ``relay`` has for one."""

from __future__ import annotations

import asyncio
from typing import Any

import click

from ..brokers.broker import Sent
from ..brokers.webhooks import WebhookOptions, send_test
from .common import common
from .errors import Failure

__all__ = ["webhook", "webhook_of", "webhook_options"]


def webhook_options(command: Any) -> Any:
    """Add the options of an endpoint."""
    command = click.option(
        "--allow", multiple=True, metavar="CIDR",
        help="Webhooks: a network that may be reached although it is not public.",
    )(command)  # fmt: skip
    return click.option(
        "--secret", "secrets", multiple=True, metavar="env:NAME|file:PATH",
        help="Webhooks: where a secret to sign with is; several while one replaces another. "
        "Otherwise the environment variable DURABLE_NOTIFY_WEBHOOK_SECRET.",
    )(command)  # fmt: skip


def webhook_of(secrets: tuple[str, ...], allow: tuple[str, ...]) -> WebhookOptions | None:
    """Return the options of an endpoint, if any were given."""
    if not secrets and not allow:
        return None
    return WebhookOptions(secrets, allow) if secrets else WebhookOptions(allow=allow)


@click.group("webhook")
@common
def webhook() -> None:
    """Try out an endpoint of webhooks."""


@webhook.command("test")
@common
@click.argument("url")
@webhook_options
def test(url: str, *, secrets: tuple[str, ...], allow: tuple[str, ...]) -> None:
    """Send one signed message of the type durable_notify.test to URL."""
    outcome = asyncio.run(send_test(url, webhook_of(secrets, allow)))
    if not isinstance(outcome, Sent):
        raise Failure(outcome.reason)
    click.echo("the endpoint accepted it")
