"""A reader's position in its topics, and its token."""

from __future__ import annotations

import base64
import json
import re
import zlib
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InvalidArgument
from ..topics import check_topic

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BEGINNING", "Position", "decode", "encode", "is_ahead", "misses"]

_SNAPSHOT = re.compile(r"\d{1,20}:\d{1,20}:[\d,]*")
_VERSION = "r1."
_MAX_BYTES = 8 << 20  # a position has about 100


class Position(NamedTuple):
    """A window of a topic, and the last id read in it; s1 is None if no window is open."""

    s0: str
    h0: int
    s1: str | None
    h1: int | None
    p: int


BEGINNING = Position("3:3:", 0, None, None, 0)


def is_ahead(position: Position, now: str) -> bool:
    """Return whether a position is of a later snapshot than a server's own now."""
    ends = [_bounds(each)[1] for each in (position.s0, position.s1) if each is not None]
    return max(ends) > _bounds(now)[1]


def misses(position: Position, removed_id: int, removed_xid: str) -> bool:
    """Return whether messages that retention removed may be missing to a position.

    Args:
        position: one without an open window.
        removed_id: the highest id that was removed.
        removed_xid: the highest transaction whose messages were removed. If the snapshot of the
            position has seen all up to that one, none of them was late.
    """
    return removed_id > position.h0 or int(removed_xid) >= _bounds(position.s0)[0]


def _bounds(snapshot: str) -> tuple[int, int]:
    """Return before which transaction all have ended, and after which none has begun."""
    first, last, _ = snapshot.split(":")
    return int(first), int(last)


def encode(log_id: str, positions: Mapping[str, Position]) -> str:
    """Return the token of these positions in a log."""
    text = json.dumps([log_id, positions], separators=(",", ":"), ensure_ascii=False)
    return _VERSION + base64.urlsafe_b64encode(zlib.compress(text.encode())).decode().rstrip("=")


def decode(token: str) -> tuple[str, dict[str, Position]]:
    """Return the log and the positions of a token.

    Raises:
        InvalidArgument: it is not a token.
    """
    try:
        version, body = token[: len(_VERSION)], token[len(_VERSION) :]
        packed = base64.b64decode(body + "=" * (-len(body) % 4), "-_", validate=True)
        if version != _VERSION:
            raise ValueError  # noqa: TRY301
        # Trap: a token is untrusted input, and may decompress to a thousand times its size.
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(packed, _MAX_BYTES)
        log_id, found = json.loads(text)
        if not isinstance(log_id, str) or not unpacking.eof:
            raise TypeError  # noqa: TRY301
        return log_id, {check_topic(topic): _position(*fields) for topic, fields in found.items()}
    except (ValueError, TypeError, AttributeError, RecursionError, zlib.error):
        raise InvalidArgument(
            'start is "beginning", "now", "latest", a datetime, or the token of a message; '
            f"not {token[:40]!r}"
        ) from None


def _position(s0: str, h0: int, s1: str | None, h1: int | None, p: int) -> Position:
    snapshots = [s0] if s1 is None else [s0, s1]
    ids = [h0, p] if h1 is None else [h0, h1, p]
    if not all(_SNAPSHOT.fullmatch(snapshot) for snapshot in snapshots):
        raise ValueError
    if not all(type(number) is int and 0 <= number < 2**63 for number in ids):
        raise ValueError
    return Position(s0, h0, s1, h1, p)
