"""RabbitMQ, with aio-pika: the extra ``rabbitmq``.

Messages are persistent and mandatory, and the broker confirms each. A mapping has ``exchange`` (by
default ``amq.topic``, which every RabbitMQ has) and ``routing_key`` (by default the topic).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from typing import TYPE_CHECKING, Any

from .._core.sanitize import redact
from ..errors import BrokerUnavailable, InvalidArgument
from .amqp import connection_class, text_of
from .broker import (
    UNCARRIED,
    Rejected,
    RetryLater,
    Sent,
    Unconfirmed,
    WorkingRoutes,
    by_ordering_key,
    client_of,
    error_text,
    kind_of,
    url_parts,
)  # fmt: skip
from .ingest import IncomingMessage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .broker import BrokerMessage, Outcome, Report
    from .routes import Routes

__all__ = ["Relay", "Source", "connect"]

#: How long connecting may take, and the heartbeat of a connection, in seconds.
PATIENCE = 10.0
HEARTBEAT = 15
#: A frame of RabbitMQ has 128 kB, and all headers are in one.
MAX_HEADERS = 100_000
#: How many unacknowledged messages an ingest may have.
PREFETCH = 2000
_SHORT = 255  # bytes: AMQP's limit for a routing key
#: Bytes: AMQP's limit for a header's name. The client silently cuts longer ones.
_NAME = 128
#: The code of a returned message: no queue is bound for it.
NO_ROUTE = 312
#: Codes of a closed channel by which RabbitMQ will never accept a message: content too large, no
#: such exchange, a failed precondition. After a code in neither list, the message waits.
FINAL = (311, 404, 406)
NOT_FOUND = 404
#: An administrator can fix these: access refused, a locked resource.
FORBIDDEN = (403, 405)
#: Codes of a refused connection: the user, or the virtual host.
NO_ENTRY = (403, 530)
#: Headers by which RabbitMQ also routes a message elsewhere; a publisher may not set them.
_STEERING = ("CC", "BCC")


class _Suspect(Unconfirmed):
    """In flight when its channel was closed because of one of the messages in flight."""


class _Alone(Unconfirmed):
    """Its channel was closed because of it, for an unknown reason."""


class Relay:
    """Sends messages to RabbitMQ."""

    fields: Mapping[str, str] = {"exchange": "amq.topic", "routing_key": "{topic}"}

    def __init__(self, url: str) -> None:
        self._pika, self._errors, self._spec = client_of(
            "rabbitmq", "aio_pika", "aio_pika.exceptions", "pamqp.commands"
        )
        check_url(url)
        self._url = url
        self._connection: Any = None
        self._connecting = asyncio.Lock()
        self._idle: list[Any] = []  # open channels that are not in use
        self._known: set[str] = set()  # exchanges that exist
        self._working = WorkingRoutes()

    def check(self, field: str, template: str) -> None:
        """Accept any field, because only the broker can check it."""

    async def connect(self, routes: Routes) -> None:
        """Connect, and check that the exchanges exist."""
        for exchange in sorted(routes.fixed("exchange")):
            if (problem := await self._missing(exchange)) is not None:
                raise InvalidArgument(
                    f"RabbitMQ says: {problem}. Create it, or correct the mapping"
                )
        self._put_back(await self._channel())

    async def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            await self._drop(self._connection)

    async def send(self, messages: Sequence[BrokerMessage], report: Report) -> list[Outcome]:
        """Send messages through a channel of their own; send one by one to find which closes it.

        For example, the broker closes a channel for a message that is too large, and does not
        confirm the other messages in flight.
        """
        channel = await self._channel()
        outcomes = await by_ordering_key(messages, functools.partial(self._begin, channel), report)
        if not channel.is_closed:
            self._put_back(channel)
        if any(isinstance(outcome, _Suspect) for outcome in outcomes):
            await self._one_by_one(messages, outcomes, report)
        return outcomes

    async def _one_by_one(
        self, messages: Sequence[BrokerMessage], outcomes: list[Outcome], report: Report
    ) -> None:
        held: set[object] = {
            message.ordering_key
            for message, outcome in zip(messages, outcomes, strict=True)
            if isinstance(outcome, RetryLater)
        }
        channel = None
        for index, message in enumerate(messages):
            if not isinstance(outcomes[index], Unconfirmed) or (
                message.ordering_key is not None and message.ordering_key in held
            ):
                continue
            if channel is None or channel.is_closed:
                try:
                    channel = await self._channel()
                except BrokerUnavailable:
                    return
            outcome = await self._publish(channel, message, alone=True)
            outcomes[index] = outcome
            if isinstance(outcome, Unconfirmed):
                # Closed for an unknown reason: the messages after it did not cause that.
                if not isinstance(outcome, _Alone):
                    return
                held.add(message.ordering_key)
                continue
            report(index, outcome)
            if isinstance(outcome, RetryLater):
                held.add(message.ordering_key)
        if channel is not None and not channel.is_closed:
            self._put_back(channel)

    async def _begin(self, channel: Any, message: BrokerMessage) -> asyncio.Future[Outcome]:
        return asyncio.create_task(self._publish(channel, message))

    async def _publish(
        self, channel: Any, message: BrokerMessage, *, alone: bool = False
    ) -> Outcome:
        name, routing_key = message.route["exchange"], message.route["routing_key"]
        headers = {
            f"x-{name}" if name in _STEERING else name: value
            for name, value in message.all_headers("cloudEvents:").items()
        }
        if (flaw := _flaw(routing_key, headers)) is not None:
            return Rejected(flaw)
        try:
            if name not in self._known and (problem := await self._missing(name)) is not None:
                return self._working.outcome(_route(message), f"RabbitMQ says: {problem}")
            raw = await channel.get_underlay_channel()
            await raw.basic_publish(
                message.body, exchange=name, routing_key=routing_key, mandatory=True,
                properties=self._properties(message, headers),
                # Trap: otherwise each message waits until the one before is written.
                wait=False,
            )  # fmt: skip
        except Exception as error:  # noqa: BLE001 - sorted, and raised if it is none of these
            return self._outcome_of(error, message, alone=alone)
        self._working.note(_route(message))
        return Sent()

    def _outcome_of(self, error: Exception, message: BrokerMessage, *, alone: bool) -> Outcome:
        """Return the outcome of a message that was not confirmed.

        `alone`: only this message was in flight, so it closed the channel.
        """
        errors = self._errors
        outcome: Outcome = Unconfirmed(f"the connection to RabbitMQ broke: {_said(error)}")
        if isinstance(error, errors.PublishError):
            said = error.frame
            name, routing_key = message.route["exchange"], message.route["routing_key"]
            words = f"RabbitMQ says: {said.reply_code} {said.reply_text}"
            outcome = Unconfirmed(words)
            if said.reply_code == NO_ROUTE:
                words += f"; no queue is bound to exchange {name!r} for routing key {routing_key!r}"
                outcome = self._working.outcome((name, routing_key), words)
        elif isinstance(error, errors.DeliveryError):
            kind = type(error.frame).__name__.lower()
            outcome = RetryLater(f"RabbitMQ did not take it (basic.{kind}): is its queue full?")
        elif isinstance(error, errors.ChannelClosed):
            words = f"RabbitMQ says: {_said(error)}"
            self._known.discard(message.route["exchange"])
            outcome = _Suspect(words)
            if alone:
                code = _code(error)
                outcome = RetryLater(words) if code in FORBIDDEN else _Alone(words)
                if code == NOT_FOUND:
                    outcome = self._working.outcome(_route(message), words)
                elif code in FINAL:
                    outcome = Rejected(words)
        elif isinstance(error, UNCARRIED):
            outcome = Rejected(f"AMQP cannot carry it: {kind_of(error)}")
        elif not isinstance(error, (BrokerUnavailable, *errors.CONNECTION_EXCEPTIONS)):
            raise error
        return outcome

    def _properties(self, message: BrokerMessage, headers: dict[str, str]) -> Any:
        return self._spec.Basic.Properties(
            headers=headers,
            content_type=message.content_type,
            delivery_mode=2,  # persistent
            message_id=message.id,
            timestamp=message.published_at,
        )

    async def _missing(self, exchange: str) -> str | None:
        """Return the broker's text about an exchange that does not exist."""
        if not exchange:  # the default exchange, which always exists
            return None
        if len(exchange.encode()) > _SHORT:
            return f"the exchange's name has over {_SHORT} bytes"
        channel = await self._channel()  # of its own, because a missing exchange closes it
        try:
            await channel.get_exchange(exchange, ensure=True)
        except self._errors.ChannelNotFoundEntity as error:
            return _said(error)
        except self._errors.CONNECTION_EXCEPTIONS as error:
            if isinstance(error, self._errors.ChannelClosed):
                return _said(error)
            raise BrokerUnavailable(f"the connection broke: {_said(error)}") from error
        self._known.add(exchange)
        self._put_back(channel)
        return None

    async def _channel(self) -> Any:
        """Return an open channel that is not in use; reconnect if needed."""
        while self._idle:
            channel = self._idle.pop()
            if not channel.is_closed:
                return channel
        for _ in range(2):
            connection = await self._connected()
            try:
                async with asyncio.timeout(PATIENCE):
                    return await connection.channel(on_return_raises=True)
            except (*self._errors.CONNECTION_EXCEPTIONS, TimeoutError) as error:
                # Trap: a broken connection does not report that it is closed.
                words = f"RabbitMQ opens no channel: {_said(error)}"
                await self._drop(connection)
        raise BrokerUnavailable(words)

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._connection is None or self._connection.is_closed:
                self._idle.clear()
                self._known.clear()
                self._connection = await connect(self._pika, self._url)
            return self._connection

    async def _drop(self, connection: Any) -> None:
        if self._connection is connection:
            self._connection = None
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1):
                await connection.close()

    def _put_back(self, channel: Any) -> None:
        self._idle.append(channel)


