# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""What tests call: see ``durable_notify.testing``."""

from __future__ import annotations

import contextlib
import dataclasses
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .._core import sql
from .._core.leases import Ack, Lease
from .._core.pacing import shortest
from .._core.testing import ANY, Drained, Expected, PublishedMessage
from .._core.topic_set import TopicSet
from ..errors import ConsumerClosed, InvalidArgument
from ..payloads import Decoder, NewMessage, encode, stored
from ..schema import SCHEMA_VERSION
from ..topics import check_topic
from .concurrency import begun_by_driver
from .consumer.message import Message
from .database.callers import fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Unpack

    from .._core.leases import Outcome
    from .._core.testing import Described
    from ..topics import TopicName
    from .consumer.consumer import Consumer
    from .database.callers import Publishable

__all__ = [
    "RecordedMessage", "assert_not_published", "assert_published", "drain", "message",
    "published", "reset", "travel",
]  # fmt: skip

#: How many messages ``drain`` claims at once.
BATCH = 100
#: How often in a row it finds nothing although something is due, before it gives up.
TRIES = 20
#: What is due sooner was due already when the claim did not find it, in seconds.
AT_ONCE = 0.01


def published(connection: Publishable, topic: TopicName) -> list[PublishedMessage]:
    """Return the messages of a topic that a connection sees, by id.

    These are those of its open transaction, and what was committed before. The connection's role
    must own the schema.
    """
    name = check_topic(topic)
    decode = Decoder([topic]).of(name)
    rows = fetch(connection, sql.PUBLISHED, (name,))
    return [PublishedMessage.of(name, row, decode) for row in rows]


def assert_published(
    connection: Publishable,
    topic: TopicName,
    *,
    payload: Any = ANY,
    key: Any = ANY,
    headers: Mapping[str, Any] | None = None,
    count: int | None = None,
) -> list[PublishedMessage]:
    """Assert that a message was published, and return those that are as expected.

    It sees what ``published`` sees, in the open transaction too. Expected values may be objects
    that compare, such as ``unittest.mock.ANY`` or ``pytest.approx``, also within a payload.

    Args:
        connection: the one that published, or another one after the commit.
        topic: the topic.
        payload: the payload; a model or dataclass stands for the JSON that it is published as.
        key: the key; None: no key.
        headers: headers that it has, besides others.
        count: how many such messages there are; None: at least one.

    Raises:
        AssertionError: its text has what was published instead, and the nearest difference.
    """
    __tracebackhide__ = True
    expected = Expected(check_topic(topic), payload, key, headers or {})
    messages = published(connection, topic)
    found = expected.among(messages)
    if count == 0 and not found:
        return found
    if (not found) if count is None else (len(found) != count):
        topics = dict(fetch(connection, sql.PUBLISHED_TOPICS, ()))
        raise AssertionError(expected.complaint(messages, found, count, topics))
    return found


def assert_not_published(
    connection: Publishable, topic: TopicName, **expected: Unpack[Described]
) -> None:
    """Assert that no such message was published; the arguments are those of ``assert_published``.

    Raises:
        AssertionError: one was published.
    """
    __tracebackhide__ = True
    assert_published(connection, topic, count=0, **expected)


def travel(
    connection: Publishable,
    *,
    days: float = 0.0,
    hours: float = 0.0,
    minutes: float = 0.0,
    seconds: float = 0.0,
) -> None:
    """Make it later for messages: what is due, expires or is retried by then is so now.

    The database has one clock, which is not changed. Instead all times that are stored in the
    schema move into the past: of deliveries, retries, expiry, leases, limits, dedup keys, replays,
    retention. A message's ``published_at`` moves, too. It is part of the connection's transaction.
    The connection's role must own the schema.
    """
    length = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if not length > 0:
        raise InvalidArgument("travel() goes forward: give days, hours, minutes or seconds")
    fetch(connection, sql.TRAVEL, (float(length),))


def reset(connection: Publishable) -> None:
    """Remove all messages and groups, also after a TRUNCATE of all tables.

    What was set up stays: grants, retention, wake-ups, mirrors and watched tables. It is part of
    the connection's transaction. The connection's role must own the schema.

    Raises:
        psycopg.errors.LockNotAvailable: other sessions used the tables for five seconds.
    """
    fetch(connection, sql.RESET, (SCHEMA_VERSION,))


