# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""Endpoints of webhooks: create, change and delete them."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .._core import sql
from ..durations import in_seconds
from ..endpoints import KEY, RETRY, WebhookEndpoint, derived_secret, read_keys, stored
from ..errors import InvalidArgument, UnknownGroup
from ..groups import Group
from ..topics import check_group
from .database.callers import fetch_alone

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Unpack

    from ..durations import Seconds
    from ..endpoints import WebhookSettings
    from ..groups import RetryPolicy, Start
    from .database.callers import Publishable

__all__ = ["Webhooks"]


class Webhooks:
    """Manages endpoints of webhooks, through the caller's connections; it holds none of its own.

    ``durable-notify webhook serve`` sends to all of them, and applies changes at once. Each is a
    group of the same name: ``Admin`` has its status, retries, dead letters and replays.

    Connections are those that ``Publisher`` takes. Changes are part of their transaction.

    Args:
        key: where the key is from which secrets are derived: ``env:NAME`` or ``file:PATH``.
            It is read when a secret is asked for. Relays need the same.
    """

    def __init__(self, key: str = KEY) -> None:
        self._key = key

    def create(
        self,
        connection: Publishable,
        name: str,
        *,
        start: Start = "now",
        retry: RetryPolicy | None = None,
        **settings: Unpack[WebhookSettings],
    ) -> WebhookEndpoint:
        """Create an endpoint; ``url`` and ``topics`` have to be given.

        Args:
            start: where it begins: ``"now"`` (what commits from here on),
                ``"beginning"`` (all retained messages), or a time. A group that exists continues
                at its position, and keeps its options.
            retry: when to redeliver what failed; otherwise 12 attempts in nearly three days.

        Raises:
            InvalidArgument: a setting is invalid, or the endpoint exists.
        """
        given = stored(settings)
        if "url" not in given or "topics" not in given:
            raise InvalidArgument("an endpoint needs url and topics")
        group = Group(name, start=start, retry=RETRY if retry is None else retry)
        topics, url, secrets = given.pop("topics"), given.pop("url"), given.pop("secrets", None)
        since = start if isinstance(start, datetime) else None
        params = (
            group.name, topics, url, json.dumps(given), secrets or [], json.dumps(group.stored),
            "since" if since else start, since,
        )  # fmt: skip
        fetch_alone(connection, sql.CREATE_WEBHOOK, params)
        return self.endpoint(connection, group.name)

    def change(
        self, connection: Publishable, name: str, **settings: Unpack[WebhookSettings]
    ) -> None:
        """Change what is given; None sets an option back. Running relays apply it at once.

        Of a new topic it gets what commits from here on. What waits in a topic that it no longer
        has is dropped.

        Raises:
            InvalidArgument: a setting is invalid.
            UnknownGroup: there is no endpoint of this name.
        """
        changes = json.dumps(stored(settings))
        fetch_alone(connection, sql.CHANGE_WEBHOOK, (check_group(name), changes))

    def endpoints(self, connection: Publishable) -> list[WebhookEndpoint]:
        """Return the endpoints that the role may see: those whose groups it may consume in."""
        return self._found(connection, None)

    def endpoint(self, connection: Publishable, name: str) -> WebhookEndpoint:
        """Return one endpoint.

        Raises:
            UnknownGroup: there is no endpoint of this name.
        """
        found = self._found(connection, check_group(name))
        if not found:
            raise UnknownGroup(f'there is no endpoint of webhooks "{name}"')
        return found[0]

    def _found(self, connection: Publishable, name: str | None) -> list[WebhookEndpoint]:
        rows = fetch_alone(connection, sql.WEBHOOKS, (name,))
        return [_endpoint(row) for row in rows]

    def secret(self, endpoint: WebhookEndpoint) -> str:
        """Return the secret with which the receiver verifies: ``whsec_...``.

        Raises:
            InvalidArgument: there is no key, or the endpoint's secrets are not derived.
        """
        if endpoint.secrets:
            raise InvalidArgument(
                f"the secrets of endpoint {endpoint.name!r} are not derived: they are at "
                f"{', '.join(endpoint.secrets)} of the relay"
            )
        return derived_secret(read_keys(self._key)[0], endpoint.salt, endpoint.secret_version)

    def rotate_secret(
        self, connection: Publishable, name: str, *, overlap: Seconds = 86_400.0
    ) -> str:
        """Give an endpoint another secret, and return it.

        For the time of ``overlap``, messages are signed with the one before as well. 0: that is
        invalid at once, and so are all earlier ones.

        Raises:
            InvalidArgument: the secrets are not derived, or the one before the current one is
                still valid.
            UnknownGroup: there is no endpoint of this name.
        """
        read_keys(self._key)  # refused before anything is written
        seconds = in_seconds("overlap", overlap, zero=True)
        fetch_alone(connection, sql.ROTATE_WEBHOOK, (check_group(name), seconds))
        return self.secret(self.endpoint(connection, name))

    def pause(self, connection: Publishable, name: str) -> None:
        """Send nothing more to an endpoint until ``resume``; its messages wait."""
        self.endpoint(connection, name)
        fetch_alone(connection, sql.PAUSE, (name,))

    def resume(self, connection: Publishable, name: str) -> None:
        """Continue a paused endpoint at its position."""
        self.endpoint(connection, name)
        fetch_alone(connection, sql.RESUME, (name,))

    def note(
        self, connection: Publishable, name: str, failure: str | None, *, gone: bool = False
    ) -> bool:
        """Record how an endpoint fails; return whether it is paused because of that.

        Relays call this when it changes, and at intervals. An endpoint is paused if it wants no
        more messages (``gone``), or has failed for longer than its ``pause_after``.

        Args:
            failure: what the audit tells if it is paused; None: it works.
        """
        rows = fetch_alone(connection, sql.NOTE_WEBHOOK, (check_group(name), failure, gone))
        return bool(rows[0][0])

    def delete(self, connection: Publishable, name: str) -> None:
        """Delete an endpoint with its group: its position, retries and dead letters.

        Raises:
            UnknownGroup: there is no endpoint of this name.
        """
        fetch_alone(connection, sql.DELETE_WEBHOOK, (check_group(name),))


def _endpoint(row: Iterable[Any]) -> WebhookEndpoint:
    """Return the endpoint in a row of ``webhooks()``."""
    name, url, topics, options, *rest = row
    return WebhookEndpoint(name, url, topics, json.loads(options), *rest)
