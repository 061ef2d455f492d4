"""Kafka, with confluent-kafka: the extra ``kafka``.

The producer is idempotent: it retries without a limit, and neither duplicates nor reorders. A
mapping has ``topic`` (by default the topic) and ``key`` (by default the key). The URL's query has
options of librdkafka.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

from .._core.log_throttle import LogThrottle
from .._core.sanitize import redact
from ..errors import BrokerUnavailable, InvalidArgument
from .broker import (
    SENT,
    UNCARRIED,
    Rejected,
    RetryLater,
    Unconfirmed,
    WorkingRoutes,
    client_of,
    kind_of,
)
from .ingest import IncomingMessage, put
from .kafka_topics import TopicIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .broker import BrokerMessage, Outcome, Report
    from .routes import Routes

__all__ = ["Relay", "Source", "settings_of"]

log = logging.getLogger("durable_notify")

#: How long to wait for an answer at the start, in seconds.
PATIENCE = 10.0
#: How often to look for outcomes while some are missing, in seconds: at first, and at most; and how
#: often to look for errors otherwise.
SOON, LATER, IDLE = 0.001, 0.05, 0.2
#: How often to ask for a topic that the broker may be creating.
ASKED = 5
#: Errors by which Kafka will never accept a message. After an error in neither list, it waits.
FINAL = (
    "MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC",
    "TOPIC_EXCEPTION", "INVALID_RECORD", "POLICY_VIOLATION", "_INVALID_ARG", "INVALID_MSG_SIZE",
    "_UNKNOWN_PARTITION", "INVALID_TIMESTAMP", "UNSUPPORTED_FOR_MESSAGE_FORMAT",
)  # fmt: skip
#: Those of them by which its topic does not exist.
NOWHERE = ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC")
#: Errors of one topic that an administrator can fix.
FORBIDDEN = ("TOPIC_AUTHORIZATION_FAILED",)
_TOO_LARGE = "MSG_SIZE_TOO_LARGE"
_FIXED = {"enable.idempotence": True, "acks": "all", "message.timeout.ms": 0}
#: With this, Java's producers choose the same partition for a key.
_DEFAULTS = {"partitioner": "murmur2_random", "client.id": "durable-notify"}


class Relay:
    """Sends messages to Kafka."""

    fields: Mapping[str, str] = {"topic": "{topic}", "key": "{key}"}

    def __init__(self, url: str) -> None:
        (self._kafka,) = client_of("kafka", "confluent_kafka")
        self._settings = {**_DEFAULTS, **settings_of(url), **_FIXED}
        self._producer: _Producer | None = None
        self._working = WorkingRoutes()

    def check(self, field: str, template: str) -> None:
        """Accept any field, because only the broker can check it."""

    async def connect(self, routes: Routes) -> None:
        """Connect, and check that the topics exist, or can be created."""
        self._producer = _Producer(self._kafka, self._settings, self._working)
        await asyncio.to_thread(self._check_topics, self._producer, sorted(routes.fixed("topic")))

    async def close(self) -> None:
        """Disconnect."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.close()

    async def send(self, messages: Sequence[BrokerMessage], report: Report) -> list[Outcome]:
        """Send messages all at once, because the producer keeps their order."""
        if self._producer is None:
            self._producer = _Producer(self._kafka, self._settings, self._working)
        producer = self._producer
        outcomes = await producer.send(messages, report)
        # Trap: records are sent in batches, and a broker refuses a whole batch as too large.
        for index, outcome in enumerate(outcomes):
            if isinstance(outcome, _TooLarge):
                (alone,) = await producer.send([messages[index]])
                outcomes[index] = _final(alone)
                if not isinstance(alone, Unconfirmed):
                    report(index, outcomes[index])
        if producer.is_broken:  # a fatal error: only a new producer can continue
            self._producer = None
            await producer.close()
        return outcomes

    def _check_topics(self, producer: _Producer, topics: list[str]) -> None:
        """Ask for the topics until they exist: the broker may create them. Run it in a thread."""
        try:
            there = producer.client.list_topics(timeout=PATIENCE).topics
            for topic in topics:
                for left in range(ASKED, -1, -1):
                    if topic in there and there[topic].error is None:
                        break
                    if not left:
                        error = there[topic].error if topic in there else "it does not exist"
                        raise InvalidArgument(
                            f"Kafka says of topic {topic!r}: {error}. Create it, or correct the "
                            "mapping"
                        )
                    there = producer.client.list_topics(topic, timeout=PATIENCE).topics
                    time.sleep(0.2)
        except self._kafka.KafkaException as error:
            producer.client.poll(0)  # receives the cause
            said = producer.last_error or error.args[0]
            if said.name() in ("_AUTHENTICATION", "SASL_AUTHENTICATION_FAILED", "_SSL"):
                raise InvalidArgument(f"Kafka says: {said}. Correct the URL") from error
            raise BrokerUnavailable(f"Kafka cannot be reached: {said}") from error


