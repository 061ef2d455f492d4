"""Payloads: what can be published, and how it is stored."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypedDict

from .codecs import JsonText, T
from .durations import Seconds, check_time, in_seconds
from .errors import InvalidArgument, PayloadError, PayloadTooLarge
from .topics import ByTopic, Topic, check_key, check_pattern

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .topics import TopicName

__all__ = [
    "MAX_PAYLOAD_BYTES",
    "Decode",
    "Decoder",
    "Dumps",
    "Encoded",
    "JsonText",
    "NewMessage",
    "NewMessageOptions",
    "PublishOptions",
    "Times",
    "as_json",
    "dedup_of",
    "encode",
    "members",
    "readable",
    "stored",
    "times_of",
]

#: PostgreSQL holds no JSON string or array over 256 MB.
MAX_PAYLOAD_BYTES = 256 * 1024 * 1024 - 1

#: Whether to look closer; then what to skip, strings and plain numbers, and what not to. Trap: if
#: the pattern can match in part, as a string without an end or a part of a number, it is tried
#: again from each character, which takes quadratic time.
_MAYBE_EXPONENT = re.compile(r"[0-9][eE]\+?[0-9]")
_WITH_EXPONENT = re.compile(
    r'"(?:[^"\\]|\\.)*+"?|-?[0-9]++(?:\.[0-9]++)?(?:[eE](?P<exponent>[+-]?[0-9]++))?', re.DOTALL
)
_MAX_EXPONENT = 400  # no float has one so large

type_of_bytes = (bytes, bytearray, memoryview)
Dumps = Callable[[Any], str | bytes]  # bytes: what orjson and msgspec return


@dataclasses.dataclass(frozen=True, slots=True)
class NewMessage(Generic[T]):
    """A message with the arguments of ``publish``: a key, headers and options of its own."""

    # Not in the repr: these do not belong in logs.
    payload: T = dataclasses.field(repr=False)
    key: str | None = dataclasses.field(default=None, repr=False)
    headers: Mapping[str, Any] | None = dataclasses.field(default=None, repr=False)
    deliver_at: datetime | None = None
    delay: Seconds | None = None
    expires_at: datetime | None = None
    ttl: Seconds | None = None
    dedup_key: str | None = dataclasses.field(default=None, repr=False)
    dedup_window: Seconds = 3600.0


class NewMessageOptions(TypedDict, total=False):
    """The options of ``NewMessage``, without the headers."""

    key: str | None
    deliver_at: datetime | None
    delay: Seconds | None
    expires_at: datetime | None
    ttl: Seconds | None
    dedup_key: str | None
    dedup_window: Seconds


class PublishOptions(NewMessageOptions, total=False):
    """The options of ``publish``."""

    headers: Mapping[str, Any] | None


class Times(NamedTuple):
    """The checked times of delivery and expiry: two times, and two intervals."""

    deliver_at: datetime | None
    delay: timedelta | None
    expires_at: datetime | None
    ttl: timedelta | None


class Encoded(NamedTuple):
    """A message as the outbox stores it: JSON text or bytes, never both."""

    payload: str | None
    key: str | None
    headers: str | None
    data: bytes | None


def encode(message: NewMessage[Any], dumps: Dumps | None = None) -> Encoded:
    """Check a message, and return it as the outbox stores it.

    Raises:
        PayloadError: it is not JSON (NaN, infinities, NUL characters, lone surrogates, types that
            JSON does not have), or the headers are not a mapping of str.
        PayloadTooLarge: it is over ``MAX_PAYLOAD_BYTES``.
        InvalidArgument: the key is empty, over-long or has control characters.
    """
    key = check_key(message.key)
    headers = None if message.headers is None else _headers(message.headers)
    if isinstance(message.payload, type_of_bytes):
        data = bytes(message.payload)
        if len(data) > MAX_PAYLOAD_BYTES:
            raise _too_large(len(data))
        return Encoded(None, key, headers, data)
    return Encoded(_json(message.payload, "payload", dumps), key, headers, None)


def stored(topic: TopicName, message: NewMessage[Any]) -> NewMessage[Any]:
    """Return a message with its payload as the topic's type stores it.

    Raises:
        PayloadError: the payload is not of that type.
    """
    if not isinstance(topic, Topic):
        return message
    return dataclasses.replace(message, payload=topic.encode(message.payload))


def times_of(message: NewMessage[Any]) -> Times | None:
    """Check and return when a message is delivered and expires; None if it has no such times.

    Raises:
        InvalidArgument: a time has no zone, an interval is invalid, both forms were given, or the
            message would expire before its delivery.
    """
    given = (message.deliver_at, message.delay, message.expires_at, message.ttl)
    if given == (None, None, None, None):
        return None
    for name, time, length_name, length in (
        ("deliver_at", message.deliver_at, "delay", message.delay),
        ("expires_at", message.expires_at, "ttl", message.ttl),
    ):
        if time is not None and length is not None:
            raise InvalidArgument(f"give {name} or {length_name}, not both")
        check_time(name, time)
    if message.deliver_at and message.expires_at and message.expires_at <= message.deliver_at:
        raise InvalidArgument("the message would expire before its delivery")
    return Times(
        message.deliver_at,
        _length("delay", message.delay, zero=True),
        message.expires_at,
        _length("ttl", message.ttl),
    )


def dedup_of(message: NewMessage[Any]) -> tuple[str, timedelta] | None:
    """Check and return a message's dedup key and window; None if it has none.

    Raises:
        InvalidArgument: the key is invalid, or the window not positive.
    """
    if message.dedup_key is None:
        return None
    window = _length("dedup_window", message.dedup_window)
    if window is None:
        raise InvalidArgument("a dedup_key needs a dedup_window, in seconds")
    key = check_key(message.dedup_key)
    return (message.dedup_key if key is None else key, window)


def _length(name: str, value: Seconds | None, *, zero: bool = False) -> timedelta | None:
    return None if value is None else timedelta(seconds=in_seconds(name, value, zero=zero))


#: Returns the payload of JSON text, or of bytes.
Decode = Callable[[str | None, bytes | None], Any]


class Decoder:
    """Decodes what a consumer or a reader receives: JSON, or the type of its topic.

    Raises:
        InvalidArgument: a topic was given with two types.
    """

    def __init__(self, topics: Iterable[TopicName] = ()) -> None:
        self._types: ByTopic[Topic[Any] | None] = ByTopic()
        self._of_handlers: ByTopic[Topic[Any] | None] = ByTopic()
        for topic in topics:
            self.add(topic)

    def add_handled(self, topic: TopicName) -> None:
        """Add the topic of a handler: its messages have its type, whatever else matches them."""
        self.add(topic)
        name = check_pattern(topic)
        self._of_handlers.set(name, self._types.get(name))

    def add(self, topic: TopicName) -> None:
        """Add a topic; a name without a type does not change the type that is known."""
        name, typed = check_pattern(topic), topic if isinstance(topic, Topic) else None
        known = self._types.get(name)
        if typed and known and typed.codec is not known.codec:
            raise InvalidArgument(f"there are two types of topic {name!r}: make one Topic of it")
        self._types.set(name, typed or known)

    def of(self, topic: str) -> Decode:
        """Return what decodes the payloads of a topic: JSON text, or bytes.

        It raises PayloadError if one is not of the topic's type; ValueError or RecursionError for
        JSON that PostgreSQL holds and Python cannot decode.
        """
        typed = self._of_handlers.find(topic) or self._types.find(topic)
        return _as_it_is if typed is None else typed.read

    def headers(self, text: str) -> Any:
        """Return the headers; raises ValueError or RecursionError as ``of`` does."""
        return _decode(text)


#: A third of the cost of ``json.loads``, which looks for white space around the value: the database
#: sends none.
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def _decode(text: str) -> Any:
    try:
        return _scan(text, 0)[0]
    except StopIteration as end:
        raise json.JSONDecodeError("Expecting value", text, end.value) from None


def _as_it_is(text: str | None, data: bytes | None) -> Any:
    return data if text is None else _decode(text)


def readable(text: str) -> Any:
    """Decode stored JSON for people; what Python cannot decode stays text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def members(text: str) -> dict[str, JsonText]:
    """Return the members of a JSON object, each value as its own text.

    It only finds where each value ends; PostgreSQL checks whether it is JSON.

    Raises:
        ValueError: it is not an object.
    """
    found: dict[str, JsonText] = {}
    pos = _after(text, 0, "{")
    if text[pos : pos + 1] == "}":
        _after_all(text, pos + 1)
        return found
    while True:
        if text[pos : pos + 1] != '"':
            raise ValueError(f"a name is expected at character {pos + 1}")
        name, pos = scanstring(text, pos + 1)
        pos = _after(text, pos, ":")
        end = _end_of(text, pos)
        found[name] = JsonText(text[pos:end])
        pos = _SPACE.match(text, end).end()  # type: ignore[union-attr]
        if text[pos : pos + 1] == "}":
            _after_all(text, pos + 1)
            return found
        pos = _after(text, pos, ",")


