"""Adopting what exists: programs with LISTEN and NOTIFY, and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._core import sql
from .._core.sqlstate import reported
from ..dsn import safe_message
from ..errors import InvalidArgument
from ..models import BridgeInfo
from ..topics import check_channel, check_topic
from .database.callers import fetch_alone

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..topics import TopicName
    from .database.callers import Publishable

__all__ = ["AsyncBridge"]

#: The SQLSTATEs of what is no table's name: it is invalid, no SQL, or of another database.
_NO_NAME = ("42602", "42601", "0A000")


class AsyncBridge:
    """Bridges LISTEN, NOTIFY and tables to topics, through the caller's connections.

    Connections are those that ``AsyncPublisher`` takes. Changes are part of their transaction.
    All methods are for the owner of the schema.
    """

    async def mirror(self, connection: Publishable, topic: TopicName, channel: str) -> str | None:
        """Notify a channel of each message published to a topic from here on.

        For programs that only LISTEN. The payload of the notification is the text of a JSON
        string, other JSON as JSON, bytes as base64; from 8000 bytes on, the message's id. Every
        role that can connect can listen to it. Returns the channel that the topic had before.

        Raises:
            InvalidArgument: the name of the channel is invalid or reserved for this library; or
                the transaction is not READ COMMITTED.
        """
        rows = await fetch_alone(
            connection, sql.SET_MIRROR, (check_topic(topic), check_channel(channel))
        )
        return None if rows[0][0] is None else str(rows[0][0])

    async def unmirror(self, connection: Publishable, topic: TopicName) -> str | None:
        """Stop mirroring a topic; return the channel that it had."""
        rows = await fetch_alone(connection, sql.SET_MIRROR, (check_topic(topic), None))
        return None if rows[0][0] is None else str(rows[0][0])

    async def create_compat(self, connection: Publishable) -> None:
        """Create the schema durable_notify_compat, whose pg_notify() publishes durably.

        A role uses it if its search_path names it before pg_catalog.

        Raises:
            InvalidArgument: another schema has this name.
        """
        await fetch_alone(connection, sql.CREATE_COMPAT, ())

    async def drop_compat(self, connection: Publishable) -> bool:
        """Drop that schema: all programs notify as before. Return whether it existed."""
        return bool((await fetch_alone(connection, sql.DROP_COMPAT, ()))[0][0])

    async def watch(
        self,
        connection: Publishable,
        table: str,
        topic: TopicName,
        *,
        columns: Iterable[str] | None = None,
        with_old: bool = True,
    ) -> str:
        """Publish each insert, update, delete and truncate of a table; return its full name.

        Needs the TRIGGER right on the table. A second call with the same topic replaces the
        first, and waits for no writer if nothing changes.

        Args:
            table: its name as in SQL.
            topic: where to publish the changes; the primary key is the messages' key.
            columns: publish only these; an update that changes none of them is not published.
            with_old: publish the old values of updates too.

        Raises:
            InvalidArgument: there is no such table or column, or it cannot be watched.
            psycopg.errors.LockNotAvailable: others wrote to the table for 3 seconds.
        """
        if isinstance(columns, str):
            raise InvalidArgument(f"columns must be an iterable of names, not {columns!r}")
        chosen = None if columns is None else list(columns)
        full_name = await self._named(connection, table)
        await fetch_alone(connection, sql.WATCH, (full_name, check_topic(topic), chosen, with_old))
        return full_name

    async def unwatch(self, connection: Publishable, table: str, topic: TopicName) -> bool:
        """Undo ``watch``, as the table's owner; return whether the table was watched.

        Raises:
            InvalidArgument: there is no such table.
            psycopg.errors.LockNotAvailable: others used the table for 3 seconds.
        """
        full_name = await self._named(connection, table)
        return bool(
            (await fetch_alone(connection, sql.UNWATCH, (full_name, check_topic(topic))))[0][0]
        )

    async def bridges(self, connection: Publishable) -> list[BridgeInfo]:
        """Return mirrors, watches, and the compatibility schema if it exists."""
        return [BridgeInfo(*row) for row in await fetch_alone(connection, sql.BRIDGES, ())]

    async def _named(self, connection: Publishable, table: str) -> str:
        """Return a table's name with its schema, in quotes if they are needed."""
        if not isinstance(table, str) or "\0" in table:
            raise InvalidArgument(f"name the table as in SQL, as a str, not {table!r}")
        try:
            rows = await fetch_alone(connection, sql.FULL_NAME_OF_TABLE, (table,))
        except Exception as error:
            if reported(error).sqlstate not in _NO_NAME:
                raise
            raise InvalidArgument(
                f"{table!r} is not the name of a table: {safe_message(error)}"
            ) from error
        if not rows:
            raise InvalidArgument(
                f"there is no table {table}: name it as in SQL, with its schema if that is not "
                "in the search_path"
            )
        return str(rows[0][0])
