"""Topics and their types; names of topics, groups and keys; the channel of a topic."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from .codecs import JsonCodec, JsonText, T, codec_of
from .errors import InvalidArgument, PayloadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .codecs import Codec

__all__ = [
    "ANY_TOPIC", "ByTopic", "Topic", "TopicName", "channel", "check_channel", "check_group",
    "check_key", "check_pattern", "check_topic", "check_topics", "is_pattern", "listed", "matches",
    "overlap",
]  # fmt: skip

V = TypeVar("V")

# The same rules are constraints in migrations/schema; a test compares the two.
_MAX_CHANNEL_BYTES = 63  # PostgreSQL's limit for an identifier
_NOT_IN_TOPIC = re.compile("[\x00-\x20\x7f-\xa0*>]")
_NUL = re.compile("\x00")
_NOT_IN_TEXT = re.compile("[\x00-\x1f\x7f-\x9f]")


#: The channel that announces the name of every new topic, for consumers of patterns.
ANY_TOPIC = "durable_notify"


class Topic(Generic[T]):
    """A topic, or a pattern of topics, and the type of its payloads.

    Args:
        name: the topic, or a pattern, to consume only.
        kind: the type of the payloads: see ``JsonCodec``; ``bytes``; or a ``Codec``.

    Raises:
        InvalidArgument: the name is invalid, or the type cannot be checked.
    """

    __slots__ = ("_decode_json", "_encode", "codec", "name")

    @overload
    def __init__(self, name: str, kind: type[T], /) -> None: ...
    @overload
    def __init__(self, name: str, kind: Codec[T], /) -> None: ...
    def __init__(self, name: str, kind: Any, /) -> None:
        self.name = check_pattern(name)
        self.codec: Codec[T] = codec_of(kind)
        self._encode: Callable[[T], str] | None = None
        self._decode_json: Callable[[str], T] | None = None
        if isinstance(self.codec, JsonCodec):
            self._encode, self._decode_json = self.codec.encode_json, self.codec.decode_json

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<Topic {self.name!r} of {getattr(self.codec, 'name', self.codec)}>"

    def encode(self, value: T) -> Any:
        """Return the payload of a value: JSON, ``JsonText`` or bytes.

        Raises:
            PayloadError: the value is not of the topic's type. What a codec raises passes through.
        """
        if self._encode is not None:
            return JsonText(self._encode(value))
        return self.codec.encode(value)

    def decode(self, payload: Any) -> T:
        """Return the value of a payload, of a dead letter for example: JSON or bytes.

        Raises:
            PayloadError: it is not of the topic's type.
        """
        try:
            return self.codec.decode(payload)
        except PayloadError:
            raise
        except Exception as error:
            raise self._undecodable(error) from error

    def read(self, text: str | None, data: bytes | None) -> T:
        """Return the value of a stored message: JSON text or bytes. Raises as ``decode``."""
        if text is None:
            return self.decode(data)
        if self._decode_json is None:
            return self.decode(json.loads(text))
        try:
            return self._decode_json(text)
        except PayloadError:
            raise
        except Exception as error:  # of a validator
            raise self._undecodable(error) from error

    def _undecodable(self, error: Exception) -> PayloadError:
        return PayloadError(
            f"the codec of topic {self.name!r} failed: {type(error).__name__}: {error}"
        )


#: A topic's name, or the topic.
TopicName = str | Topic[Any]


#: Of how many topics to remember what was found: a pattern may match any number.
REMEMBERED = 10_000


class ByTopic(Generic[V]):
    """Finds what belongs to a topic: by its name, else by the first pattern that matches."""

    def __init__(self) -> None:
        self._given: dict[str, V] = {}
        self._found: dict[str, V | None] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def get(self, name: str) -> V | None:
        """Return what was given under a name or pattern itself."""
        return self._given.get(name)

    def set(self, name: str, value: V) -> None:
        """Give something to a topic or pattern."""
        self._given[name] = value
        self._found.clear()

    def find(self, topic: str) -> V | None:
        """Return what was given for a topic; None: nothing."""
        try:
            return self._found[topic]
        except KeyError:
            pass
        found = self._given.get(topic)
        if topic not in self._given:
            found = next(
                (value for name, value in self._given.items() if matches(topic, name)), None
            )
        if len(self._found) >= REMEMBERED:
            self._found.clear()
        self._found[topic] = found
        return found


def channel(topic: str) -> str:
    """Return the NOTIFY channel of a topic, as ``durable_notify.channel(topic)`` does in SQL."""
    topic = str.__str__(topic)
    name = topic.encode()
    if len(name) + len("durable_notify:") <= _MAX_CHANNEL_BYTES:
        return f"durable_notify:{topic}"
    return f"durable_notify#{hashlib.md5(name, usedforsecurity=False).hexdigest()}"


def check_topic(topic: TopicName) -> str:
    """Return the topic, or raise InvalidArgument: 1 to 255 bytes, no white space, ``*``, ``>``."""
    name = topic.name if isinstance(topic, Topic) else topic
    return _check("topic", name, 255, _NOT_IN_TOPIC, "white space, control characters, '*' and '>'")


def is_pattern(topic: str) -> bool:
    """Whether a name is a pattern, with wildcards."""
    return "*" in topic or ">" in topic


def matches(topic: str, pattern: str) -> bool:
    """Whether a pattern matches a topic: ``*`` is one word between dots, a last ``>`` one or more.

    The rules are those of NATS subjects, and of ``durable_notify._topic_regex(pattern)`` in SQL.
    """
    words = [{"*": "[^.]+", ">": ".+"}.get(word, re.escape(word)) for word in pattern.split(".")]
    return re.fullmatch(r"\.".join(words), topic, re.DOTALL) is not None


def overlap(one: list[str], other: list[str]) -> bool:
    """Whether a topic can match two patterns."""
    if not one or not other:
        return not one and not other
    if ">" in (one[0], other[0]):
        return True
    same = one[0] == other[0] or "*" in (one[0], other[0])
    return same and overlap(one[1:], other[1:])


def check_pattern(pattern: TopicName) -> str:
    """Return the topic or pattern, or raise InvalidArgument.

    A wildcard is a whole word between dots, and ``>`` is the last word. No word may be empty.
    """
    if isinstance(pattern, Topic):
        return pattern.name
    if isinstance(pattern, str):
        pattern = str.__str__(pattern)
        check_topic(pattern.replace("*", "_").replace(">", "_"))
    else:
        check_topic(pattern)
    words = pattern.split(".")
    bad = any(is_pattern(word) and word not in ("*", ">") for word in words) or ">" in words[:-1]
    if bad or (is_pattern(pattern) and "" in words):
        raise InvalidArgument(
            f"pattern {pattern[:40]!r}: '*' stands for one whole word between dots, and '>' for "
            "all words from there on, as the last; no word of a pattern is empty"
        )
    return pattern


def listed(topics: Iterable[TopicName]) -> tuple[TopicName, ...]:
    """Return topics as a tuple; raises InvalidArgument if it is one, and not a list."""
    if isinstance(topics, (str, Topic)):
        raise InvalidArgument(f"topics is a list: write [{topics!r}]")
    return tuple(topics)


def check_topics(topics: Iterable[TopicName]) -> tuple[str, ...]:
    """Return the names of topics and patterns as a tuple, each checked; at least one."""
    checked = tuple(dict.fromkeys(map(check_pattern, listed(topics))))
    if not checked:
        raise InvalidArgument("topics is empty: name at least one")
    return checked


def check_channel(channel: str) -> str:
    """Return the channel, or raise InvalidArgument: 1 to 63 bytes, not one of this library's."""
    channel = _check("channel", channel, _MAX_CHANNEL_BYTES, _NUL, "NUL")
    if re.match(f"{ANY_TOPIC}([:#?]|$)", channel):
        raise InvalidArgument(
            f"channel {channel!r} carries this library's own wake-ups: name one of your own"
        )
    return channel