def _route(message: BrokerMessage) -> tuple[str, str]:
    return message.route["exchange"], message.route["routing_key"]


def check_url(url: str) -> None:
    """Raise InvalidArgument for a URL that cannot work."""
    parts = url_parts(url)
    if not parts.hostname:
        raise InvalidArgument("the URL names no host: write amqp://USER:PASSWORD@HOST:5672/VHOST")


async def connect(pika: Any, url: str, way: Any = None) -> Any:
    """Connect; `way`: the function to connect with, by default ``pika.connect``.

    Raises:
        BrokerUnavailable: the broker cannot be reached.
        InvalidArgument: the broker refuses the user or the virtual host.
    """
    try:
        async with asyncio.timeout(PATIENCE):
            return await (way or pika.connect)(url, heartbeat=HEARTBEAT)
    except (pika.exceptions.AuthenticationError, pika.exceptions.ProbableAuthenticationError) as e:
        raise InvalidArgument("RabbitMQ refuses user or password of the URL") from e
    except pika.exceptions.CONNECTION_EXCEPTIONS as error:
        words = _said(error)
        if _code(error) in NO_ENTRY:
            raise InvalidArgument(f"RabbitMQ says: {words}. Correct the URL") from error
        if isinstance(error, pika.exceptions.InvalidFrameError):  # it does not contain the code
            words = "it closes the connection; does the virtual host exist, and for this user?"
        raise BrokerUnavailable(f"RabbitMQ cannot be reached: {words or 'no answer'}") from error
    except TimeoutError as error:
        raise BrokerUnavailable(f"RabbitMQ does not answer within {PATIENCE:g} s") from error


