"""The way in: what comes from a broker is published to a topic.

::

    await AsyncIngest(dsn, source="amqp://localhost", place="orders", to="orders").run()

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
from .._async.compat import on_signals
from .._async.links import HEARTBEAT, TRANSIENT, AsyncLink, AsyncOpen, connect
from .._async.publisher import AsyncPublisher
from .._core.complaints import Complaints
from .._core.pacing import backoff
from ..connecting import said
from ..errors import BrokerUnavailable, InvalidArgument
from ..messages import Outgoing, dedup_of, encode
from ..topics import check_key, check_topic
from .broker import broker_class, unless_set

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Arrival", "AsyncIngest", "Source"]

log = logging.getLogger("durable_notify")

#: How long a message is known by its id, in seconds.
WINDOW = 86400.0
_PREFIXES = ("ce_", "ce-", "cloudEvents:", "cloudEvents_")
_OWN = "durable-notify-"


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Arrival:
    """A message as a broker hands it out; `id` is the same whenever it comes again."""

    body: bytes
    id: str | None
    key: str | None
    content_type: str
    headers: Mapping[str, str]
    receipt: Any


class Source(Protocol):
    """Where messages come from."""

    def __init__(self, url: str, place: str, group: str) -> None:
        """Take note of where it is. Raises InvalidArgument for a URL that cannot work."""

    async def connect(self) -> None:
        """Connect. Raises BrokerUnavailable, or InvalidArgument where the place is not there."""

    async def receive(self, most: int) -> list[Arrival]:
        """Return some messages; none, after a while without any. Raises BrokerUnavailable."""

    async def accept(self, arrivals: Sequence[Arrival]) -> None:
        """Acknowledge all that was received last. Raises BrokerUnavailable."""

    async def refuse(self, arrival: Arrival) -> None:
        """Have it not come again; where it goes is the broker's business."""

    async def close(self) -> None:
        """Disconnect; what was not acknowledged comes again."""


