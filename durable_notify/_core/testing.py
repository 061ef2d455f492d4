"""The testing kit's decisions: what a test expects, and what was published instead; no I/O."""

from __future__ import annotations

import dataclasses
import difflib
import json
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar
from unittest.mock import ANY

from ..errors import PayloadError
from ..payloads import as_json, readable, type_of_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from ..payloads import Decode

__all__ = ["ANY", "Counted", "Described", "Drained", "Expected", "PublishedMessage"]

M = TypeVar("M")

#: How many published messages an error lists.
LISTED = 20
#: How many differences it names.
NAMED = 5
#: How many characters of a value it shows.
SHOWN = 500


@dataclasses.dataclass(frozen=True, slots=True)
class PublishedMessage:
    """A message in the outbox, as the connection's transaction sees it."""

    id: int
    topic: str
    key: str | None
    payload: Any
    headers: Mapping[str, Any]
    published_at: datetime
    deliver_at: datetime | None
    expires_at: datetime | None

    @classmethod
    def of(cls, topic: str, row: tuple[Any, ...], decode: Decode) -> PublishedMessage:
        """Make one of a row: id, key, payload, data, headers and the three times."""
        message_id, key, text, data, headers, *times = row
        try:
            content = decode(text, None if data is None else bytes(data))
        except (ValueError, RecursionError):
            content = readable(text) if data is None else bytes(data)
        return cls(
            message_id, topic, key, content, {} if headers is None else readable(headers), *times
        )

    def __str__(self) -> str:
        parts = [f"payload={_short(self.payload)}"]
        parts += [f"key={self.key!r}"] * (self.key is not None)
        parts += [f"headers={_short(self.headers)}"] * bool(self.headers)
        return f"{self.id}: {', '.join(parts)}"


@dataclasses.dataclass(frozen=True, slots=True)
class Drained(Generic[M]):
    """What happened to the messages that ``drain`` delivered, in order.

    A message is in a list for each time that it was delivered.

    Attributes:
        handled: acknowledged.
        retried: redelivered later.
        dead: dead letters now.
        errors: what the handler raised.
    """

    handled: list[M] = dataclasses.field(default_factory=list)
    retried: list[M] = dataclasses.field(default_factory=list)
    dead: list[M] = dataclasses.field(default_factory=list)
    errors: list[BaseException] = dataclasses.field(default_factory=list)


class Described(TypedDict, total=False):
    """Which messages of a topic are meant; see ``assert_published``."""

    payload: Any
    key: Any
    headers: Mapping[str, Any] | None


class Counted(Described, total=False):
    """Which messages of a topic are meant, and how many there are."""

    count: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Expected:
    """What a test expects to find in a topic; headers may have others besides."""

    topic: str
    payload: Any
    key: Any
    headers: Mapping[str, Any]

    def among(self, messages: Iterable[PublishedMessage]) -> list[PublishedMessage]:
        """Return the messages that are as expected."""
        return [message for message in messages if not any(self._differences(message))]

    def _differences(self, message: PublishedMessage) -> Iterator[str]:
        yield from _differences("payload", self.payload, message.payload)
        if not self.key == message.key:  # noqa: SIM201 - an object that compares may lack !=
            yield f"key is {message.key!r}, not {self.key!r}"
        for name, value in self.headers.items():
            if name in message.headers:
                yield from _differences(f"headers[{name!r}]", value, message.headers[name])
            else:
                yield f"headers[{name!r}] is missing"

    def complaint(
        self,
        published: Sequence[PublishedMessage],
        found: Sequence[PublishedMessage],
        count: int | None,
        topics: Mapping[str, int],
    ) -> str:
        """Say what was published instead, and the nearest difference.

        Args:
            published: all messages of the topic.
            found: those that are as expected.
            count: how many there should be; None: at least one.
            topics: how many messages there are, by topic.
        """
        if not published:
            return self._nothing(topics)
        if found:
            wanted = "none" if count == 0 else count
            lines = [f"{_messages(len(found))} of {self.topic!r}{self}, not {wanted}"]
        else:
            nearest = min(published, key=lambda message: len(list(self._differences(message))))
            differences = list(self._differences(nearest))
            more = [f"and {len(differences) - NAMED} more"] * (len(differences) > NAMED)
            lines = [
                f"no message of {self.topic!r}{self}",
                f"the nearest is {nearest.id}: {'; '.join(differences[:NAMED] + more)}",
            ]
        lines.append(f"published to {self.topic!r}:")
        lines += [f"  {message}" for message in published[:LISTED]]
        lines += [f"  and {len(published) - LISTED} more"] * (len(published) > LISTED)
        return "\n".join(lines)

    def _nothing(self, topics: Mapping[str, int]) -> str:
        text = f"nothing was published to {self.topic!r}"
        if not topics:
            return f"{text}, nor to another topic"
        text += "; to other topics: "
        text += ", ".join(f"{name!r} ({number})" for name, number in topics.items())
        for meant in difflib.get_close_matches(self.topic, topics, 1):
            text += f". Did you mean {meant!r}?"
        return text

    def __str__(self) -> str:
        parts = []
        if self.payload is not ANY:
            parts.append(f"payload={_short(self.payload)}")
        if self.key is not ANY:
            parts.append(f"key={self.key!r}")
        if self.headers:
            parts.append(f"headers={_short(dict(self.headers))}")
        return f" with {', '.join(parts)}" if parts else ""


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _messages(number: int) -> str:
    return "1 message" if number == 1 else f"{number} messages"


def _differences(path: str, expected: Any, found: Any) -> Iterator[str]:
    """Name each part of a value that is not as expected."""
    if expected == found:
        return
    expected, found = _as_published(expected), _as_published(found)
    if expected == found:
        return
    if isinstance(expected, dict) and isinstance(found, dict):
        for name, value in expected.items():
            if name in found:
                yield from _differences(f"{path}[{name!r}]", value, found[name])
            else:
                yield f"{path}[{name!r}] is missing"
        for name in found.keys() - expected.keys():
            yield f"{path}[{name!r}] is {_short(found[name])}, and was not expected"
    elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        for place, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _differences(f"{path}[{place}]", one, other)
    else:
        yield f"{path} is {_short(found)}, not {_short(expected)}"


def _as_published(value: Any) -> Any:
    """Return a value as publishing would change it: a model becomes a dict, a tuple a list."""
    if isinstance(value, type_of_bytes):
        return bytes(value)
    try:
        return json.loads(as_json(value, "payload"))
    except PayloadError:
        return value  # it has objects that compare, such as ANY
