"""Publishing inside the caller's own transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..messages import Outgoing, encode
from ..topics import check_topic
from .connections import fetch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ..messages import Dumps
    from .connections import Publishable

__all__ = ["AsyncPublisher"]

_PUBLISH = "SELECT durable_notify.publish(%s::text, %s::jsonb, %s::text, %s::jsonb, %s::bytea)"
_PUBLISH_MANY = (
    "SELECT durable_notify.publish_many("
    "%s::text, %s::text[]::jsonb[], %s::text[], %s::text[]::jsonb[], %s::bytea[])"
)


class AsyncPublisher:
    """Publishes messages through connections that it borrows; it holds none.

    Args:
        dumps: turns a payload into JSON text, instead of ``json.dumps``.
    """

    def __init__(self, *, dumps: Dumps | None = None) -> None:
        self._dumps = dumps

    async def publish(
        self,
        connection: Publishable,
        topic: str,
        payload: Any,
        *,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> int:
        """Publish a message and return its id.

        It is part of the caller's transaction: every group gets it once that commits, and nobody
        if it rolls back. On a psycopg connection in autocommit mode it is committed on return.
        Take your own locks before you publish: the order of a key is that of its ids.

        Args:
            payload: anything JSON, a pydantic model or a dataclass; or bytes, kept as they are.
            key: messages of one key belong together, and in order.
            headers: a mapping from str to JSON values, for what is not the payload's business.

        Raises:
            InvalidArgument: the topic or key is not a name. Nothing was written.
            PayloadError: the payload or a header is not JSON, or too large. Nothing was written.
            UnsupportedConnection: not a connection this can publish through.
        """
        check_topic(topic)
        message = encode(Outgoing(payload, key, headers), self._dumps)
        row = await fetch(connection, _PUBLISH, (topic, *message))
        return int(row[0][0])

    async def publish_many(
        self, connection: Publishable, topic: str, payloads: Iterable[Any]
    ) -> list[int]:
        """Publish many messages in one statement and return their ids, in the order given.

        A payload is what ``publish`` takes; one with a key or headers is an ``Outgoing``. All are
        checked before anything is written. Transaction and errors are those of ``publish``; an
        error names the message's place in the list by a note.
        """
        check_topic(topic)
        encoded = []
        for place, payload in enumerate(payloads):
            message = payload if isinstance(payload, Outgoing) else Outgoing(payload)
            try:
                encoded.append(encode(message, self._dumps))
            except Exception as error:
                error.add_note(f"message {place} of the list; none was published")
                raise
        if not encoded:
            return []
        columns = (
            list(column) if any(value is not None for value in column) else None
            for column in zip(*encoded, strict=True)
        )
        rows = await fetch(connection, _PUBLISH_MANY, (topic, *columns))
        return [row[0] for row in rows]
