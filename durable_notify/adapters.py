"""Values between Python and PostgreSQL, independent of what a session, role or program has set.

This library's cursors depend neither on the settings of a session nor on what the program has
registered with psycopg:

- Results are binary: no DateStyle, IntervalStyle, extra_float_digits or bytea_output shapes them.
- Lists are sent binary: as text, NULL in a list becomes a string if array_nulls is off.
- Dumpers and loaders are the driver's own.

They send and receive JSON only as text, because ``set_json_loads()`` changes the driver's loader.
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
    "NO_ENCODING", "PLAIN", "AsyncOwnCursor", "OwnCursor", "check_encoding",
    "check_encodings", "storable_in",
]  # fmt: skip

NO_ENCODING = (
    "The encoding of this database is SQL_ASCII: PostgreSQL does not know what its bytes mean, and "
    "neither checks nor converts them. Make one that has an encoding, CREATE DATABASE ... ENCODING "
    "'UTF8' TEMPLATE template0, and restore a dump into it."
)
#: The type text[].
TEXT_ARRAY = postgres.types["text"].array_oid
#: The name of the encoding that has no characters.
_NONE = b"SQL_ASCII"


class _Text(StrBinaryDumper):
    """Text in a list. A NUL character is refused before anything is sent, as in text by itself."""

    def dump(self, obj: str) -> Buffer | None:
        if "\x00" in obj:
            raise psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
        return super().dump(obj)


class _List(ListBinaryDumper):
    """A list, including an empty one and one with only None, because queries cast them."""

    def upgrade(self, obj: list[Any], format: PyFormat) -> BaseListDumper:  # noqa: A002
        if all(item is None for item in obj):
            dumper = type(self)(self.cls, self._tx)
            dumper.oid = TEXT_ARRAY
            return dumper
        return super().upgrade(obj, format)


class _Utf8(TextLoader):
    """Text of a session whose client_encoding is SQL_ASCII."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode()


class _Utf8Binary(TextBinaryLoader):
    """The same for binary results."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode()


def _plain() -> AdaptersMap:
    """Return the driver's initial adapters, without what a program has registered since."""
    adapters = AdaptersMap(types=postgres.types)
    postgres.register_default_adapters(adapters)
    register_all_arrays(adapters)
    adapters.register_dumper(str, _Text)
    adapters.register_dumper(str, StrDumperUnknown)  # the last one applies, except in lists
    adapters.register_dumper(list, _List)
    return adapters


def _utf8() -> AdaptersMap:
    adapters = _plain()
    adapters.register_loader(0, _Utf8)
    for name in ("text", "varchar", "bpchar", "name"):
        adapters.register_loader(name, _Utf8)
        adapters.register_loader(name, _Utf8Binary)
    return adapters


#: The driver's initial adapters, for our connections on which handlers run statements.
PLAIN = _plain()
_UTF8 = _utf8()


def check_encoding(pgconn: PGconn) -> None:
    """Raise unless text arrives in the database unchanged; this does not ask the server.

    Raises:
        EncodingUnsupported: the database has no encoding.
        UnsupportedConnection: the session has no encoding, and the database is not UTF-8.
    """
    server = pgconn.parameter_status(b"server_encoding") or b""
    client = pgconn.parameter_status(b"client_encoding") or b""
    check_encodings(server.decode(), client.decode())


def check_encodings(server: str | None, client: str | None) -> None:
    """Do the same for the encodings of a database and a session; None: not known."""
    if server == "SQL_ASCII":
        raise EncodingUnsupported(NO_ENCODING)
    if client == "SQL_ASCII" and server != "UTF8":
        raise UnsupportedConnection(
            f"client_encoding is SQL_ASCII, and the database's encoding {server}: what is "
            "text here would be other text there. Connect with client_encoding=utf8"
        )


def storable_in(pgconn: PGconn, text: str) -> str:
    """Return a text with escapes for the characters that the database's encoding lacks.

    It is for text that people read: an error must be stored, whatever its text.
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
    """A cursor with the adapters of this library, on any connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.format = Format.BINARY

    @property
    def adapters(self) -> AdaptersMap:
        """The driver's own adapters, whatever was registered."""
        return _adapters(self._pgconn)


class OwnCursor(Cursor[Any]):
    """A cursor with the adapters of this library, on any connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.format = Format.BINARY

    @property
    def adapters(self) -> AdaptersMap:
        """The driver's own adapters, whatever was registered."""
        return _adapters(self._pgconn)