def _flaw(routing_key: str, headers: Mapping[str, str]) -> str | None:
    if len(routing_key.encode()) > _SHORT:
        return f"its routing key has over {_SHORT} bytes, which AMQP does not allow"
    size = 0
    for name, value in headers.items():
        length = len(name.encode())
        if not 0 < length <= _NAME:
            return f"a header's name has {length} bytes; AMQP allows 1 to {_NAME}"
        size += length + len(value.encode())
    if size > MAX_HEADERS:
        return f"its headers have {size} bytes; {MAX_HEADERS} fit in a frame of RabbitMQ's"
    return None


#: The client has classes for some codes, and leaves the code out of their texts.
_CODES = {
    "ChannelAccessRefused": 403, "ChannelNotFoundEntity": 404, "ChannelLockedResource": 405,
    "ChannelPreconditionFailed": 406, "ConnectionNotAllowed": 530,
}  # fmt: skip


def _code(error: BaseException) -> int:
    """Return the code with which RabbitMQ closed a channel or a connection; 0: none."""
    given = error.args[0] if error.args else None
    return _CODES.get(type(error).__name__, given if isinstance(given, int) else 0)


def _said(error: BaseException) -> str:
    """Return the text of the broker's, or the client's, error."""
    reason = getattr(error, "reason", None)
    if reason and isinstance(reason, str) and "%" not in reason:
        return redact(reason)
    return error_text(error)