class _TooLarge(Rejected):
    """The message, or another one in its batch, is too large."""


class _Producer:
    """A producer, and a task that receives the outcomes.

    Trap: not a thread. Its client takes Python's lock again for each outcome, and would wait up to
    5 ms for it while the event loop has work.
    """

    def __init__(self, kafka: Any, settings: Mapping[str, Any], working: WorkingRoutes) -> None:
        self._kafka = kafka
        self.last_error: Any = None
        self.is_broken = False
        self._throttle = LogThrottle()
        self._working = working
        self._sending = 0
        self._sent = asyncio.Event()
        try:
            self.client = kafka.Producer({**settings, "error_cb": self._on_error, "logger": log})
        except (kafka.KafkaException, TypeError) as error:
            raise InvalidArgument(f"the URL of Kafka cannot work: {_said(error)}") from error
        self._polling = asyncio.create_task(self._poll())

    async def close(self) -> None:
        """Close it, and give up what is not confirmed."""
        self._polling.cancel()
        self.client.purge()
        await asyncio.to_thread(self.client.flush, 1)

    async def _poll(self) -> None:
        pause = SOON
        while True:
            pause = SOON if self.client.poll(0) else min(2 * pause, LATER)
            if self._sending:
                await asyncio.sleep(pause)
                continue
            self._sent.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._sent.wait(), IDLE)
            pause = SOON

    def _on_error(self, error: Any) -> None:
        self.last_error = error
        self.is_broken |= error.fatal()
        what = BrokerUnavailable(str(error))
        level = self._throttle.level(f"Kafka {error.name()}", what, time.monotonic())
        log.log(level, "relaying waits for Kafka: %s", _said(error))

    async def send(
        self, messages: Sequence[BrokerMessage], report: Report | None = None
    ) -> list[Outcome]:
        batch = _Batch(messages, self._outcome_of, report)
        self._sending += 1
        self._sent.set()
        try:
            for index, message in enumerate(messages):
                receive = functools.partial(batch.receive, index)
                try:
                    while not self._produce(message, receive):  # noqa: ASYNC110 - it has no event
                        await asyncio.sleep(SOON)
                except self._kafka.KafkaException as error:
                    outcome = self._outcome_of(error.args[0], message.route["topic"])
                    batch.put(index, _final(outcome))
                except UNCARRIED as error:
                    batch.put(index, Rejected(f"Kafka cannot carry it: {kind_of(error)}"))
            await batch.done
        finally:
            self._sending -= 1
        return batch.outcomes

    def _produce(self, message: BrokerMessage, receive: Callable[[Any, Any], None]) -> bool:
        """Give a message to the producer, which reports later; False: its queue is full."""
        headers = message.all_headers("ce_")
        headers["content-type"] = message.content_type
        route = message.route
        try:
            # The client encodes text, faster than Python would.
            self.client.produce(
                route["topic"], message.body, route["key"] or None, headers=headers,
                timestamp=int(message.published_at.timestamp() * 1000), on_delivery=receive,
            )  # fmt: skip
        except BufferError:
            return False
        return True

    def _outcome_of(self, error: Any, topic: str) -> Outcome:
        if error is None:
            self._working.note(topic)
            return SENT
        self.is_broken |= error.fatal()
        name, words = error.name(), f"Kafka says: {_said(error)}"
        if error.fatal():
            return Unconfirmed(words)
        if name == _TOO_LARGE:
            return _TooLarge(words)
        if name in NOWHERE:
            return self._working.outcome(topic, words)
        if name in FORBIDDEN:
            return RetryLater(words)
        return Rejected(words) if name in FINAL else Unconfirmed(words)


