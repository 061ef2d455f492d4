"""Values between Python and PostgreSQL: the same whatever a session, role or program has set.

Cursors of ours depend on neither the settings of a session nor on what the program has registered
with psycopg for its own:

- Results are binary: no DateStyle, IntervalStyle, extra_float_digits or bytea_output shapes them.
- Lists are sent binary: as text, NULL in a list is a string where array_nulls is off.
- Dumpers and loaders are the driver's own ones.

JSON they neither send nor get but as text: ``set_json_loads()`` changes the driver's own loader.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import AsyncCursor, Cursor, postgres
from psycopg.adapt import AdaptersMap, PyFormat
from psycopg.pq import Format
from psycopg.types.array import BaseListDumper, ListBinaryDumper, register_all_arrays
from psycopg.types.string import StrBinaryDumper, StrDumperUnknown, TextBinaryLoader, TextLoader

from .errors import EncodingUnsupported, UnsupportedConnection

if TYPE_CHECKING:
    from psycopg.abc import Buffer
    from psycopg.pq.abc import PGconn

__all__ = [
    "NO_ENCODING", "PLAIN", "AsyncOwnCursor", "OwnCursor", "check_encoding", "storable_in",
]  # fmt: skip

NO_ENCODING = (
    "The encoding of this database is SQL_ASCII: PostgreSQL does not know what its bytes mean, and "
    "neither checks nor converts them. Make one that has an encoding, CREATE DATABASE ... ENCODING "
    "'UTF8' TEMPLATE template0, and restore a dump into it."
)
#: The type text[].
TEXT_ARRAY = postgres.types["text"].array_oid
#: An encoding without characters.
_NONE = b"SQL_ASCII"


class _Text(StrBinaryDumper):
    """Text in a list. A NUL character is refused before anything is sent, as in text by itself."""

    def dump(self, obj: str) -> Buffer | None:
        if "\x00" in obj:
            raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
        return super().dump(obj)


class _List(ListBinaryDumper):
    """A list, also an empty one and where all of it is None: queries cast them."""

    def upgrade(self, obj: list[Any], format: PyFormat) -> BaseListDumper:  # noqa: A002
        if all(item is None for item in obj):
            dumper = type(self)(self.cls, self._tx)
            dumper.oid = TEXT_ARRAY
            return dumper
        return super().upgrade(obj, format)


class _Utf8(TextLoader):
    """Text where a session says of its client_encoding that it has none."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode()


class _Utf8Binary(TextBinaryLoader):
    """The same of binary results."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode()


def _plain() -> AdaptersMap:
    """Return what the driver begins with, and not what a program has registered since."""
    adapters = AdaptersMap(types=postgres.types)
    postgres.register_default_adapters(adapters)
    register_all_arrays(adapters)
    adapters.register_dumper(str, _Text)
    adapters.register_dumper(str, StrDumperUnknown)  # the last is taken, but in lists
    adapters.register_dumper(list, _List)
    return adapters


def _utf8() -> AdaptersMap:
    adapters = _plain()
    adapters.register_loader(0, _Utf8)
    for name in ("text", "varchar", "bpchar", "name"):
        adapters.register_loader(name, _Utf8)
        adapters.register_loader(name, _Utf8Binary)
    return adapters


#: What the driver begins with, for connections of ours that others run statements on.
PLAIN = _plain()
_UTF8 = _utf8()


def check_encoding(pgconn: PGconn) -> None:
    """Raise unless what is text here is text there; nothing is asked of the server.

    Raises:
        EncodingUnsupported: the database has no encoding.
        UnsupportedConnection: the session does without one, in a database of another than UTF-8.
    """
    server = pgconn.parameter_status(b"server_encoding") or b""
    if server == _NONE:
        raise EncodingUnsupported(NO_ENCODING)
    if pgconn.parameter_status(b"client_encoding") == _NONE and server != b"UTF8":
        raise UnsupportedConnection(
            f"client_encoding is SQL_ASCII, and the database's encoding {server.decode()}: what is "
            "text here would be other text there. Connect with client_encoding=utf8"
        )


def storable_in(pgconn: PGconn, text: str) -> str:
    """Return a text with escapes in place of what the database's encoding lacks.

    For what people read: an error must be kept, whatever its text is.
    """
    server = (pgconn.parameter_status(b"server_encoding") or b"UTF8").decode()
    if server == "UTF8":
        return text
    try:
        codec = codecs.lookup(server.replace("WIN", "cp")).name
    except LookupError:
        codec = "ascii"
    return text.encode(codec, "backslashreplace").decode(codec)


def _adapters(pgconn: PGconn) -> AdaptersMap:
    return _UTF8 if pgconn.parameter_status(b"client_encoding") == _NONE else PLAIN


class AsyncOwnCursor(AsyncCursor[Any]):
    """A cursor of ours, on any connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.format = Format.BINARY

    @property
    def adapters(self) -> AdaptersMap:
        """The driver's own, whatever was registered."""
        return _adapters(self._pgconn)


class OwnCursor(Cursor[Any]):
    """A cursor of ours, on any connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.format = Format.BINARY

    @property
    def adapters(self) -> AdaptersMap:
        """The driver's own, whatever was registered."""
        return _adapters(self._pgconn)
