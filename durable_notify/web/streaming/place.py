"""A client's place in a stream: the token of a reader, and messages beyond it that it has."""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from typing import TYPE_CHECKING, Any

from ..._core.position import decode, encode
from ...errors import InvalidArgument
from ...topics import matches

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...models import ReadMessage

__all__ = ["MAX_AHEAD", "MAX_BYTES", "Mark", "Place", "mark_of"]

#: The longest token, in bytes. Proxies and servers take 8 kB a header line by default.
MAX_BYTES = 7_000
#: The most messages beyond the reader's token that a place names.
MAX_AHEAD = 200

#: A message: its id, and when it was published, in microseconds. Trap: the id alone is not enough,
#: because a server after a fail-over may reuse it for another message.
Mark = tuple[int, int]


def mark_of(message: ReadMessage[Any]) -> Mark:
    """Return what identifies a message, also after a fail-over."""
    return message.id, int(message.published_at.timestamp() * 1_000_000)


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Everything up to ``base``, the token of a reader, and the messages ``ahead`` of it."""

    base: str
    ahead: frozenset[Mark] = frozenset()

    @property
    def token(self) -> str:
        """What a client sends to continue from here."""
        if not self.ahead:
            return self.base
        packed = zlib.compress(json.dumps(sorted(self.ahead), separators=(",", ":")).encode())
        return f"{self.base}~{base64.urlsafe_b64encode(packed).decode().rstrip('=')}"

    @classmethod
    def of(cls, token: str, topics: Iterable[str]) -> Place:
        """Return the place of a token, with those of its topics that are wanted.

        Raises:
            InvalidArgument: it is too large, or not a token of a stream.
        """
        if len(token) > MAX_BYTES:
            raise InvalidArgument(
                f"the token has {len(token)} bytes, and may have {MAX_BYTES}: ask for fewer "
                "topics in one stream, or begin without a token"
            )
        base, _, rest = token.partition("~")
        try:
            log_id, positions = decode(base)
            ahead = _unpacked(rest) if rest else frozenset[Mark]()
        except ValueError:
            raise InvalidArgument(
                "this is not a token of a stream: send the id of an event as it was received"
            ) from None
        # What a client has made larger must not be carried in every token from here on.
        wanted = list(topics)
        kept = {t: at for t, at in positions.items() if any(matches(t, p) for p in wanted)}
        return cls(base if len(kept) == len(positions) else encode(log_id, kept), ahead)


def _unpacked(rest: str) -> frozenset[Mark]:
    packed = base64.b64decode(rest + "=" * (-len(rest) % 4), "-_", validate=True)
    unpacking = zlib.decompressobj()
    try:
        found = json.loads(unpacking.decompress(packed, 20_000))
    except (zlib.error, RecursionError):
        raise ValueError from None
    if not isinstance(found, list) or len(found) > MAX_AHEAD:
        raise ValueError
    return frozenset(_mark(each) for each in found)


def _mark(given: Any) -> Mark:
    if not isinstance(given, list) or [type(number) for number in given] != [int, int]:
        raise ValueError
    return given[0], given[1]
