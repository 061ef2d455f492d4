"""The pytest plugin, in small projects that run pytest in this process."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import psycopg
import pytest

import pytest_durable_notify as plugin
from durable_notify.errors import InvalidArgument
from durable_notify.testing import databases
from tests.support.postgres import Postgres
from tests.testing.projects import OPTIONS, run

CONFTEST = """
import psycopg
import pytest
from durable_notify import schema

@pytest.fixture(scope="session")
def durable_notify_migrate():
    left_open = []  # as an engine's pool does

    def migrate(dsn):
        schema.migrate(dsn)
        left_open.append(psycopg.connect(dsn, autocommit=True))
        left_open[0].execute("CREATE TABLE orders (id int)")
    return migrate
"""
SUITE = """
import asyncio
import psycopg
import pytest
import sqlalchemy as sa
import durable_notify as dn
from durable_notify import testing

publisher = dn.Publisher()

@pytest.mark.parametrize("run", [1, 2])
def test_commits(durable_notify_dsn, run):
    with psycopg.connect(durable_notify_dsn) as connection:
        testing.assert_not_published(connection, "orders")
        publisher.publish(connection, "orders", run)
    consumer = dn.Consumer(durable_notify_dsn, group="g", topics=["orders"])
    drained = testing.drain(consumer, lambda message: None)
    assert [message.payload for message in drained.handled] == [run]

@pytest.mark.parametrize("run", [1, 2])
def test_rolls_back(durable_notify_connection, run):
    connection = durable_notify_connection
    testing.assert_not_published(connection, "orders")
    assert connection.execute("SELECT count(*) FROM orders").fetchone() == (0,)
    connection.execute("INSERT INTO orders VALUES (1)")
    publisher.publish(connection, "orders", run)
    with pytest.raises(RuntimeError), connection.transaction():
        publisher.publish(connection, "orders", "undone")
        raise RuntimeError
    testing.assert_published(connection, "orders", payload=run)
    testing.assert_not_published(connection, "orders", payload="undone")

def test_the_shared_one(durable_notify_shared_dsn, durable_notify_dsn):
    assert durable_notify_shared_dsn != durable_notify_dsn
    for scheme in ("postgresql+psycopg", "postgresql+psycopg2"):
        engine = sa.create_engine(
            durable_notify_dsn.replace("postgresql", scheme, 1), poolclass=sa.NullPool
        )
        with engine.connect() as connection:
            assert connection.scalar(sa.text("SELECT 1")) == 1

@pytest.mark.asyncio
async def test_of_asyncio(durable_notify_dsn):
    async with await psycopg.AsyncConnection.connect(durable_notify_dsn) as connection:
        await dn.AsyncPublisher().publish(connection, "orders", 1)
        await testing.assert_published_async(connection, "orders", payload=1)
    consumer = dn.AsyncConsumer(durable_notify_dsn, group="g", topics=["orders"])
    drained = await testing.drain_async(consumer, lambda message: asyncio.sleep(0))
    assert len(drained.handled) == 1

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_of_anyio(durable_notify_dsn, anyio_backend):
    async with await psycopg.AsyncConnection.connect(durable_notify_dsn) as connection:
        await dn.AsyncPublisher().publish(connection, "orders", 1)
        await testing.assert_published_async(connection, "orders", payload=1)
    consumer = dn.AsyncConsumer(durable_notify_dsn, group="g", topics=["orders"])
    assert len((await testing.drain_async(consumer, lambda message: None)).handled) == 1
