"""Ingest: publish messages of a broker to a topic.

    await AsyncIngest(dsn, broker_url="amqp://localhost", queue="orders", topic="orders").run()

An ingest is a service that runs by itself, so there is no synchronous twin.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import logging
import time
from typing import TYPE_CHECKING, Any, Protocol

import psycopg

from .. import schema
from .._async.concurrency import on_signals
from .._async.database.connection import (
    HEARTBEAT,
    TRANSIENT,
    AsyncConnectionRegistry,
    AsyncReconnectingConnection,
    connect,
)
from .._async.publisher import AsyncPublisher
from .._core.checks import check_count
from .._core.log_throttle import LogThrottle
from .._core.pacing import backoff
from ..deprecated import old_spelling
from ..dsn import safe_message
from ..durations import in_seconds
from ..errors import BrokerUnavailable, InvalidArgument
from ..payloads import NewMessage, encode
from ..topics import check_key, check_topic
from .broker import broker_class, unless_set

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..durations import Seconds
    from ..topics import TopicName

__all__ = ["AsyncIngest", "IncomingMessage", "Source", "put"]

log = logging.getLogger("durable_notify")

#: How long the id of a message is remembered, in seconds.
WINDOW = 86400.0
_PREFIXES = ("ce_", "ce-", "cloudEvents:", "cloudEvents_")
_OWN = "durable-notify-"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class IncomingMessage:
    """A message as a broker delivers it; a redelivery has the same `id`."""

    body: bytes
    id: str | None
    key: str | None
    content_type: str
    headers: Mapping[str, Any]  # unchanged text, which PostgreSQL may be unable to store
    receipt: Any


class Source(Protocol):
    """The broker from which an ingest receives messages."""

    def __init__(self, url: str, queue: str, group: str) -> None:
        """Parse the URL, without connecting. Raises InvalidArgument for a URL that cannot work."""

    async def connect(self) -> None:
        """Connect. Raises BrokerUnavailable, or InvalidArgument if the queue does not exist."""

    async def receive(self, limit: int) -> list[IncomingMessage]:
        """Return some messages, or none after a while. Raises BrokerUnavailable."""

    async def ack(self, messages: Sequence[IncomingMessage]) -> None:
        """Acknowledge all messages received last. Raises BrokerUnavailable."""

    async def reject(self, message: IncomingMessage, *, keep: bool = False) -> None:
        """Have the broker drop or dead-letter a message, or `keep` it."""

    async def close(self) -> None:
        """Disconnect; the broker redelivers what was not acknowledged."""


class AsyncIngest:
    """Publishes messages of a broker to a topic.

    It acknowledges only what has committed, so that nothing is lost. If an acknowledgement is lost,
    the broker redelivers the message; for ``dedup_window`` the ingest knows its id, and does not
    publish it twice.

    Args:
        dsn: a libpq connection string or URI.
        broker_url: the broker's URL: ``amqp://``, ``kafka://`` or ``nats://``.
        queue: RabbitMQ's queue, Kafka's topic, or NATS's stream.
        topic: the topic to publish to.
        group: Kafka's consumer group, or the name of NATS's durable consumer.
        batch_size: the most messages in one transaction.
        dedup_window: how long ids are remembered.
        refused: the topic for messages that the database refuses; by default ``TOPIC.refused``.

    Raises:
        InvalidArgument: the URL, a name or an option cannot work.
    """

    @old_spelling({"source": "broker_url", "window": "dedup_window", "batch": "batch_size"})
    def __init__(
        self,
        dsn: str,
        *,
        broker_url: str,
        queue: str,
        topic: TopicName,
        group: str = "durable-notify",
        batch_size: int = 500,
        dedup_window: Seconds = WINDOW,
        refused: str | None = None,
    ) -> None:
        topic = check_topic(topic)
        self._refused = check_topic(f"{topic}.refused" if refused is None else refused)
        check_count("batch_size", batch_size, 10_000)
        for what, name in (("queue", queue), ("group", group)):
            if not isinstance(name, str) or not name:
                raise InvalidArgument(f"{what} must be a str that is not empty, not {name!r}")
        self._window = in_seconds("dedup_window", dedup_window)
        self._source: Source = broker_class(broker_url, "Source")(broker_url, queue, group)
        self._dsn = dsn
        self._topic = topic
        self._batch_size = batch_size
        # JSON passes unchanged: decoding and encoding would change a number of 20 digits.
        self._publisher = AsyncPublisher(dumps=str, trace=False)
        self._connection = AsyncReconnectingConnection(
            dsn, "ingest", AsyncConnectionRegistry(), HEARTBEAT, 2 * HEARTBEAT
        )
        self._stopping = asyncio.Event()
        self._throttle = LogThrottle()
        self.published = 0
        self.refused = 0

    async def run(self) -> None:
        """Ingest until ``stop()``, SIGTERM or SIGINT.

        Raises:
            BrokerUnavailable: the broker cannot be reached at the start. Once started, an ingest
                outlasts outages, also of the database.
            InvalidArgument: the broker says that the URL or the queue cannot work.
            psycopg.Error, SchemaError: the database cannot be used.
        """
        try:
            with on_signals(self.stop):
                async with await connect(self._dsn, "start", HEARTBEAT) as connection:
                    await schema.check_async(connection)
                await self._source.connect()
                await unless_set(self._stopping, self._ingest())
        finally:
            await self._source.close()
            await self._connection.close()

    def stop(self) -> None:
        """Receive nothing more; the broker redelivers what is not committed."""
        self._stopping.set()

    async def _ingest(self) -> None:
        failures = 0
        # Trap: a client may lose the cancellation by stop(). Python 3.11's wait_for() does if the
        # answer arrives at the same moment.
        while not self._stopping.is_set():
            try:
                if failures:
                    await self._source.connect()
                received = await self._source.receive(self._batch_size)
                failures = 0
                if received:
                    await self._publish(received)
                    await self._source.ack(received)
            # InvalidArgument: for example a missing queue. It existed, and may be recreated.
            except (BrokerUnavailable, InvalidArgument) as error:
                failures += 1
                await self._source.close()
                await self._wait("ingesting waits for the broker", error, failures)

    async def _wait(self, what: str, error: Exception, failures: int) -> None:
        delay = backoff(failures, 0.1, 30.0)
        level = self._throttle.level(what, error, time.monotonic())
        log.log(level, "%s, next try in %.1f s: %s", what, delay, safe_message(error))
        await asyncio.sleep(delay)

    async def _publish(self, received: Sequence[IncomingMessage]) -> None:
        """Publish messages; return once they are committed or refused."""
        messages: list[tuple[IncomingMessage, NewMessage]] = []
        for incoming in received:
            message = self._message(incoming)
            try:
                encode(message, str)
            except InvalidArgument as error:
                log.warning("a message of the broker is refused: %s", error)
                await self._source.reject(incoming)
                self.refused += 1
            else:
                messages.append((incoming, message))
        failures = 0
        while messages:
            try:
                await self._publish_all(messages)
            except TRANSIENT as error:
                # It may have committed; the ids show that.
                failures += 1
                await self._wait("ingesting waits for the database", error, failures)
            else:
                return

    async def _publish_all(self, messages: list[tuple[IncomingMessage, NewMessage]]) -> None:
        """Publish messages together, or one by one if one is refused; remove each from the list."""
        try:
            await self._publish_once(self._topic, [message for _, message in messages])
        except _NOT_TAKEN:
            while messages:
                await self._publish_alone(*messages[0])
                del messages[0]
        else:
            self.published += len(messages)
            messages.clear()

    async def _publish_alone(self, incoming: IncomingMessage, message: NewMessage) -> None:
        """Publish a message unchanged, or as bytes, or whole to the topic of refused messages."""
        raw = message
        try:
            await self._publish_once(self._topic, [message])
        except _NOT_TAKEN as error:
            refusal: Exception = error
        else:
            self.published += 1
            return
        if not isinstance(message.payload, bytes):
            # JSON that PostgreSQL cannot store: a number out of range, or nesting too deep.
            raw = dataclasses.replace(message, payload=message.payload.encode())
            with contextlib.suppress(*_NOT_TAKEN):
                await self._publish_once(self._topic, [raw])
                log.warning("a message is published as bytes: %s", safe_message(refusal))
                self.published += 1
                return
        if isinstance(refusal, InvalidArgument):
            # The database's encoding lacks a character of the key or headers.
            with contextlib.suppress(*_NOT_TAKEN):
                bare = dataclasses.replace(raw, key=None, headers=_LACKING)
                await self._publish_once(self._topic, [bare])
                log.warning(
                    "a message is published without its key and headers: %s", safe_message(refusal)
                )
                self.published += 1
                return
        self.refused += 1
        try:
            await self._publish_once(self._refused, [self._whole(raw, refusal)])
        except (*_NOT_TAKEN, psycopg.errors.InsufficientPrivilege) as error:
            words = (
                "a message stays with the broker: topic %r does not take it (%s), nor does %r (%s)"
            )
            log.error(words, self._topic, safe_message(refusal), self._refused, safe_message(error))  # noqa: TRY400
            await self._source.reject(incoming, keep=True)
        else:
            words = "a message is published to %r, because %r does not accept it: %s"
            log.warning(words, self._refused, self._topic, safe_message(refusal))

    def _whole(self, message: NewMessage, refusal: Exception) -> NewMessage:
        """Return a message for the topic of refused messages."""
        headers = dict(message.headers or {})
        headers |= {"ingest-error": safe_message(refusal), "ingest-topic": self._topic}
        # It has a key, because this topic may be compacted too.
        return dataclasses.replace(message, key=message.key or message.dedup_key, headers=headers)

    async def _publish_once(self, topic: str, messages: Sequence[NewMessage]) -> None:
        async with self._connection.use() as connection:
            await self._publisher.publish_many(connection, topic, messages)

    def _message(self, incoming: IncomingMessage) -> NewMessage:
        headers: dict[str, Any] = {}
        flaws: list[str] = []
        for given, value in incoming.headers.items():
            prefix = next((prefix for prefix in _PREFIXES if given.startswith(prefix)), None)
            if prefix is None and given.startswith(_OWN):
                continue
            name = given if prefix is None else f"ce_{given[len(prefix) :]}"
            kept, odd = _storable(value)
            name, odd_name = _storable(name)
            if odd or odd_name:
                flaws.append(f"header {name!r} has characters that PostgreSQL cannot store")
            headers[name] = kept
        payload, is_json = _payload(incoming)
        if incoming.content_type and not is_json:
            headers["content-type"], _ = _storable(incoming.content_type)
        key = incoming.key
        try:
            check_key(key)
        except InvalidArgument as error:
            log.warning("a message is published without its key: %s", error)
            flaws.append(str(error))
            headers["ingest-key"], key = _storable(key)[0], None
        if flaws:
            headers["ingest-error"] = "; ".join(flaws)
        return NewMessage(
            payload,
            key=key,
            headers=headers or None,
            dedup_key=None if incoming.id is None else _fit(incoming.id),
            dedup_window=self._window,
        )


#: Errors of one message, independent of the others: its type, its form, or a trigger.
_NOT_TAKEN = (
    InvalidArgument, psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded,
    psycopg.errors.StatementTooComplex, psycopg.errors.RaiseException,
)  # fmt: skip


def _storable(value: Any) -> tuple[Any, bool]:
    r"""Return text that PostgreSQL can store, NUL as ``\x00``; and whether it was changed."""
    if isinstance(value, list):
        found = [_storable(one) for one in value]
        return [one for one, _ in found], any(odd for _, odd in found)
    if not isinstance(value, str):
        return value, False
    text = value.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
    return text, text != value


def put(headers: dict[str, Any], name: str, value: Any) -> None:
    """Add a header; a repeated one becomes a list of values."""
    if name not in headers:
        headers[name] = value
    elif isinstance(headers[name], list):
        headers[name].append(value)
    else:
        headers[name] = [headers[name], value]


def _payload(incoming: IncomingMessage) -> tuple[str | bytes, bool]:
    """Return the text of JSON, or the bytes unchanged; and whether its type says JSON."""
    kind = incoming.content_type.partition(";")[0].strip().lower()
    plain = kind in ("", "application/json")
    if plain or kind.endswith("+json"):
        with contextlib.suppress(ValueError, RecursionError):
            text = incoming.body.decode()
            json.loads(text, parse_constant=_no_json)
            encode(NewMessage(text), str)  # NUL, lone surrogates
            return text, plain
    return bytes(incoming.body), False


#: The headers of a message with a character that the database's encoding lacks.
_LACKING = {"ingest-error": "the encoding of the database lacks a character of its key or headers"}


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _fit(name: str) -> str:
    """Return a dedup key for an id of any kind."""
    try:
        check_key(name)
    except InvalidArgument:
        return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    return name