def drain(
    consumer: Consumer[Any],
    handler: Callable[[Message[Any]], Any] | None = None,
    *,
    dsn: str | None = None,
    skip_delays: bool = False,
    raise_errors: bool = True,
) -> Drained[Message[Any]]:
    """Deliver messages to a handler until nothing is left, and return what happened.

    The handler is called as ``consumer.run`` would, with the options of the consumer, but by this
    task or thread, with one message after another. It sees only what was committed.

    Args:
        consumer: one that was not started. Use it once, unless it has handlers by ``on()``.
        handler: what ``consumer.run`` takes; None: its handlers by ``on()``.
        dsn: the database, if it is not the consumer's own; for a consumer that a module defines.
        skip_delays: whether to let time pass, as ``travel`` does, until nothing is due later:
            delayed messages, retries, leases that expire, rate limits. Otherwise these stay.
        raise_errors: whether to raise what the handler raises, once the message is settled as the
            consumer would: redelivered later, or dead.

    Raises:
        ConsumerClosed: the consumer was started before.
    """
    if consumer._started and not (consumer._ended and consumer._handlers.topics):
        raise ConsumerClosed("drain() takes a consumer that was not started: make a new one")
    if dsn is not None:
        own, consumer._dsn = consumer._dsn, dsn
        consumer._set_up()
        consumer._dsn = own  # its parts have the other one
    consumer._prepare(handler, None)
    prepared = consumer._handlers.prepared(handler)
    consumer._started = consumer._closed = True
    drained: Drained[Message[Any]] = Drained()
    consumer._queries.open()
    try:
        _Drain(consumer, prepared, drained, raise_errors).run(skip_delays)
    finally:
        consumer._lease_manager.finish_pending()
        consumer._lease_manager.close()
        consumer._queries.close()
        consumer._ended = True
    return drained


class _Drain:
    """Claims and handles with the parts of a consumer, without its tasks."""

    def __init__(
        self,
        consumer: Consumer[Any],
        handler: Callable[[Message[Any]], Any],
        drained: Drained[Message[Any]],
        raise_errors: bool,
    ) -> None:
        self._consumer = consumer
        self._handler = handler
        self._drained = drained
        self._raise_errors = raise_errors
        self._queries = consumer._queries
        self._topic_set = TopicSet(consumer.options.topics)

    def run(self, skip_delays: bool) -> None:
        tries = 0
        while tries < TRIES:
            if self._topic_set.patterns:
                self._topic_set.add(self._queries.discover())
            topics = self._topic_set.topics
            if not topics:
                return
            replay_due = self._queries.advance_replays(topics)
            if rows := self._queries.claim(topics, BATCH):
                self._handle_all(rows)
                tries = 0
                continue
            due = shortest(self._queries.next_due(topics), replay_due)
            if due is None or (due > AT_ONCE and not skip_delays):
                return
            if due > AT_ONCE:
                # Further each time: a replay with a rate asks to be called often.
                self._queries.travel(max(due, AT_ONCE * 2**tries) + AT_ONCE)
            tries += 1
        if skip_delays:
            raise RuntimeError(
                "drain() finds nothing, although messages are due: an open transaction holds "
                "them. Commit or roll it back first"
            )

    def _handle_all(self, rows: list[tuple[Any, ...]]) -> None:
        delivered = [
            (message, self._handle(message))
            for message in list(self._consumer._buffer.unpack(rows))
            # An earlier message of its key may have sent it back.
            if message.id in message._lease.open and not message._lease.lost
        ]
        self._record(delivered)

    def _handle(self, message: Message[Any]) -> bool:
        """Call the handler, and settle the message; return whether that worked."""
        manager, dispatcher = self._consumer._lease_manager, self._consumer._dispatcher
        lease = message._lease
        failure: BaseException | None = None
        if message._flaw is not None:
            self._consumer._buffer.refuse(message, message._flaw)
        elif (failure := dispatcher._failure_of(self._handler, message)) is None:
            dispatcher._handled([message])
        else:
            self._drained.errors.append(failure)
            dispatcher._failed([message], failure)
        manager.pending_in_transaction.discard((lease, message.id))
        manager.flush()
        if failure is not None and (self._raise_errors or not isinstance(failure, Exception)):
            raise failure
        return failure is None and message.id not in lease.rolled_back_by

    def _record(self, delivered: list[tuple[Message[Any], bool]]) -> None:
        out = self._queries.unacknowledged(message.id for message, _ in delivered)
        drained = self._drained
        for message, worked in delivered:
            # A transaction that has acknowledged it may still be open.
            acknowledged = worked and message.id in message._lease.in_transaction
            if acknowledged or message.id not in out:
                drained.handled.append(message)
            elif out[message.id]:
                drained.dead.append(message)
            else:
                drained.retried.append(message)