def _final(outcome: Outcome) -> Outcome:
    """Return the outcome of a message sent alone: if it failed as too large, it is too large."""
    return Rejected(outcome.reason) if isinstance(outcome, _TooLarge) else outcome


class _Batch:
    """Collects the outcomes of some messages."""

    def __init__(
        self,
        messages: Sequence[BrokerMessage],
        outcome_of: Callable[[Any, str], Outcome],
        report: Report | None,
    ) -> None:
        self._messages, self._outcome_of, self._report = messages, outcome_of, report
        self._loop = asyncio.get_running_loop()
        self._received: deque[tuple[int, Any]] = deque()
        self._will_take = False
        self._left = len(messages)
        self.outcomes: list[Outcome] = [Unconfirmed("it was not confirmed")] * len(messages)
        self.done: asyncio.Future[None] = self._loop.create_future()

    def receive(self, index: int, error: Any, _message: Any) -> None:
        """Receive a delivery report, in the event loop or the thread that closes the producer."""
        self._received.append((index, error))
        # Many reports arrive at once: wake the loop once for all of them.
        if not (self._will_take or self._loop.is_closed()):
            self._will_take = True
            self._loop.call_soon_threadsafe(self._take)

    def _take(self) -> None:
        self._will_take = False  # Trap: first, because the other thread appends and then asks
        messages, received, outcome_of = self._messages, self._received, self._outcome_of
        while received:
            index, error = received.popleft()
            self.put(index, outcome_of(error, messages[index].route["topic"]))

    def put(self, index: int, outcome: Outcome) -> None:
        """Record an outcome, in the event loop."""
        self.outcomes[index] = outcome
        self._left -= 1
        if self._report is not None and not isinstance(outcome, (Unconfirmed, _TooLarge)):
            self._report(index, outcome)
        if not self._left and not self.done.done():
            self.done.set_result(None)


def settings_of(url: str) -> dict[str, str]:
    """Return librdkafka's options for a URL: ``kafka://USER:PASSWORD@HOST:9092,HOST?OPTION=VALUE``.

    Raises:
        InvalidArgument: it names no host.
    """
    rest = url.partition("://")[2]
    authority, _, query = rest.partition("?")
    authority = authority.rstrip("/")
    user, _, hosts = authority.rpartition("@")
    if not all(host.partition(":")[0] for host in hosts.split(",")) or "/" in hosts:
        raise InvalidArgument("the URL names no host: write kafka://HOST:9092,HOST:9092")
    settings = {"bootstrap.servers": hosts}
    if user:
        name, _, password = user.partition(":")
        settings |= {"sasl.username": unquote(name), "sasl.password": unquote(password)}
    settings |= dict(parse_qsl(query))
    if bad := settings.keys() & _FIXED.keys():
        raise InvalidArgument(f"{min(bad)} cannot be changed: messages would be lost")
    return settings


def _said(error: Any) -> str:
    if not hasattr(error, "str"):
        error = error.args[0] if getattr(error, "args", None) else error
    return redact(error.str() if hasattr(error, "str") else str(error))


