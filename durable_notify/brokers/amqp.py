"""Read AMQP frames that the client cannot, so that no message closes its connection.

Trap: the client closes the connection at a message with a timestamp in microseconds, or a name
that is not UTF-8. RabbitMQ then requeues it at the front, where it stays for ever.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["connection_class", "text_of"]

_HEADER = 2  # the type of the frame with a message's properties
_START = 7  # bytes before a frame's content
_FIXED = 12  # bytes before the properties
#: The deepest nesting of tables in headers to read.
_DEEPEST = 50


def connection_class(aiormq: Any, pamqp: Any) -> Any:
    """Return a class of connections that read every message, with unreadable parts as text."""

    class Connection(aiormq.connection.Connection):  # type: ignore[misc]
        # The mangled name by which the base class calls it.
        async def _Connection__reader(self, frames: Any) -> None:  # noqa: N802
            frames.reader = recorded = _Recorded(frames.reader)
            strict = frames.get_frame

            async def get_frame() -> Any:
                recorded.last.clear()
                try:
                    return await strict()
                except Exception:
                    if (frame := _read(pamqp, bytes(recorded.last))) is None:
                        raise
                    return frame

            frames.get_frame = get_frame
            await super()._Connection__reader(frames)

    return Connection


class _Recorded:
    """A stream that keeps what was last read from it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.last = bytearray()

    async def readexactly(self, size: int) -> bytes:
        found: bytes = await self._stream.readexactly(size)
        self.last += found
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _read(pamqp: Any, data: bytes) -> tuple[int, int, Any] | None:
    """Return a frame of properties, with the readable ones; None: it is not such a frame."""
    if len(data) < _START + _FIXED + 2 or data[0] != _HEADER:
        return None
    channel, size = struct.unpack_from(">HI", data, 1)
    content = data[_START : _START + size]
    if len(data) != _START + size + 1:
        return None
    frame = pamqp.header.ContentHeader()
    frame.class_id, frame.weight, frame.body_size = struct.unpack_from(">HHQ", content)
    offset, flags = frame._get_flags(content[_FIXED:])  # noqa: SLF001 - it has no other
    _fill(pamqp, frame.properties, flags, content[_FIXED + offset :])
    return len(data), channel, frame


def _fill(pamqp: Any, properties: Any, flags: int, data: bytes) -> None:
    """Read the properties in order, as far as they are readable."""
    properties.headers = {}
    odd: dict[str, str] = {}
    try:
        _fill_each(pamqp, properties, flags, data, odd)
    except Exception:  # noqa: BLE001 - what is left cannot be told apart, and is kept as it is
        odd["amqp-properties"] = data.hex()
    for name, text in odd.items():
        properties.headers.setdefault(name, text)


def _fill_each(pamqp: Any, properties: Any, flags: int, data: bytes, odd: dict[str, str]) -> None:
    for name in type(properties).__slots__:
        if not flags & properties.flags[name]:
            continue
        kind = getattr(type(properties), f"_{name}")
        if kind == "table":
            size, properties.headers = _table(pamqp, data, 0)
        elif kind == "shortstr":
            size = 1 + data[0]
            setattr(properties, name, text_of(data[1:size]))
        elif kind == "timestamp":
            size, properties.timestamp = 8, None
            odd["timestamp"] = str(struct.unpack_from(">Q", data)[0])
        else:
            size = 1
            setattr(properties, name, data[0])
        data = data[size:]


def _table(pamqp: Any, data: bytes, depth: int) -> tuple[int, dict[str, Any]]:
    size = 4 + struct.unpack_from(">I", data)[0]
    table: dict[str, Any] = {}
    pos = 4
    while pos < size:
        length = data[pos]
        name = text_of(data[pos + 1 : pos + 1 + length])
        pos += 1 + length
        try:
            used, table[name] = _value(pamqp, data[pos:size], depth + 1)
        except Exception:  # noqa: BLE001 - its end is unknown, and so is what follows
            table[name] = text_of(data[pos:size])
            break
        pos += used
    return size, table


def _value(pamqp: Any, data: bytes, depth: int) -> tuple[int, Any]:
    if depth > _DEEPEST:
        raise ValueError("tables are nested too deep to be read")
    kind, rest = data[:1], data[1:]
    found: Any
    if kind == b"F":
        used, found = _table(pamqp, rest, depth)
    elif kind == b"A":
        used, found = _array(pamqp, rest, depth)
    elif kind == b"T":
        used, found = 8, struct.unpack_from(">Q", rest)[0]
    else:
        read: Callable[[bytes], tuple[int, Any]] = pamqp.decode.TABLE_MAPPING[kind]
        used, found = read(rest)
    return 1 + used, found


def _array(pamqp: Any, data: bytes, depth: int) -> tuple[int, list[Any]]:
    size = 4 + struct.unpack_from(">I", data)[0]
    found, pos = [], 4
    while pos < size:
        used, value = _value(pamqp, data[pos:size], depth + 1)
        found.append(value)
        pos += used
    return size, found


def text_of(data: bytes | bytearray) -> str:
    r"""Return bytes as text, with ``\xff`` for what is not UTF-8."""
    return bytes(data).decode(errors="backslashreplace")
