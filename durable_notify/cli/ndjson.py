"""NDJSON: read lines, and convert them to messages."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import os
import select
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import InvalidArgument
from ..payloads import (
    MAX_PAYLOAD_BYTES,
    JsonText,
    NewMessage,
    dedup_of,
    encode,
    members,
    times_of,
)  # fmt: skip

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BadLine", "Batch", "LineFormat", "batches", "parse_json", "parse_line"]

#: Fields that ``consume`` and archives print, and that publishers do not set.
PRINTED = ("id", "topic", "published_at", "attempt")
#: Other fields of an envelope, beside payload, key and headers.
OPTIONS = ("deliver_at", "delay", "expires_at", "ttl", "dedup_key", "dedup_window")
MAX_LINES = 1000
MAX_BYTES = 8 << 20
CHUNK = 1 << 20


class BadLine(Exception):
    """A line that cannot be published."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line


@dataclasses.dataclass(frozen=True, slots=True)
class LineFormat:
    """How lines become messages."""

    key: str | None = None
    headers: dict[str, str] | None = None
    text: bool = False
    envelope: bool = False
    options: dict[str, Any] = dataclasses.field(default_factory=dict)

    def message(self, payload: Any) -> NewMessage:
        """Return a payload as a message."""
        return NewMessage(payload, self.key, self.headers, **self.options)


class Batch(NamedTuple):
    """Lines to publish together, each with its number, and how many bytes they were."""

    lines: list[tuple[int, bytes]]
    size: int


def parse_json(text: str) -> JsonText:
    """Return JSON unchanged, with every digit. Raises ValueError with a reason that quotes none.

    JSON that no consumer in Python can decode is refused: its author learns it, not its readers.
    """
    try:
        json.loads(text, parse_constant=_no_constant, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return JsonText(text)


def _finite(text: str) -> str:
    if math.isinf(float(text)):
        raise ValueError("a number is out of range")
    return text


def _check_envelope(text: str) -> None:
    """Raise ValueError if it is not JSON. JSON that was stored can be published again."""
    try:
        json.loads(text, parse_constant=_no_constant, parse_float=str, parse_int=str)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at character {error.pos + 1}") from None
    except RecursionError:
        pass  # Python cannot tell; PostgreSQL will


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def parse_line(number: int, line: bytes, line_format: LineFormat) -> tuple[int, NewMessage]:
    """Return a line's number and message. Raises BadLine."""
    try:
        text = line.decode()
        if line_format.envelope:
            _check_envelope(text)
            message = _open(text, line_format)
        else:
            message = line_format.message(text if line_format.text else parse_json(text))
        encode(message)
        times_of(message)
        dedup_of(message)
    except UnicodeDecodeError as error:
        raise BadLine(number, f"it is not UTF-8 at byte {error.start + 1}") from None
    except InvalidArgument as error:
        raise BadLine(number, str(error)) from None
    except ValueError as error:
        raise BadLine(number, f"it is not JSON: {error}") from None
    return number, message


def _open(text: str, line_format: LineFormat) -> NewMessage:
    try:
        envelope = members(text)
    except ValueError:  # it is JSON, but not an object
        envelope = {}
    if "payload" not in envelope:
        raise InvalidArgument(
            'it is not an envelope: write {"payload": ...} and optionally key, headers'
        )
    if unknown := set(envelope) - {"payload", "key", "headers", "encoding", *OPTIONS, *PRINTED}:
        raise InvalidArgument(f"the envelope has {', '.join(sorted(unknown))}, which is unknown")
    whole = {"payload", "headers", "encoding"}
    given = {name: json.loads(value) for name, value in envelope.items() if name not in whole}
    given = {name: value for name, value in given.items() if value is not None}
    options = line_format.options | {name: given[name] for name in OPTIONS if name in given}
    for name in {"deliver_at", "expires_at"} & given.keys():
        options[name] = _moment(name, given[name])
    headers = _headers(envelope.get("headers", "null"), line_format)
    payload: Any = envelope["payload"]
    if "encoding" in envelope:
        payload = _bytes(json.loads(payload), json.loads(envelope["encoding"]))
    return NewMessage(payload, given.get("key", line_format.key), headers, **options)


def _headers(text: str, line_format: LineFormat) -> dict[str, Any] | None:
    if text == "null":
        return line_format.headers
    try:
        headers: dict[str, Any] = {**members(text)}
    except ValueError:
        raise InvalidArgument("headers are an object") from None
    return {**(line_format.headers or {}), **headers}


def _bytes(payload: Any, encoding: Any) -> bytes:
    """Return a payload of bytes, as an archive writes it."""
    try:
        if encoding == "base64":
            return base64.b64decode(payload["base64"], validate=True)
    except (TypeError, KeyError, ValueError):
        pass
    raise InvalidArgument('bytes are {"payload": {"base64": "..."}, "encoding": "base64"}')


def _moment(name: str, value: Any) -> datetime:
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise InvalidArgument(f"{name} is a time in ISO 8601, with its zone") from None


def batches(descriptor: int) -> Iterator[Batch]:
    """Read lines; a batch is complete once it is large enough, or nothing more is there yet.

    Raises BadLine for a line over the largest payload, after the lines before it.
    """
    number, size = 1, 0
    lines: list[tuple[int, bytes]] = []
    pieces: list[bytes] = []  # of a line whose end has not arrived yet
    waiting = 0
    while chunk := os.read(descriptor, CHUNK):
        first, *others = chunk.split(b"\n")
        pieces.append(first)
        waiting += len(first)
        for following in others:
            lines += _kept(number, b"".join(pieces))
            size += waiting + 1
            number += 1
            pieces, waiting = [following], len(following)
            if len(lines) >= MAX_LINES or size >= MAX_BYTES:
                yield Batch(lines, size)
                lines, size = [], 0
        if lines and not select.select([descriptor], [], [], 0)[0]:
            yield Batch(lines, size)
            lines, size = [], 0
        if waiting > MAX_PAYLOAD_BYTES:
            yield Batch(lines, size)
            raise BadLine(number, f"it is longer than {MAX_PAYLOAD_BYTES} bytes")
    lines += _kept(number, b"".join(pieces))
    if lines:
        yield Batch(lines, size + waiting)


def _kept(number: int, line: bytes) -> list[tuple[int, bytes]]:
    if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
    line = line.removesuffix(b"\r")
    return [(number, line)] if line.strip() else []