class Source:
    """Receives records of a Kafka topic, as a member of a consumer group."""

    def __init__(self, url: str, queue: str, group: str) -> None:
        (self._kafka,) = client_of("kafka", "confluent_kafka")
        self._topic = queue
        self._settings = {
            "client.id": "durable-notify",
            "auto.offset.reset": "earliest",
            **settings_of(url),
            "group.id": group,
            "enable.auto.commit": False,
        }
        self._consumer: Any = None
        self._identity: Any = None
        self._received: list[IncomingMessage] = []
        self._throttle = LogThrottle()

    async def connect(self) -> None:
        """Connect, and check that the topic exists."""
        try:
            self._consumer = self._kafka.Consumer(
                {**self._settings, "logger": log, "error_cb": self._log_error}
            )
        except (self._kafka.KafkaException, TypeError) as error:
            raise InvalidArgument(f"the URL of Kafka cannot work: {_said(error)}") from error
        try:
            there = await asyncio.to_thread(self._consumer.list_topics, timeout=PATIENCE)
        except self._kafka.KafkaException as error:
            raise BrokerUnavailable(f"Kafka cannot be reached: {_said(error)}") from error
        if self._topic not in there.topics:
            raise InvalidArgument(f"Kafka says: there is no topic {self._topic!r}")
        self._identity = TopicIdentity(
            self._kafka, {**self._settings, "logger": log, "error_cb": self._log_error}, self._topic
        )
        self._consumer.subscribe(
            [self._topic], on_assign=self._identity.assigned, on_revoke=self._revoked
        )

    async def receive(self, limit: int) -> list[IncomingMessage]:
        """Return some records."""
        return await asyncio.to_thread(self._receive, self._consumer, limit)

    def _receive(self, consumer: Any, limit: int) -> list[IncomingMessage]:
        self._received = []
        while len(self._received) < limit:
            record = consumer.poll(0.01 if self._received else 0.5)
            if record is None:
                break
            error = record.error()
            if error is None:
                self._received.append(self._incoming(record))
            elif error.fatal():
                raise BrokerUnavailable(f"Kafka says: {_said(error)}")
            else:
                self._log_error(error)
        if not self._received:
            try:
                self._identity.look(consumer)
            except self._kafka.KafkaException as failure:
                self._log_error(failure.args[0])
        return self._received

    def _revoked(self, _consumer: Any, partitions: list[Any]) -> None:
        """Forget records of partitions that another member reads now; `poll` calls this.

        Trap: published beside that member, they could take a later place than the ones after them.
        """
        gone = {place.partition for place in partitions}
        self._received = [one for one in self._received if one.receipt[0] not in gone]

    def _log_error(self, error: Any) -> None:
        """Log an error of Kafka; its client retries itself."""
        what = BrokerUnavailable(str(error))
        level = self._throttle.level(f"Kafka {error.name()}", what, time.monotonic())
        log.log(level, "ingesting waits for Kafka: %s", _said(error))

    async def ack(self, messages: Sequence[IncomingMessage]) -> None:
        """Commit the offsets, unless the topic is another one by now."""
        last: dict[int, int] = {}
        for message in messages:
            partition, offset = message.receipt
            last[partition] = offset + 1
        try:
            await asyncio.to_thread(self._commit, self._consumer, last)
        except self._kafka.KafkaException as error:
            # The partition was reassigned, or Kafka is down: offsets identify redelivered records.
            log.info("offsets were not committed: %s", _said(error))

    def _commit(self, consumer: Any, last: Mapping[int, int]) -> None:
        if not self._identity.has_changed(consumer):
            offsets = [
                self._kafka.TopicPartition(self._topic, partition, offset, self._identity.id)
                for partition, offset in last.items()
            ]
            consumer.commit(offsets=offsets, asynchronous=False)

    async def reject(self, message: IncomingMessage, *, keep: bool = False) -> None:
        """Skip a message, which stays in the log."""

    async def close(self) -> None:
        """Disconnect."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await asyncio.to_thread(consumer.close)

    def _incoming(self, record: Any) -> IncomingMessage:
        headers: dict[str, Any] = {}
        for name, value in record.headers() or ():
            text = None if value is None else value.decode(errors="backslashreplace")
            put(headers, name, text)
        kind = headers.pop("content-type", None)
        key = record.key()
        partition, offset = record.partition(), record.offset()
        return IncomingMessage(
            body=record.value() or b"",
            # With the time, because a recreated topic counts from 0 again.
            id=f"kafka/{self._topic}/{partition}/{offset}/{record.timestamp()[1]}",
            key=None if key is None else key.decode(errors="backslashreplace"),
            content_type=kind if isinstance(kind, str) else "",
            headers=headers,
            receipt=(partition, offset),
        )
