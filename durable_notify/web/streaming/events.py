"""What a client receives, as text of Server-Sent Events and of WebSocket."""

from __future__ import annotations

import base64
import functools
import json
from typing import TYPE_CHECKING, Any

from ...errors import PayloadError
from ..formats import iso
from ..masking import MASKED, Masks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...models import ReadMessage

__all__ = ["Batch", "Event", "Frame"]


class Event:
    """One event: its name, its data as JSON, and the token to continue with after it.

    Args:
        name: ``message``, ``place``, ``gap``, ``reset`` or ``beat``.
        data: JSON.
        token: None: the client's place stays as it was.
    """

    __slots__ = ("_frame", "_sse", "data", "name", "token")

    def __init__(self, name: str, data: str, token: str | None = None) -> None:
        self.name = name
        self.data = data
        self.token = token
        self._sse: bytes | None = None
        self._frame: str | None = None

    @property
    def sse(self) -> bytes:
        """The event as bytes of an event stream. They are made once for all clients."""
        if self._sse is None:
            lines = [] if self.token is None else [f"id: {self.token}"]
            if self.name != "message":
                lines.append(f"event: {self.name}")
            lines.append(f"data: {self.data}")
            self._sse = ("\n".join(lines) + "\n\n").encode()
        return self._sse

    @property
    def frame(self) -> str:
        """The event as a text frame of a WebSocket."""
        if self._frame is None:
            token = json.dumps(self.token)
            self._frame = f'{{"event":"{self.name}","id":{token},"data":{self.data}}}'
        return self._frame


class Batch(list[Event]):
    """Events to hand over at once; clients that need the same may share it."""

    __slots__ = ("_sse",)

    def __init__(self, events: Iterable[Event] = ()) -> None:
        super().__init__(events)
        self._sse: bytes | None = None

    @property
    def sse(self) -> bytes:
        """The events as bytes of an event stream. They are joined once for all clients."""
        if self._sse is None:
            self._sse = b"".join([event.sse for event in self])
        return self._sse


class Frame:
    """A message in a ring, and what clients receive of it.

    Args:
        message: the message.
        token: that of the reader after it.
    """

    __slots__ = ("_events", "message", "size", "token")

    def __init__(self, message: ReadMessage[Any], token: str) -> None:
        self.message = message
        self.token = token
        self._events: dict[tuple[str, ...], Event] = {}
        # The message, its token and its bytes as an event. A little more than it will be.
        self.size = 1_000 + 2 * (len(token) + len(self.event(()).data))

    def event(self, masks: tuple[str, ...]) -> Event:
        """Return the event for clients with these masks."""
        found = self._events.get(masks)
        if found is None:
            found = Event("message", _data(self.message, _masks(masks)), self.token)
            self._events[masks] = found
        return found


@functools.lru_cache(maxsize=1_000)
def _masks(paths: tuple[str, ...]) -> Masks:
    return Masks(paths)


def _data(message: ReadMessage[Any], masks: Masks) -> str:
    try:
        payload = message.payload
    except PayloadError:  # pragma: no cover - topics here have no types
        payload = None
    data = {
        "id": message.id, "topic": message.topic, "key": message.key, "payload": None,
        "headers": masks.value(message.headers), "published_at": iso(message.published_at),
    }  # fmt: skip
    if isinstance(payload, bytes):
        # Masks name fields, and bytes have none: what is masked might be in them.
        data["base64"] = MASKED if masks else base64.b64encode(payload).decode()
    else:
        data["payload"] = masks.value(payload)
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
