"""What is needed of the connections of drivers that this library does not import."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["AsyncDriverConnection", "DriverConnection"]


class _Psycopg2Connection(Protocol):
    """A connection of psycopg2."""

    @property
    def autocommit(self) -> Any: ...
    @property
    def info(self) -> Any: ...
    def cursor(self, *args: Any, **kwargs: Any) -> Any: ...
    def get_parameter_status(self, parameter: str, /) -> Any: ...  # psycopg 3 has none


class _DjangoConnection(Protocol):
    """``django.db.connection``, or one of ``django.db.connections``."""

    @property
    def alias(self) -> Any: ...
    @property
    def vendor(self) -> Any: ...
    def cursor(self, *args: Any, **kwargs: Any) -> Any: ...
    def get_autocommit(self) -> Any: ...


class AsyncDriverConnection(Protocol):
    """A connection of asyncpg, or of its pool."""

    def fetch(self, query: str, /, *args: Any, record_class: Any = ...) -> Any: ...
    def get_settings(self) -> Any: ...
    def is_in_transaction(self) -> bool: ...


DriverConnection = _Psycopg2Connection | _DjangoConnection