def message(
    payload: Any,
    *,
    topic: TopicName = "testing",
    key: str | None = None,
    headers: Mapping[str, Any] | None = None,
    id: int = 1,  # noqa: A002 - the attribute's name
    attempt: int = 1,
    published_at: datetime | None = None,
    connection: Any = None,
) -> RecordedMessage:
    """Return a message to call a handler with; it needs no database.

    It records how the handler settles it, in ``outcome``. A message settled twice raises
    ``AlreadySettled``, as one of a consumer does.

    Args:
        payload: what was published, changed as publishing changes it; or a message that
            ``published`` returned, for the arguments up to ``id`` as well.
        topic: its topic.
        key: its key.
        headers: its headers.
        id: its id.
        attempt: which delivery this is.
        published_at: when it was published; default: now.
        connection: what ``message.transaction()`` lends the handler, within a savepoint, or as it
            is if its driver has none.
    """
    if isinstance(payload, PublishedMessage):
        given = payload
        topic, key, headers, id = given.topic, given.key, given.headers, given.id  # noqa: A001
        payload, published_at = given.payload, given.published_at
    encoded = encode(stored(topic, NewMessage(payload, key, headers)))
    at = published_at or datetime.now(UTC)
    lease = Lease(0, {id: None}, 0.0)
    name, as_stored = check_topic(topic), (encoded.payload, encoded.data, encoded.headers)
    row = (0, id, name, encoded.key, *as_stored, at, attempt, None)
    recorder: Any = _Recorder(connection)
    decoder = Decoder([topic])
    return RecordedMessage(row, lease, recorder, decoder.of(name), decoder.headers)


class RecordedMessage(Message[Any]):
    """A message of no database, which records how it is settled."""

    __slots__ = ()

    _lease_manager: Any

    @property
    def outcome(self) -> Outcome | None:
        """How it was settled: ``Ack``, ``Retry`` or ``Reject``; None: it was not.

        An acknowledgement in a transaction that ``message.transaction`` rolled back does not count.
        """
        recorded: Outcome | None = self._lease_manager.outcome
        in_transaction = self.id in self._lease.in_transaction
        if recorded is None and in_transaction and self.id not in self._lease.rolled_back_by:
            return Ack()
        return recorded

    def ack(self, connection: Publishable | None = None) -> None:
        """Record that the message was acknowledged; nothing is written to the connection."""
        if connection is None:
            super().ack()
            return
        self._lease.check(self.id)
        self._lease.in_transaction[self.id] = None

    def once(self, connection: Publishable) -> bool:
        """Return True the first time; nothing is written to the connection."""
        del connection
        first = not self._lease_manager.processed
        self._lease_manager.processed = True
        return first


@dataclasses.dataclass(slots=True)
class _Recorder:
    """Stands for the consumer, whose lease manager settles its messages."""

    connection: Any
    outcome: Outcome | None = None
    processed: bool = False

    def check_open(self) -> None:
        """Messages are never released."""

    def settle(self, lease: Lease, message_id: int, outcome: Outcome) -> None:
        lease.record(message_id, outcome)
        self.outcome = outcome

    def extend(self, lease: Lease, seconds: float) -> None:
        """Keep the lease, which does not expire."""

    def settled_in_transaction(self, lease: Lease, message_id: int, *, committed: bool) -> None:
        del committed
        if message_id in lease.open:
            lease.finish(message_id)

    @property
    def transactions(self) -> _Recorder:
        """What ``message.transaction()`` takes connections from."""
        if self.connection is None:
            raise InvalidArgument(
                "this message has no database: give testing.message() a connection, which "
                "message.transaction() lends to the handler"
            )
        return self

    @contextlib.contextmanager
    def begin(self) -> Iterator[Any]:
        connection = self.connection
        names = ("begin_nested", "transaction")  # of SQLAlchemy; of psycopg and asyncpg
        nested = next((getattr(connection, n) for n in names if hasattr(connection, n)), None)
        # Trap: a Session's transaction has begun; it can only be nested.
        with nested() if nested else begun_by_driver(connection) or contextlib.nullcontext():
            yield connection