def check_group(group: str) -> str:
    """Return the group's name, or raise InvalidArgument: 1 to 255 bytes, no control characters."""
    return _check("group", group, 255, _NOT_IN_TEXT, "control characters")


def check_key(key: str | None) -> str | None:
    """Return the key, or raise InvalidArgument: 1 to 1024 bytes, no control characters."""
    return None if key is None else _check("key", key, 1024, _NOT_IN_TEXT, "control characters")


def _check(kind: str, name: str, max_bytes: int, forbidden: re.Pattern[str], what: str) -> str:
    """Check a name, and return it as a plain str.

    Trap: a member of ``class Topic(str, Enum)`` is a str, but is formatted as ``Topic.ORDERS``.
    """
    if not isinstance(name, str):
        raise InvalidArgument(f"a {kind} must be a str, not {type(name).__name__}")
    name = str.__str__(name)
    if not name:
        raise InvalidArgument(f"the {kind} is empty: give it a name")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidArgument(f"{_quoted(kind, name)} has a lone surrogate") from None
    if size > max_bytes:
        raise InvalidArgument(f"{_quoted(kind, name)} has {size} bytes; the maximum is {max_bytes}")
    if found := forbidden.search(name):
        raise InvalidArgument(f"{_quoted(kind, name)} has {found[0]!r}; leave out {what}")
    return name


def _quoted(kind: str, name: str) -> str:
    """Return the name for an error text. A key may be a person's name or address: leave it out."""
    if kind == "key":
        return "the key"
    return f"{kind} {name[:40]!r}{'...' if len(name) > 40 else ''}"  # noqa: PLR2004