class AsyncIngest:
    """Publishes what comes from a broker to a topic.

    It acknowledges to the broker what has committed, and nothing else: nothing is lost. What comes
    again, since an acknowledgement was lost, is known by its id for ``window`` seconds and not
    published twice.

    Args:
        dsn: a libpq connection string or URI.
        source: the broker's URL: ``amqp://``, ``kafka://`` or ``nats://``.
        place: RabbitMQ's queue, Kafka's topic, or NATS's stream.
        to: the topic.
        group: Kafka's consumer group, or the name of NATS's durable consumer.
        batch: the most messages in one transaction.
        window: how long ids are remembered, in seconds.

    Raises:
        InvalidArgument: the URL, a name or an option cannot work.
    """

    def __init__(
        self,
        dsn: str,
        *,
        source: str,
        place: str,
        to: str,
        group: str = "durable-notify",
        batch: int = 500,
        window: float = WINDOW,
    ) -> None:
        check_topic(to)
        if not isinstance(batch, int) or isinstance(batch, bool) or not 1 <= batch <= 10_000:  # noqa: PLR2004
            raise InvalidArgument(f"batch is a whole number from 1 to 10000, not {batch!r}")
        for what, name in (("place", place), ("group", group)):
            if not isinstance(name, str) or not name:
                raise InvalidArgument(f"{what} is a str that is not empty, not {name!r}")
        dedup_of(Outgoing(None, dedup_key="x", dedup_window=window))
        self._source: Source = broker_class(source, "Source")(source, place, group)
        self._dsn = dsn
        self._to = to
        self._batch = batch
        self._window = window
        # JSON goes on as it is: decoded and encoded again, a number of 20 digits is another one.
        self._publisher = AsyncPublisher(dumps=str, trace=False)
        self._link = AsyncLink(dsn, "ingest", AsyncOpen(), HEARTBEAT, 2 * HEARTBEAT)
        self._stopping = asyncio.Event()
        self._complaints = Complaints()
        self.published = 0
        self.refused = 0

    async def run(self) -> None:
        """Ingest until stopped: by ``stop()``, SIGTERM or SIGINT.

        Raises:
            BrokerUnavailable: the broker cannot be reached at the start; once started, an ingest
                outlasts outages, of the database too.
            InvalidArgument: the URL or the place cannot work, says the broker.
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
            await self._link.close()

    def stop(self) -> None:
        """Take nothing more; what is not committed is given back."""
        self._stopping.set()

    async def _ingest(self) -> None:
        failures = 0
        while True:
            try:
                if failures:
                    await self._source.connect()
                arrivals = await self._source.receive(self._batch)
                failures = 0
                if arrivals:
                    await self._publish(arrivals)
                    await self._source.accept(arrivals)
            except BrokerUnavailable as error:
                failures += 1
                await self._wait("ingesting waits for the broker", error, failures)
                await self._source.close()

    async def _wait(self, what: str, error: Exception, failures: int) -> None:
        delay = backoff(failures, 0.1, 30.0)
        level = self._complaints.level(what, error, time.monotonic())
        log.log(level, "%s, next try in %.1f s: %s", what, delay, said(error))
        await asyncio.sleep(delay)

    async def _publish(self, arrivals: Sequence[Arrival]) -> None:
        """Publish messages; returns once they are committed, or are refused."""
        messages = []
        for arrival in arrivals:
            message = self._message(arrival)
            try:
                encode(message, str)
            except InvalidArgument as error:
                log.warning("a message of the broker's is refused: %s", error)
                await self._source.refuse(arrival)
                self.refused += 1
            else:
                messages.append(message)
        failures = 0
        while True:
            try:
                await self._publish_once(messages)
            except TRANSIENT as error:
                # The commit may have come through: the ids tell.
                failures += 1
                await self._wait("ingesting waits for the database", error, failures)
            else:
                self.published += len(messages)
                return

    async def _publish_once(self, messages: Sequence[Outgoing]) -> None:
        try:
            async with self._link.use() as connection:
                await self._publisher.publish_many(connection, self._to, messages)
        except (psycopg.DataError, psycopg.errors.ProgramLimitExceeded, InvalidArgument) as error:
            if len(messages) > 1:
                for message in messages:
                    await self._publish_once([message])
                return
            (message,) = messages
            if isinstance(message.payload, bytes):
                # A character that the database's encoding lacks.
                if not isinstance(error, InvalidArgument) or message.headers == _LACKING:
                    raise
                log.warning("a message is published without its key and headers: %s", error)
                bare = dataclasses.replace(message, key=None, headers=_LACKING)
                await self._publish_once([bare])
                return
            # JSON that PostgreSQL does not hold: a number out of range, nesting too deep.
            log.warning("a message is published as bytes: %s", said(error))
            raw = dataclasses.replace(message, payload=message.payload.encode())
            await self._publish_once([raw])

    def _message(self, arrival: Arrival) -> Outgoing:
        headers: dict[str, Any] = {}
        for name, value in arrival.headers.items():
            prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
            if prefix is not None:
                headers[f"ce_{name[len(prefix) :]}"] = value
            elif not name.startswith(_OWN):
                headers[name] = value
        payload, is_json = _payload(arrival)
        if arrival.content_type and not is_json:
            headers["content-type"] = arrival.content_type
        key = arrival.key
        try:
            check_key(key)
        except InvalidArgument as error:
            log.warning("a message is published without its key: %s", error)
            headers["ingest-error"], key = str(error), None
        return Outgoing(
            payload,
            key=key,
            headers=headers or None,
            dedup_key=None if arrival.id is None else _fit(arrival.id),
            dedup_window=self._window,
        )


def _payload(arrival: Arrival) -> tuple[str | bytes, bool]:
    """Return the text of JSON, or the bytes as they are; and whether it is JSON by its type."""
    kind = arrival.content_type.partition(";")[0].strip().lower()
    plain = kind in ("", "application/json")
    if plain or kind.endswith("+json"):
        with contextlib.suppress(ValueError, RecursionError):
            text = arrival.body.decode()
            json.loads(text, parse_constant=_no_json)
            encode(Outgoing(text), str)  # NUL, lone surrogates
            return text, plain
    return bytes(arrival.body), False


#: The headers of a message of which the database's encoding lacks a character.
_LACKING = {"ingest-error": "the encoding of the database lacks a character of its key or headers"}


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _fit(name: str) -> str:
    """Return a dedup key for an id of any kind."""
    try:
        check_key(name)
    except InvalidArgument:
        return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()
    return name
