"""Names of topics, groups and keys, and the channel of a topic."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from .errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "ANY_TOPIC", "channel", "check_channel", "check_group", "check_key", "check_pattern",
    "check_topic", "check_topics", "is_pattern", "matches",
]  # fmt: skip

# The same rules are constraints in migrations/schema; a test compares the two.
_MAX_CHANNEL_BYTES = 63  # PostgreSQL's limit for an identifier
_NOT_IN_TOPIC = re.compile("[\x00-\x20\x7f-\xa0*>]")
_NUL = re.compile("\x00")
_NOT_IN_TEXT = re.compile("[\x00-\x1f\x7f-\x9f]")


#: The channel that announces the name of every new topic, for consumers of patterns.
ANY_TOPIC = "durable_notify"


def channel(topic: str) -> str:
    """Return the NOTIFY channel of a topic, as ``durable_notify.channel(topic)`` does in SQL."""
    topic = str.__str__(topic)
    name = topic.encode()
    if len(name) + len("durable_notify:") <= _MAX_CHANNEL_BYTES:
        return f"durable_notify:{topic}"
    return f"durable_notify#{hashlib.md5(name, usedforsecurity=False).hexdigest()}"


def check_topic(topic: str) -> str:
    """Return the topic, or raise InvalidArgument: 1 to 255 bytes, no white space, ``*``, ``>``."""
    return _check(
        "topic", topic, 255, _NOT_IN_TOPIC, "white space, control characters, '*' and '>'"
    )


def is_pattern(topic: str) -> bool:
    """Whether a name is a pattern, with wildcards."""
    return "*" in topic or ">" in topic


def matches(topic: str, pattern: str) -> bool:
    """Whether a pattern matches a topic: ``*`` is one word between dots, a last ``>`` one or more.

    The rules are those of NATS subjects, and of ``durable_notify._topic_regex(pattern)`` in SQL.
    """
    words = [{"*": "[^.]+", ">": ".+"}.get(word, re.escape(word)) for word in pattern.split(".")]
    return re.fullmatch(r"\.".join(words), topic, re.DOTALL) is not None


def check_pattern(pattern: str) -> str:
    """Return the topic or pattern, or raise InvalidArgument.

    A wildcard is a whole word between dots, and ``>`` is the last word. No word may be empty.
    """
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


def check_topics(topics: Iterable[str]) -> tuple[str, ...]:
    """Return topics and patterns as a tuple, each checked; at least one."""
    if isinstance(topics, str):
        raise InvalidArgument(f"topics is a list of names: write [{topics!r}]")
    checked = tuple(dict.fromkeys(check_pattern(topic) for topic in topics))
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
