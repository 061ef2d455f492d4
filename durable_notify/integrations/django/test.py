"""For tests: what was published, and what handlers do with it."""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING, Any

from django.db import DEFAULT_DB_ALIAS, connections

from durable_notify import testing
from durable_notify._core.leases import Reject, Retry
from durable_notify.payloads import NewMessage, encode
from durable_notify.topics import matches

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from durable_notify._core.testing import Counted, Described
    from durable_notify._sync.consumer.consumer import Consumer
    from durable_notify._sync.consumer.message import Message
    from durable_notify.testing import Drained, PublishedMessage
    from durable_notify.topics import TopicName

__all__ = ["MessagesMixin"]


class MessagesMixin(unittest.TestCase):
    """Adds assertions to ``TestCase`` and ``TransactionTestCase``; name it first.

    Before each test of a ``TransactionTestCase`` it removes all messages and groups, which Django
    does not.
    """

    #: The alias of the database that has the messages.
    messages_database = DEFAULT_DB_ALIAS

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        """Run the test."""
        connection: Any = connections[self.messages_database]
        if not connection.in_atomic_block:
            testing.reset(connection)
        return super().run(result)

    def assertPublished(  # noqa: N802 - as unittest's
        self, topic: TopicName, **expected: Unpack[Counted]
    ) -> list[PublishedMessage]:
        """Assert that a message was published, also in the open transaction; return those found.

        The arguments are those of ``durable_notify.testing.assert_published``.
        """
        connection = connections[self.messages_database]
        return testing.assert_published(connection, topic, **expected)

    def assertNotPublished(  # noqa: N802
        self, topic: TopicName, **expected: Unpack[Described]
    ) -> None:
        """Assert that no such message was published."""
        testing.assert_not_published(connections[self.messages_database], topic, **expected)

    def drain(
        self,
        consumer: Consumer[Any],
        handler: Callable[[Message[Any]], Any] | None = None,
        **options: Any,
    ) -> Drained[Any]:
        """Deliver messages to a handler until nothing is left, and return what happened.

        In a ``TransactionTestCase`` it is ``durable_notify.testing.drain``. A ``TestCase`` does not
        commit, and no consumer sees its messages: they are then delivered once, within its
        transaction, and what the handler raises is raised here. Delays and keys do not matter.

        Args:
            consumer: one that was not started.
            handler: None: its handlers by ``on()``.
            options: those of ``durable_notify.testing.drain``, in a ``TransactionTestCase``.
        """
        if connections[self.messages_database].in_atomic_block:
            return self._deliver(consumer, handler)
        return testing.drain(consumer, handler, **options)

    def _deliver(self, consumer: Consumer[Any], handler: Any) -> Drained[Any]:
        consumer._prepare(handler, None)  # noqa: SLF001 - ours
        call = consumer._handlers.prepared(handler)  # noqa: SLF001
        drained: Drained[Any] = testing.Drained()
        group = consumer.options.group.name
        delivered: set[tuple[str, int]] = self.__dict__.setdefault("_delivered", set())
        while new := [one for one in self._published(consumer) if (group, one.id) not in delivered]:
            for published in new:
                delivered.add((group, published.id))
                message = self._message(consumer, published)
                call(message)
                kinds = {Retry: drained.retried, Reject: drained.dead}
                kinds.get(type(message.outcome), drained.handled).append(message)
        return drained

    def _published(self, consumer: Consumer[Any]) -> list[PublishedMessage]:
        connection = connections[self.messages_database]
        with connection.cursor() as cursor:
            cursor.execute("SELECT DISTINCT topic FROM durable_notify.outbox")
            topics = [topic for (topic,) in cursor.fetchall()]
        wanted = consumer.options.topics
        found = [
            one
            for topic in topics
            if any(matches(topic, pattern) for pattern in wanted)
            for one in testing.published(connection, topic)
        ]
        return sorted(found, key=lambda message: message.id)

    def _message(self, consumer: Consumer[Any], published: PublishedMessage) -> Any:
        message = testing.message(published, connection=connections[self.messages_database])
        stored = encode(NewMessage(published.payload))
        message.payload = consumer._decoder.of(published.topic)(stored.payload, stored.data)  # noqa: SLF001
        return message