class Source:
    """Receives messages of a RabbitMQ queue."""

    def __init__(self, url: str, queue: str, group: str) -> None:
        del group
        self._pika, self._aiormq, self._pamqp, _ = client_of(
            "rabbitmq", "aio_pika", "aiormq", "pamqp", "pamqp.decode"
        )
        check_url(url)
        self._url, self._name = url, queue
        self._class = connection_class(self._aiormq, self._pamqp)
        self._connection: Any = None
        self._channel: Any = None
        self._tag: str | None = None
        self._kept: set[int] = set()  # delivery tags that are not acknowledged
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()

    async def connect(self) -> None:
        """Connect, and start to consume the queue."""
        arrived: asyncio.Queue[Any] = asyncio.Queue()
        self._arrived, self._kept = arrived, set()
        self._connection = await connect(self._pika, self._url, self._open)
        try:
            self._channel = await self._connection.channel(publisher_confirms=False)
            self._channel.closing.add_done_callback(lambda _: arrived.put_nowait(None))
            # Its queue is deleted or moves: this consumer receives nothing more.
            cancelled = getattr(self._channel, "on_consumer_cancel_callbacks", None)
            if cancelled is not None:
                cancelled.add(lambda *_: arrived.put_nowait(None))
            await self._channel.basic_qos(prefetch_count=PREFETCH)
            await self._channel.queue_declare(self._name, passive=True)
            self._tag = (await self._channel.basic_consume(self._name, arrived.put)).consumer_tag
        except self._aiormq.exceptions.ChannelClosed as error:
            raise InvalidArgument(f"RabbitMQ says: {_said(error)}") from error
        except self._pika.exceptions.CONNECTION_EXCEPTIONS as error:
            raise BrokerUnavailable(f"the connection to RabbitMQ broke: {_said(error)}") from error

    async def _open(self, url: str, heartbeat: int) -> Any:
        from aio_pika.connection import make_url

        connection = self._class(make_url(url, heartbeat=heartbeat))
        await connection.connect()
        return connection

    async def receive(self, limit: int) -> list[IncomingMessage]:
        """Return some messages."""
        try:
            async with asyncio.timeout(5):
                found = [await self._arrived.get()]
        except TimeoutError:
            await self._check_consumer()
            return []
        while len(found) < limit and not self._arrived.empty():
            found.append(self._arrived.get_nowait())
        if None in found:
            raise BrokerUnavailable("the connection to RabbitMQ broke, or the queue was deleted")
        return [self._incoming(message) for message in found]

    async def ack(self, messages: Sequence[IncomingMessage]) -> None:
        """Acknowledge messages: all up to the last in one frame, if none of them is kept."""
        tags = [one.receipt for one in messages if one.receipt not in self._kept]
        if tags and not self._kept:
            await self._acknowledge(tags[-1], multiple=True)
            return
        for tag in tags:
            await self._acknowledge(tag)

    async def _acknowledge(self, tag: int, *, multiple: bool = False) -> None:
        try:
            await self._channel.basic_ack(tag, multiple=multiple)
        except self._pika.exceptions.CONNECTION_EXCEPTIONS as error:
            raise BrokerUnavailable(f"the connection to RabbitMQ broke: {_said(error)}") from error

    async def reject(self, message: IncomingMessage, *, keep: bool = False) -> None:
        """Reject a message to the queue's dead letter exchange; without one, it is dropped.

        `keep`: it stays in the queue, and is redelivered on the next connection.
        """
        # Trap: to acknowledge a rejected message closes the channel.
        self._kept.add(message.receipt)
        if not keep:
            with contextlib.suppress(*self._pika.exceptions.CONNECTION_EXCEPTIONS):
                await self._channel.basic_reject(message.receipt, requeue=False)

    async def close(self) -> None:
        """Disconnect."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(1):
                    await connection.close()

    async def _check_consumer(self) -> None:
        """Check that messages can arrive: if the queue was deleted and recreated, they cannot."""
        if self._tag not in self._channel.consumers:
            raise BrokerUnavailable("RabbitMQ has ended the consumer: was the queue deleted?")
        try:
            async with asyncio.timeout(PATIENCE):
                await self._channel.queue_declare(self._name, passive=True)
        except (*self._pika.exceptions.CONNECTION_EXCEPTIONS, TimeoutError) as error:
            raise BrokerUnavailable(f"the connection to RabbitMQ broke: {_said(error)}") from error

    def _incoming(self, message: Any) -> IncomingMessage:
        properties = message.header.properties
        headers = {
            name: value
            for name, property_ in _PROPERTIES.items()
            if (value := getattr(properties, property_, None)) not in (None, "")
        }
        headers |= properties.headers or {}
        key = headers.pop("durable-notify-key", None)
        known = properties.message_id
        return IncomingMessage(
            body=bytes(message.body),
            # RabbitMQ assigns no id: this is the publisher's.
            id=None if not known else f"rabbitmq/{self._name}/{known}",
            key=None if key is None else _text(key),
            content_type=properties.content_type or "",
            headers={name: _text(value) for name, value in headers.items()},
            receipt=message.delivery.delivery_tag,
        )


#: Properties of a message to publish as headers, unless it has a header of that name.
_PROPERTIES = {
    "content_encoding": "content_encoding", "correlation_id": "correlation_id",
    "reply_to": "reply_to", "type": "message_type", "app_id": "app_id", "user_id": "user_id",
}  # fmt: skip


def _text(value: Any) -> str:
    """Return the value of a header as text: text unchanged, all else as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return text_of(value)
    return json.dumps(value, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    return text_of(value) if isinstance(value, (bytes, bytearray)) else str(value)