"""


def test_tests_that_commit_and_tests_that_roll_back(project: pytest.Pytester) -> None:
    project.makeconftest(CONFTEST)
    project.makepyfile(SUITE)
    result = run(project)
    result.assert_outcomes(passed=7)
    result.stdout.fnmatch_lines(["durable_notify: databases on your server"])


def test_a_server_of_your_own(
    project: pytest.Pytester, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then none is chosen, and nothing need be installed for it."""

    def choose(_given: str | None) -> str:
        raise InvalidArgument("none")

    monkeypatch.setattr(databases, "choose", choose)
    own = f"""
        import pytest
        from durable_notify.testing.databases import TestServer

        @pytest.fixture(scope="session")
        def durable_notify_server():
            return TestServer({server.admin_dsn!r})
        """
    test = "def test(durable_notify_dsn): pass"
    project.makepyfile(test_own=f"{textwrap.dedent(own)}\n{test}")
    run(project).assert_outcomes(passed=1)
    project.makepyfile(test_own=test)
    run(project).stdout.fnmatch_lines(["*UsageError: none"])


def test_a_failure_shows_the_line_of_the_test(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        from durable_notify import testing

        def test_it(durable_notify_connection):
            testing.assert_published(durable_notify_connection, "orders", payload=1)
        """
    )
    result = run(project)
    result.stdout.fnmatch_lines(
        [
            ">*testing.assert_published(durable_notify_connection, *",
            "E *AssertionError: nothing was published to 'orders', nor to another topic",
            "*.py:4: AssertionError",
        ]
    )


def test_nothing_is_imported_or_said_if_no_test_uses_it(project: pytest.Pytester) -> None:
    project.makepyfile("def test_it(): pass")
    result = run(project)
    result.assert_outcomes(passed=1)
    assert "durable_notify:" not in result.stdout.str()
    heavy = "[name for name in ('durable_notify', 'psycopg', 'sqlalchemy') if name in sys.modules]"
    code = f"import sys, pytest_durable_notify; print({heavy})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_the_server_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert databases.choose("postgresql://there") == "postgresql://there"
    assert databases.choose(None) == "embedded"
    there = {"testcontainers"}
    monkeypatch.setattr(databases.importlib.util, "find_spec", lambda n: n if n in there else None)
    assert databases.choose(None) == "testcontainers"
    there.clear()
    with pytest.raises(InvalidArgument, match="no PostgreSQL to test with.*pip install"):
        databases.choose("")


def test_the_option_comes_first(
    project: pytest.Pytester, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the setting, then the variable."""
    monkeypatch.setenv("DURABLE_NOTIFY_TEST_SERVER", "postgresql://variable")
    option = "--durable-notify-server=testcontainers"
    assert plugin._choice(project.parseconfig(*OPTIONS, option)) == "testcontainers"
    assert plugin._choice(project.parseconfig(*OPTIONS)) == server.admin_dsn
    project.makeini("[pytest]\n")
    assert plugin._choice(project.parseconfig(*OPTIONS)) == "postgresql://variable"

    def choose(_given: str | None) -> str:
        raise InvalidArgument("none")

    monkeypatch.setattr(databases, "choose", choose)
    with pytest.raises(pytest.UsageError, match="^none$"):
        plugin._choice(project.parseconfig(*OPTIONS))


@pytest.mark.parametrize(
    ("dsn", "url"),
    [
        ("host=a port=5 user=u%@ password=p/w", "postgresql://u%25%40:p%2Fw@a:5/x"),
        ("postgresql+psycopg2://a:5/other", "postgresql://a:5/x"),
        ("postgresql:///a?host=%2Ftmp%2Fb", "postgresql:///x?host=%2Ftmp%2Fb"),
        (
            "host=a,b port=5,6 dbname=c sslmode=require",
            "postgresql:///x?host=a%2Cb&port=5%2C6&sslmode=require",
        ),
        ("postgresql://", "postgresql:///x"),
    ],
)
def test_urls_of_other_databases(dsn: str, url: str) -> None:
    with databases.start(dsn) as server:
        assert server.dsn("x") == url


@pytest.mark.server
def test_an_embedded_server_is_gone_afterwards() -> None:
    with databases.start("embedded") as server:
        with server.database() as name:
            assert name in server.dsn(name)
        where = server.admin_dsn
    with pytest.raises(psycopg.OperationalError, match="No such file|refused"):
        psycopg.connect(where)
