"""Publishing inside the caller's own transaction."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, overload

from .._core import sql
from .._core.emitter import EventEmitter
from .._core.tracing import with_trace
from ..errors import InvalidArgument
from ..events import Published
from ..middleware import Publishing, check_middleware, generators
from ..options import check_on_event
from ..payloads import Encoded, NewMessage, dedup_of, encode, stored, times_of
from ..topics import check_topic
from .concurrency import AWAITS, within
from .database.callers import fetch

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from typing import LiteralString

    from ..codecs import T
    from ..durations import Seconds
    from ..events import OnEvent
    from ..middleware import Middleware
    from ..payloads import Dumps
    from ..topics import Topic, TopicName
    from .database.callers import Publishable

__all__ = ["AsyncPublisher"]

_NO_TIMES = (None, None, None, None)
_NO_DEDUP = (None, None)


class AsyncPublisher:
    """Publishes messages through the caller's connections; it holds none of its own.

    Args:
        dumps: turns a payload into JSON text, instead of ``json.dumps``.
        trace: whether messages carry the current OpenTelemetry span, if there is one, in the
            headers ``traceparent`` and ``tracestate``.
        middleware: runs around each call, the first outermost (``Middleware``).
        on_event: a function, or several, called with every event (``durable_notify.events``).
    """

    def __init__(
        self,
        *,
        dumps: Dumps | None = None,
        trace: bool = True,
        middleware: Sequence[Middleware] = (),
        on_event: OnEvent | Sequence[OnEvent] | None = None,
    ) -> None:
        check_on_event(on_event)
        checked = check_middleware(middleware, awaited=AWAITS)
        self._around = generators(checked, "publishing", awaited=AWAITS)
        self._dumps = dumps
        self._trace = trace
        self._emitter = EventEmitter(on_event)

    async def publish(
        self,
        connection: Publishable,
        topic: str | Topic[T],
        payload: T | NewMessage[T],
        *,
        key: str | None = None,
        headers: Mapping[str, Any] | None = None,
        deliver_at: datetime | None = None,
        delay: Seconds | None = None,
        expires_at: datetime | None = None,
        ttl: Seconds | None = None,
        dedup_key: str | None = None,
        dedup_window: Seconds = 3600.0,
    ) -> int:
        """Publish a message and return its id.

        The message is part of the caller's transaction. Every group receives it once that commits,
        and none if it rolls back. On a connection in autocommit mode, also on one of asyncpg or
        Django outside of a transaction, it is committed on return. Take your own locks before you
        publish: messages of a key are ordered by id.

        Args:
            topic: its name, or a ``Topic``, whose type the payload must have.
            payload: any JSON value, a pydantic model or a dataclass; bytes, stored unchanged; or a
                ``NewMessage`` with all the arguments below.
            key: messages of one key belong together, and are delivered in order.
            headers: a mapping from str to JSON values, for metadata about the payload.
            deliver_at: the earliest time of delivery.
            delay: the same as a time from now, by the database's clock.
            expires_at: groups do not receive the message from then on.
            ttl: how long the message can be delivered, from its time of delivery.
            dedup_key: a second message with this key and topic within ``dedup_window`` is not
                published; the id of the first is returned. If another transaction is publishing
                under the key, this waits for it to end.

        Raises:
            InvalidArgument: the topic, key or an option is invalid. Nothing was written.
            PayloadError: the payload or a header is not JSON, too large, or not of the topic's
                type. Nothing was written.
            UnsupportedConnection: the connection is of another kind.
        """
        given = (key, headers, deliver_at, delay, expires_at, ttl, dedup_key, dedup_window)
        message: NewMessage[Any] = (
            payload if isinstance(payload, NewMessage) else NewMessage(payload, *given)
        )
        name = check_topic(topic)
        if self._around:
            return (await self._publish_within(connection, topic, [message], is_batch=False))[0]
        return await self._publish(connection, name, stored(topic, message))

    async def _publish(self, connection: Publishable, topic: str, message: NewMessage[Any]) -> int:
        row = self._encode(message)
        before = time.monotonic()
        if len(row) == len(_PLAIN):
            rows = await fetch(connection, sql.PUBLISH, (topic, *row))
        else:
            rows = await fetch(
                connection, sql.PUBLISH_WITH_OPTIONS, (topic, *row, *_REST[len(row) :])
            )
        self._emit_published(topic, 1, before)
        return int(rows[0][0])

    @overload
    async def publish_many(
        self, connection: Publishable, topic: str, payloads: Iterable[Any]
    ) -> list[int]: ...
    @overload
    async def publish_many(
        self, connection: Publishable, topic: Topic[T], payloads: Iterable[T | NewMessage[T]]
    ) -> list[int]: ...
    async def publish_many(
        self, connection: Publishable, topic: TopicName, payloads: Iterable[Any]
    ) -> list[int]:
        """Publish many messages in one statement and return their ids, in the order given.

        A payload is one that ``publish`` takes, or a ``NewMessage`` with a key, headers or options.
        All are checked before anything is written. Transaction and errors are those of ``publish``.
        A note on the error gives the message's index in the list.
        """
        check_topic(topic)
        messages = [
            payload if isinstance(payload, NewMessage) else NewMessage(payload)
            for payload in payloads
        ]
        if self._around:
            return await self._publish_within(connection, topic, messages, is_batch=True)
        return await self._publish_many(connection, topic, messages)

    async def _publish_many(
        self, connection: Publishable, topic: TopicName, messages: Iterable[NewMessage[Any]]
    ) -> list[int]:
        encoded = []
        for index, message in enumerate(messages):
            try:
                encoded.append(self._encode(stored(topic, message)))
            except Exception as error:
                error.add_note(f"message {index} of the list; none was published")
                raise
        if not encoded:
            return []
        longest = max(map(len, encoded))
        whole = [row + _REST[len(row) : longest] for row in encoded]
        columns = (
            list(column) if any(value is not None for value in column) else None
            for column in zip(*whole, strict=True)
        )
        name = check_topic(topic)
        before = time.monotonic()
        rows = await fetch(connection, _MANY[longest], (name, *columns))
        self._emit_published(name, len(rows), before)
        return [row[0] for row in rows]

    async def _publish_within(
        self,
        connection: Publishable,
        topic: TopicName,
        messages: list[NewMessage[Any]],
        *,
        is_batch: bool,
    ) -> list[int]:
        """Publish within the middleware, which may replace the messages."""
        name = check_topic(topic)

        async def innermost(publishing: Publishing, _: None) -> None:
            given = publishing.messages
            if len(given) != 1 and not is_batch:
                raise InvalidArgument(
                    f"a middleware made {len(given)} messages of one: publish() publishes one, "
                    "and publish_many() any number"
                )
            if is_batch:
                publishing.ids = await self._publish_many(connection, topic, given)
            else:
                message = stored(topic, given[0])
                publishing.ids = [await self._publish(connection, name, message)]

        chain: Any = innermost
        for around in reversed(self._around):
            chain = within(around, chain)
        publishing = Publishing(name, messages, is_batch=is_batch)
        await chain(publishing, None)
        if len(publishing.ids) != len(publishing.messages):
            raise RuntimeError("a middleware has suppressed the error that publishing raised")
        return publishing.ids

    def _emit_published(self, topic: str, messages: int, before: float) -> None:
        if self._emitter:
            seconds = time.monotonic() - before
            self._emitter.emit(Published(topic=topic, messages=messages, seconds=seconds))

    def _encode(self, message: NewMessage[Any]) -> tuple[Any, ...]:
        """Return a message's columns: the required ones, and those of the options it uses."""
        if self._trace:
            message = with_trace(message)
        plain = encode(message, self._dumps)
        times, dedup = times_of(message), dedup_of(message)
        if dedup is not None:
            return (*plain, *(times or _NO_TIMES), *dedup)
        return plain if times is None else (*plain, *times)


_PLAIN = Encoded._fields
#: The value of each column that a message does not use.
_REST: tuple[Any, ...] = (*(None for _ in _PLAIN), *_NO_TIMES, *_NO_DEDUP)
_MANY: dict[int, LiteralString] = {
    len(_PLAIN): sql.PUBLISH_MANY,
    len(_PLAIN) + len(_NO_TIMES): sql.PUBLISH_MANY_TIMED,
    len(_REST): sql.PUBLISH_EACH,
}