_SPACE = re.compile(r"[ \t\r\n]*")
_SCALAR = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[^\s,\]}{\["]+', re.DOTALL)
#: Opening and closing brackets, and strings, to skip the brackets in them.
_NESTING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[{]|[\]}]', re.DOTALL)


def _after(text: str, pos: int, mark: str) -> int:
    """Return the position after a mark."""
    pos = _SPACE.match(text, pos).end()  # type: ignore[union-attr]
    if text[pos : pos + 1] != mark:
        raise ValueError(f"{mark} is expected at character {pos + 1}")
    return _SPACE.match(text, pos + 1).end()  # type: ignore[union-attr]


def _after_all(text: str, pos: int) -> None:
    if _SPACE.match(text, pos).end() != len(text):  # type: ignore[union-attr]
        raise ValueError(f"nothing more is expected at character {pos + 1}")


def _end_of(text: str, pos: int) -> int:
    """Return where a value ends, at any depth."""
    if text[pos : pos + 1] not in ("[", "{"):
        scalar = _SCALAR.match(text, pos)
        if scalar is None:
            raise ValueError(f"a value is expected at character {pos + 1}")
        return scalar.end()
    depth = 0
    for found in _NESTING.finditer(text, pos):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.end()
    raise ValueError(f"what begins at character {pos + 1} does not end")


def as_json(value: Any, what: str) -> str:
    """Return a value as JSON that PostgreSQL can hold. Raises PayloadError."""
    return _json(value, what, None)


def _headers(headers: Mapping[str, Any]) -> str:
    if not isinstance(headers, Mapping) or not all(isinstance(name, str) for name in headers):
        raise PayloadError("headers must be a mapping from str to JSON values")
    if any(isinstance(value, JsonText) for value in headers.values()):
        parts = (
            f"{json.dumps(name, ensure_ascii=False)}:{_json(value, 'headers', None)}"
            for name, value in headers.items()
        )
        return _json(JsonText(f"{{{','.join(parts)}}}"), "headers", None)
    return _json(dict(headers), "headers", None)


def _json(value: Any, what: str, dumps: Dumps | None) -> str:
    try:
        if isinstance(value, JsonText):
            text = _dumped(str(value))
        elif dumps is not None:
            text = _dumped(dumps(value))
        else:
            text = _as_text(value)
            if "e+" in text:
                text = _floats_kept(text)
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise PayloadError(f"the {what} has a lone surrogate: {error.reason}") from None
    except RecursionError:
        raise PayloadError(f"the {what} is nested too deeply, or contains itself") from None
    except (TypeError, ValueError) as error:
        raise PayloadError(f"the {what} is not JSON: {error}") from error
    # JSON writes NUL as an escape; after an escaped backslash the same letters are not NUL.
    if "\\u0000" in text and "\\u0000" in text.replace("\\\\", ""):
        raise PayloadError(f"the {what} has a NUL character, which PostgreSQL cannot store in JSON")
    if size > MAX_PAYLOAD_BYTES:
        raise _too_large(size)
    return text


def _floats_kept(text: str) -> str:
    """Rewrite numbers with an exponent, so that jsonb returns them with a fraction.

    Trap: jsonb stores ``1e+16`` as ``10000000000000000``. Read back, that is an int, and if it is
    large, another number. A fraction is kept, also one of zeros.
    """
    return _WITH_EXPONENT.sub(_plainly, text)


def _plainly(token: re.Match[str]) -> str:
    exponent = token["exponent"]
    if exponent is None or not -_MAX_EXPONENT < int(exponent) < _MAX_EXPONENT:
        return token[0]  # a string; or a number beyond a float, which PostgreSQL checks
    written = f"{Decimal(token[0]):f}"
    return written if "." in written else f"{written}.0"


def _dumped(made: str | bytes) -> str:
    """Check what the user's ``dumps`` has returned."""
    text = made.decode() if isinstance(made, bytes) else made
    if not isinstance(text, str):
        raise TypeError(f"dumps returned {type(made).__name__}, not str or bytes")
    if _MAYBE_EXPONENT.search(text):
        text = _floats_kept(text)
    if "\\ud" in text or "\\uD" in text:  # escaped surrogates, which may be lone ones
        json.dumps(json.loads(text), ensure_ascii=False).encode()
    return text


def _plain(value: Any) -> Any:
    """Return a pydantic model or a dataclass as a JSON value."""
    model_dump = getattr(value, "model_dump", None)
    if model_dump is not None and not isinstance(value, type):
        return model_dump(mode="json")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(
        f"{type(value).__name__} has no JSON form; convert it, or give the publisher a dumps"
    )


#: Once: json.dumps() with options makes an encoder each time.
_as_text = json.JSONEncoder(
    default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")
).encode


def _too_large(size: int) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"the payload has {size} bytes; the maximum is {MAX_PAYLOAD_BYTES}. "
        "Store it elsewhere and publish a reference to it"
    )
