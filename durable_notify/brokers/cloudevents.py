"""Convert CloudEvents 1.0 and messages: attributes are headers, data is the payload.

The headers are those of the binary mode of the Kafka protocol binding: ``ce_`` and the attribute's
name, and ``content-type`` for ``datacontenttype``.
"""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from ..codecs import codec_of
from ..errors import InvalidArgument
from ..payloads import NewMessage, members

if TYPE_CHECKING:
    from typing import Unpack

    from ..payloads import NewMessageOptions

__all__ = ["from_event", "to_event"]

_REQUIRED = ("specversion", "id", "source", "type")
_NAME = re.compile("[a-z0-9]+")


class _Message(Protocol):
    @property
    def id(self) -> int: ...
    @property
    def topic(self) -> str: ...
    @property
    def payload(self) -> Any: ...
    @property
    def headers(self) -> Mapping[str, Any]: ...
    @property
    def published_at(self) -> datetime: ...


def from_event(event: Any, **options: Unpack[NewMessageOptions]) -> NewMessage:
    """Return a CloudEvent as a message for ``publish`` or ``publish_many``.

    Args:
        event: a mapping in the JSON format, with ``data`` or ``data_base64``; that format as text,
            whose data keeps every digit; or an object of the ``cloudevents`` package.
        options: those of ``NewMessage``: key, delay, dedup_key and so on.

    Raises:
        InvalidArgument: it is not a CloudEvent 1.0.
    """
    fields = _fields(event)
    data = fields.pop("data", None)
    encoded = fields.pop("data_base64", None)
    if encoded is not None:
        if data is not None:
            raise InvalidArgument("a CloudEvent has data or data_base64, not both")
        try:
            data = base64.b64decode(encoded, validate=True)
        except (TypeError, ValueError):
            raise InvalidArgument("data_base64 of a CloudEvent is not base64") from None
    for name in _REQUIRED:
        if not isinstance(fields.get(name), str) or not fields[name]:
            raise InvalidArgument(f"a CloudEvent has a {name}, a str that is not empty")
    if fields["specversion"] != "1.0":
        raise InvalidArgument(f"CloudEvents {fields['specversion']} are not supported; use 1.0")
    headers = {}
    for name, value in fields.items():
        if value is None:
            continue
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidArgument(f"attribute {name!r} of a CloudEvent: names are a-z and 0-9")
        headers["content-type" if name == "datacontenttype" else f"ce_{name}"] = _plain(name, value)
    return NewMessage(data, headers=headers, **options)


def to_event(message: _Message) -> dict[str, Any]:
    """Return a message as a CloudEvent in the JSON format, bytes as ``data_base64``.

    It fills in what the headers lack: the message's id, ``/TOPIC`` as the source, the topic as the
    type, and the time of publishing. A model, dataclass or struct becomes the JSON of its type.

    Raises:
        InvalidArgument, PayloadError: the payload has no JSON form.
    """
    event: dict[str, Any] = {
        name.removeprefix("ce_"): value
        for name, value in message.headers.items()
        if name.startswith("ce_")
    }
    if (content := message.headers.get("content-type")) is not None:
        event["datacontenttype"] = content
    if not event.keys() >= set(_REQUIRED):
        published = message.published_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
        event = {
            "specversion": "1.0",
            "id": str(message.id),
            "source": f"/{message.topic}",
            "type": message.topic,
            "time": published,
        } | event
    if isinstance(message.payload, bytes):
        event["data_base64"] = base64.b64encode(message.payload).decode()
    elif message.payload is not None:
        event["data"] = _data(message.payload)
    return event


def _data(payload: Any) -> Any:
    """Return a payload as a JSON value: that of a ``Topic`` with a type may be any object."""
    if isinstance(payload, (dict, list, str, int, float)):
        return payload
    kind: Any = type(payload)
    return _codec_of(kind).encode(payload)


_codec_of = functools.lru_cache(100)(codec_of)


def _fields(event: Any) -> dict[str, Any]:
    if isinstance(event, (str, bytes)):
        try:
            found = members(event if isinstance(event, str) else event.decode())
            fields = {name: json.loads(text) for name, text in found.items() if name != "data"}
        except (ValueError, RecursionError):
            raise InvalidArgument("a CloudEvent as text is a JSON object") from None
        data = found.get("data", "null")
        return fields if data == "null" else {**fields, "data": data}
    if isinstance(event, Mapping):
        return dict(event)
    if hasattr(event, "get_attributes") and hasattr(event, "get_data"):
        return {**event.get_attributes(), "data": event.get_data()}
    raise InvalidArgument(f"a CloudEvent is a mapping, not {type(event).__name__}")


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InvalidArgument(f"attribute {name} of a CloudEvent has no time zone")
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if not isinstance(value, (str, bool, int)):
        raise InvalidArgument(f"attribute {name} of a CloudEvent is a str, bool or int")
    return value
