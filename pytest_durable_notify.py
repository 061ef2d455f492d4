"""The pytest plugin of durable_notify: databases for tests. See ``docs/testing.md``.

It is a module of its own, and imports the package only in its fixtures: every pytest of the
environment loads it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from durable_notify.testing.databases import TestServer

OPTION = "durable_notify_server"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option and the setting that choose the server."""
    words = (
        "where durable_notify creates test databases: embedded, testcontainers, "
        "testcontainers:IMAGE, or the DSN of a server of yours"
    )
    group = parser.getgroup("durable_notify")
    group.addoption("--durable-notify-server", dest=OPTION, metavar="SERVER", help=words)
    parser.addini(OPTION, words)


def pytest_report_collectionfinish(config: pytest.Config, items: list[pytest.Item]) -> list[str]:
    """Name the server, if a test uses it."""
    if any("durable_notify_server" in getattr(item, "fixturenames", ()) for item in items):
        try:
            choice = _choice(config)
        except pytest.UsageError:  # the fixture raises it, if it is this one
            return []
        server = "your server" if "=" in choice or "//" in choice else choice
        return [f"durable_notify: databases on {server}"]
    return []


def _choice(config: pytest.Config) -> str:
    from durable_notify.errors import InvalidArgument
    from durable_notify.testing.databases import choose

    given = config.getoption(OPTION) or config.getini(OPTION)
    try:
        return choose(given or os.environ.get("DURABLE_NOTIFY_TEST_SERVER"))
    except InvalidArgument as error:
        raise pytest.UsageError(str(error)) from None


@pytest.fixture(scope="session")
def durable_notify_server(pytestconfig: pytest.Config) -> Iterator[TestServer]:
    """The PostgreSQL of this run; with pytest-xdist, of this worker."""
    from durable_notify.testing.databases import start

    with start(_choice(pytestconfig)) as server:
        yield server


@pytest.fixture(scope="session")
def durable_notify_migrate() -> Callable[[str], object]:
    """What migrates the database that tests copy: override it to create your own tables, too."""
    from durable_notify import schema

    return schema.migrate


@pytest.fixture(scope="session")
def durable_notify_template(
    durable_notify_server: TestServer, durable_notify_migrate: Callable[[str], object]
) -> Iterator[str]:
    """The name of a migrated database, which is copied for tests."""
    with durable_notify_server.template(durable_notify_migrate) as name:
        yield name


@pytest.fixture
def durable_notify_dsn(
    durable_notify_server: TestServer, durable_notify_template: str
) -> Iterator[str]:
    """The DSN of a migrated database of the test's own, for tests that commit."""
    with durable_notify_server.database(durable_notify_template) as name:
        yield durable_notify_server.dsn(name)


@pytest.fixture(scope="session")
def durable_notify_shared_dsn(
    durable_notify_server: TestServer, durable_notify_template: str
) -> Iterator[str]:
    """The DSN of one migrated database for all tests, which must roll back."""
    with durable_notify_server.database(durable_notify_template) as name:
        yield durable_notify_server.dsn(name)


@pytest.fixture
def durable_notify_connection(
    durable_notify_shared_dsn: str,
) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A psycopg connection in a transaction, which is rolled back at the end of the test."""
    import psycopg

    with (
        psycopg.connect(durable_notify_shared_dsn) as connection,
        connection.transaction(force_rollback=True),
    ):
        yield connection
