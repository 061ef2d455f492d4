"""Which of a consumer's topics to claim from next: pure bookkeeping."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..topics import ANY_TOPIC, channel, is_pattern, matches

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = ["TopicSet", "after"]

#: How often to look for new topics if no wake-up tells of them, in seconds.
LOOK_FOR_TOPICS = 1.0
#: Up to so many topics are claimed from at once; of more, those that rang.
FEW = 16


class TopicSet:
    """A consumer's topics, and those of them that may have something.

    With it, a group of hundreds of topics has claims that cost as much as the topics with messages.
    """

    def __init__(self, topics: Iterable[str]) -> None:
        wanted = tuple(topics)
        self.patterns = tuple(topic for topic in wanted if is_pattern(topic))
        self._by_channel: dict[str, list[str]] = {}
        self.topics: dict[str, None] = {}
        self._open: set[str] = set()
        self._topics_at = 0.0
        self._in_doubt = False
        self.add(topic for topic in wanted if not is_pattern(topic))

    @property
    def channels(self) -> dict[str, str]:
        """The channels to listen to, with the topic of each; "" stands for all topics."""
        every = {ANY_TOPIC: ""} if self.patterns else {}
        return {channel(topic): topic for topic in self.topics} | every

    def add(self, topics: Iterable[str]) -> dict[str, str]:
        """Add topics, and return the channels of those that are new."""
        fresh = [topic for topic in topics if topic not in self.topics]
        for topic in fresh:
            self.topics[topic] = None
            self._by_channel.setdefault(channel(topic), []).append(topic)
        self._open.update(fresh)
        return {channel(topic): topic for topic in fresh}

    def mark_ready(self, rung: Mapping[str, Collection[str]] | None) -> bool:
        """Mark topics that rang (None: perhaps all); returns whether there may be new topics."""
        if rung is None:
            self.mark_all()
            return bool(self.patterns)
        for name, payloads in rung.items():
            if "*" in payloads:
                self.mark_all()
            self._open.update(self._by_channel.get(name, ()))
        return any(
            not topic  # perhaps some have appeared
            or (topic not in self.topics and any(matches(topic, p) for p in self.patterns))
            for topic in rung.get(ANY_TOPIC, ())
        )

    def mark_all(self) -> None:
        """Mark all topics: something may be in any of them."""
        self._open.update(self.topics)
        self._in_doubt = True

    def look_for_topics(self, now: float, *, notified: bool) -> bool:
        """Whether to look for new topics: if no wake-up tells of them, and after ``mark_all``.

        A consumer that reads without a pause arms no doorbell, and no wake-up tells it.
        """
        if not self.patterns or (notified and not self._in_doubt) or now < self._topics_at:
            return False
        self._topics_at = now + LOOK_FOR_TOPICS
        self._in_doubt = False
        return True

    def to_claim(self) -> list[str]:
        """Return the topics to claim from."""
        return list(self.topics) if len(self.topics) <= FEW else sorted(self._open)

    def mark_empty(self, topics: Iterable[str]) -> None:
        """Mark topics as empty: a read found nothing, and their publishers rang by then."""
        self._open.difference_update(topics)


def after(last: str, topics: list[str]) -> list[str]:
    """Return topics in turn, those after the last one first: else the first starves the others."""
    index = topics.index(last) + 1 if last in topics else 0
    return topics[index:] + topics[:index]
