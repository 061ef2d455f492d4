# Generated from durable_notify/_async by tools/unasync.py. Do not edit.
"""A publisher and the connection that it publishes on, for frameworks that hand out both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Unpack

    from ..codecs import T
    from ..payloads import NewMessage, PublishOptions
    from ..topics import Topic, TopicName
    from .database.callers import Publishable
    from .publisher import Publisher

__all__ = ["BoundPublisher"]


class BoundPublisher:
    """Publishes on one connection or session, in its transaction."""

    def __init__(self, publisher: Publisher, connection: Publishable) -> None:
        self._publisher = publisher
        self.connection = connection

    def publish(
        self,
        topic: str | Topic[T],
        payload: T | NewMessage[T],
        **options: Unpack[PublishOptions],
    ) -> int:
        """Publish a message as ``Publisher.publish`` does, and return its id."""
        return self._publisher.publish(self.connection, topic, payload, **options)

    @overload
    def publish_many(self, topic: str, payloads: Iterable[Any]) -> list[int]: ...
    @overload
    def publish_many(self, topic: Topic[T], payloads: Iterable[T | NewMessage[T]]) -> list[int]: ...
    def publish_many(self, topic: TopicName, payloads: Iterable[Any]) -> list[int]:
        """Publish messages as ``Publisher.publish_many`` does, and return their ids."""
        return self._publisher.publish_many(self.connection, topic, payloads)
