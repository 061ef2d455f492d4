"""Headers of NATS's messages, of which its client drops some."""

from __future__ import annotations

from typing import Any

from .ingest import put

__all__ = ["THEIRS", "read_all_headers"]

#: A prefix for names by which the client would take a message for one of the server's own.
THEIRS = "\0"


def read_all_headers(client: Any) -> None:
    """Make a client keep every header of every message.

    Trap: it drops a message with a header named Status, which it takes for the server's status. And
    it silently drops headers whose name has white space or is not ASCII.
    """
    of_server = client._process_headers  # noqa: SLF001 - it has no other

    async def process(raw: bytes | None) -> dict[str, Any] | None:
        if not raw or not raw.startswith(_FIRST_LINE):
            return await of_server(raw)  # type: ignore[no-any-return]
        return _headers_of(raw)

    client._process_headers = process  # noqa: SLF001


#: The first line of a publisher's headers; that of the server's own has a status.
_FIRST_LINE = b"NATS/1.0\r\n"


def _headers_of(raw: bytes) -> dict[str, Any] | None:
    """Read headers; a repeated name becomes a list of values."""
    headers: dict[str, Any] = {}
    for line in raw.removeprefix(_FIRST_LINE).split(b"\r\n"):
        before, colon, after = line.partition(b":")
        if not colon:
            continue
        name, value = (
            part.decode(errors="backslashreplace").strip(" \t") for part in (before, after)
        )
        if name == "Status":
            name = THEIRS + name
        put(headers, name, value)
    return headers or None
