"""Which topic of Kafka a name means: one that was deleted and created again is another.

Trap: its client continues at the offsets of the topic before. It would skip as many records of the
new one, and say nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TopicIdentity"]

#: How often to look while no record arrives, in seconds.
INTERVAL = 5.0
#: How long to wait for Kafka's answer, in seconds.
PATIENCE = 10.0
_OF_CONSUMERS = ("group.", "auto.offset.", "enable.auto.", "session.", "max.poll.", "partition.")


class TopicIdentity:
    """The topic that a consumer reads. Its methods block, and raise Kafka's KafkaException.

    Offsets are committed with the topic's id as their metadata. So a member that takes over sees
    whether they are of this topic.
    """

    def __init__(self, kafka: Any, settings: Mapping[str, Any], topic: str) -> None:
        from confluent_kafka.admin import AdminClient

        self._kafka, self._topic = kafka, topic
        self._admin = AdminClient(
            {n: value for n, value in settings.items() if not n.startswith(_OF_CONSUMERS)}
        )
        self.id = ""
        self._assigned: set[int] = set()
        self._next = 0.0

    def assigned(self, _consumer: Any, partitions: list[Any]) -> None:
        """Remember partitions whose committed offsets have to be checked."""
        self._assigned |= {place.partition for place in partitions}

    def look(self, consumer: Any) -> None:
        """Look now and then, while no record arrives."""
        if time.monotonic() >= self._next:
            self.has_changed(consumer)

    def has_changed(self, consumer: Any) -> bool:
        """Check the topic and new partitions; rewind those that are not at a place of this topic.

        If so, no record received before is to be acknowledged: its offset hides what was skipped.
        """
        self._next = time.monotonic() + INTERVAL
        now, new = self._now(), set(self._assigned)
        assigned = {place.partition for place in consumer.assignment()}
        old = set()
        if self.id not in ("", now):
            old = assigned
        elif new:
            places = [self._kafka.TopicPartition(self._topic, number) for number in new]
            committed = consumer.committed(places, timeout=PATIENCE)
            old = {place.partition for place in committed if place.metadata not in (None, "", now)}
        for partition in old & assigned:
            consumer.seek(
                self._kafka.TopicPartition(self._topic, partition, self._kafka.OFFSET_BEGINNING)
            )
        self.id = now
        self._assigned -= new
        return bool(old)

    def _now(self) -> str:
        topics = self._kafka.TopicCollection([self._topic])
        asked = self._admin.describe_topics(topics, request_timeout=PATIENCE)
        return str(asked[self._topic].result().topic_id)
