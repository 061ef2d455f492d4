"""Which of a consumer's topics to claim from next; no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..topics import ANY_TOPIC, channel, is_pattern, matches

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

__all__ = ["TopicSet", "after"]

#: How often to check for new topics if no wake-up announces them, in seconds.
LOOK_FOR_TOPICS = 1.5
#: The most topics to claim from at once without a ring; of more topics, only those that rang.
FEW = 16


class TopicSet:
    """A consumer's topics, and those of them that may have messages.

    With it, the claims of a group of hundreds of topics cost only as much as the topics that have
    messages.
    """

    def __init__(self, topics: Iterable[str]) -> None:
        wanted = tuple(topics)
        self.patterns = tuple(topic for topic in wanted if is_pattern(topic))
        #: The topics whose publishers announce new ones to its patterns; None: it has no patterns.
        self.family = _family(self.patterns)
        self._by_channel: dict[str, list[str]] = {}
        self.topics: dict[str, None] = {}
        self._open: set[str] = set()
        self._topics_at = 0.0
        self._in_doubt = False
        self.add(topic for topic in wanted if not is_pattern(topic))

    @property
    def channels(self) -> dict[str, str]:
        """The channels to listen to, with the topic of each, or with ``family``."""
        announcing = {} if self.family is None else {ANY_TOPIC: self.family}
        return {channel(topic): topic for topic in self.topics} | announcing

    def add(self, topics: Iterable[str]) -> dict[str, str]:
        """Add topics, and return the channels of those that are new."""
        fresh = [topic for topic in topics if topic not in self.topics]
        for topic in fresh:
            self.topics[topic] = None
            self._by_channel.setdefault(channel(topic), []).append(topic)
        self._open.update(fresh)
        return {channel(topic): topic for topic in fresh}

    def mark_ready(self, rung: Mapping[str, Collection[str]] | None) -> bool:
        """Mark topics that rang (None: perhaps all); return whether there may be new topics."""
        if rung is None:
            self.mark_all()
            return bool(self.patterns)
        for name, payloads in rung.items():
            if "*" in payloads:
                self.mark_all()
            self._open.update(self._by_channel.get(name, ()))
        return self._announces(rung.get(ANY_TOPIC, ()))

    def concerns(self, rung: Mapping[str, Collection[str]]) -> bool:
        """Whether what has rung is of interest: one of the topics, or a new one that matches."""
        return rung.keys() != {ANY_TOPIC} or self._announces(rung[ANY_TOPIC])

    def _announces(self, topics: Iterable[str]) -> bool:
        return any(
            not topic  # new topics may have appeared
            or (topic not in self.topics and any(matches(topic, p) for p in self.patterns))
            for topic in topics
        )

    def mark_all(self) -> None:
        """Mark all topics, because any of them may have messages."""
        self._open.update(self.topics)
        self._in_doubt = True

    def look_for_topics(self, now: float, *, notified: bool) -> bool:
        """Whether to check for new topics: if no wake-up announces them, and after ``mark_all``.

        A consumer that reads without a pause arms no doorbell, and so receives no wake-up.
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
        """Mark topics as empty: a read found nothing, and their publishers ring already."""
        self._open.difference_update(topics)


def _family(patterns: Iterable[str]) -> str | None:
    """Return the topics with the patterns' first word, as ``orders.>``; else "", which is every."""
    first = {pattern.partition(".")[0] for pattern in patterns}
    if not first:
        return None
    return f"{word}.>" if len(first) == 1 and not is_pattern(word := first.pop()) else ""


def after(last: str, topics: list[str]) -> list[str]:
    """Return topics in rotation, those after ``last`` first, so that the first starves no other."""
    index = topics.index(last) + 1 if last in topics else 0
    return topics[index:] + topics[:index]
