"""Consumers on a database of Django's settings."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from django.core.cache import caches
from django.db import DEFAULT_DB_ALIAS, connections, reset_queries
from psycopg import pq
from psycopg.conninfo import make_conninfo

from durable_notify._sync.consumer import consumer as plain
from durable_notify.errors import UnsupportedConnection
from durable_notify.middleware import Middleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Unpack

    from durable_notify.groups import Group
    from durable_notify.middleware import Handling
    from durable_notify.options import ConsumerSettings
    from durable_notify.topics import TopicName

__all__ = ["Consumer", "dsn"]


def dsn(using: str = DEFAULT_DB_ALIAS) -> str:
    """Return the DSN of a database of the settings; in a test, of its test database.

    Raises:
        UnsupportedConnection: it is not PostgreSQL.
    """
    connection: Any = connections[using]
    if connection.vendor != "postgresql":
        raise UnsupportedConnection(
            f"Django's database {using!r} is not PostgreSQL: name one of settings.DATABASES that is"
        )
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    given = connection.get_connection_params()
    params = {name: value for name, value in given.items() if name in known and value is not None}
    if role := connection.settings_dict["OPTIONS"].get("assume_role"):
        # Trap: Django sets it by a statement, not in the parameters.
        params["options"] = f"{params.get('options', '')} -c role={role}".strip()
    return make_conninfo(**params)


class Consumer(plain.Consumer[Any]):
    """A consumer on a database of ``settings.DATABASES``, whose handlers use Django's connections.

    It runs handlers in threads, each with connections of its own. Around each message, Django's
    connections are treated as around a request: closed if they are broken, or older than
    ``CONN_MAX_AGE``. So are caches.

    Args:
        group: the consumer group: its name, or a ``Group``.
        topics: see ``durable_notify.Consumer``.
        using: the alias of the database.
        listen_using: the alias of a direct connection for listening, if ``using`` leads through a
            pooler.
        options: see ``ConsumerOptions``.
    """

    def __init__(
        self,
        *,
        group: str | Group,
        topics: Iterable[TopicName] | None = None,
        using: str = DEFAULT_DB_ALIAS,
        listen_using: str | None = None,
        **options: Unpack[ConsumerSettings],
    ) -> None:
        self._aliases = using, listen_using or using
        self._like_requests = _LikeRequests()
        options["middleware"] = [self._like_requests, *options.get("middleware", ())]
        direct = dsn(self._aliases[1])
        super().__init__(dsn(using), group=group, topics=topics, listen_dsn=direct, **options)

    def start(self) -> None:
        """Start as ``durable_notify.Consumer`` does."""
        self._find_database()
        super().start()

    def close(self) -> None:
        """Close as ``durable_notify.Consumer`` does, and then Django's connections of handlers."""
        super().close()
        self._like_requests.close()

    def _prepare(self, handler: Callable[..., Any] | None, concurrency: int | None) -> int:
        self._find_database()
        return super()._prepare(handler, concurrency)

    def _find_database(self) -> None:
        """Find the database again.

        Trap: a module makes its consumer before a test has another database.
        """
        found = dsn(self._aliases[0]), dsn(self._aliases[1])
        if found != (self._dsn, self._listen_dsn) and (self._ended or not self._started):
            self._dsn, self._listen_dsn = found
            self._set_up()


class _LikeRequests(Middleware):
    """Does around each message what Django does around a request."""

    def __init__(self) -> None:
        self._used: weakref.WeakSet[Any] = weakref.WeakSet()

    def close(self) -> None:
        """Close the connections of threads that have ended; Django would not."""
        for connection in list(self._used):
            if not connection.in_atomic_block:
                connection.inc_thread_sharing()
                connection.close()
                connection.dec_thread_sharing()

    def handling(self, call: Handling, /) -> Iterator[None]:
        del call
        reset_queries()
        _close_old_connections()
        try:
            yield
        finally:
            self._used.update(connections.all(initialized_only=True))
            _close_old_connections()
            caches.close_all()


def _close_old_connections() -> None:
    """Do what Django's function of this name does, but in a test's transaction.

    Trap: that one closes a connection within ``atomic()``.
    """
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()
