"""Passwords, payloads, headers and keys are in no log, error, repr or session's query."""

from __future__ import annotations

import asyncio
import io
import logging
import re
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from sqlalchemy.exc import DBAPIError

import durable_notify as dn
from durable_notify import dsn as connecting
from durable_notify import schema
from durable_notify._core import sanitize as failures
from tests.support.api import Api, maybe_await
from tests.support.cli import invoke, run
from tests.support.observe import value
from tests.support.postgres import needed_binaries, own_server
from tests.support.wait import with_timeout

Connection = psycopg.Connection[Any]
PASSWORD = "s3cr3t-0f-mine"
PAYLOAD = "payload-0f-mine"
HEADER = "header-0f-mine"
KEY = "key-0f-mine"
ANY = re.compile("0f-mine|s3cr3t")


def leak(text: str) -> str | None:
    found = ANY.search(text)
    return None if found is None else text[max(0, found.start() - 80) : found.end() + 20]


@pytest.fixture
def log() -> Iterator[Callable[[], str]]:
    """All that is logged, at every level, with tracebacks; returns what reads it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    root = logging.getLogger()
    loggers = [
        root,
        *(logging.getLogger(name) for name in ("durable_notify", "psycopg", "sqlalchemy")),
    ]
    levels = [logger.level for logger in loggers]
    root.addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield written.getvalue
    root.removeHandler(handler)
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


#: DSNs that do not work, each for another reason. Of some libpq quotes a part, or all.
BAD_DSNS = [
    f"postgresql-psycopg://u:{PASSWORD}@127.0.0.1:1/db",
    f"postgresql+psycopg://u:{PASSWORD}@127.0.0.1:1/db",
    f"postgres+asyncpg://u:{PASSWORD}@127.0.0.1:1/db",
    f"postgresql://u:x{PASSWORD}@{PASSWORD}@127.0.0.1:1/db",
    f"postgresql://u:x@{PASSWORD}@127.0.0.1:1/db",
    f"postgresql://u:x/{PASSWORD}@127.0.0.1:1/db",
    f"postgresql://u:x#{PASSWORD}@127.0.0.1:1/db",
    f"postgresql://u:x?{PASSWORD}@127.0.0.1:1/db",
    f"postgresql://u:{PASSWORD}%zz@127.0.0.1:1/db",
    f"postgresql://u:{PASSWORD}@[127.0.0.1:1/db",
    f"postgresql://u:{PASSWORD} y@127.0.0.1:1/db",
    f"postgresql://u:{PASSWORD}@127.0.0.1:1/db?nonsense=1",
    f"postgresql://u:{PASSWORD}@127.0.0.1:1/db?{PASSWORD}",
    f"postgresql://u:{PASSWORD}@127.0.0.1:1/db",
    f"postgresql://u:{PASSWORD}@127.0.0.1:99999/db",
    f"postgresql://u:{PASSWORD}@127.0.0.1:port/db",
    f"postgresql://u:{PASSWORD}@no-such-host.invalid/db",
    f"host=127.0.0.1 port=1 user=u password={PASSWORD} {PASSWORD}",
    f"host=127.0.0.1 port=1 user=u password='{PASSWORD}",
    f"host=127.0.0.1 port=1 user=u password={PASSWORD} nonsense=1",
    f"host=127.0.0.1 port=1 user=u password={PASSWORD} sslmode=nonsense",
    f"host=127.0.0.1 port=1 user=u password={PASSWORD}\ud800",
]  # fmt: skip


def told(error: BaseException) -> str:
    """All that is shown of an error: its text, its causes', and the traceback without our lines."""
    lines = "".join(traceback.format_exception(error)).splitlines()
    return "\n".join([str(error), *(line for line in lines if not line.startswith("    "))])


async def caught(call: Callable[[], Any]) -> str:
    with pytest.raises((dn.InvalidArgument, psycopg.Error, DBAPIError)) as error:
        await with_timeout(maybe_await(call()))
    return told(error.value)


@pytest.mark.parametrize("bad", BAD_DSNS)
async def test_a_dsn_that_does_not_work(api: Api, dsn: str, log: Any, bad: str) -> None:
    """Neither errors nor logs quote it, whichever class gets it, as either DSN."""
    reader = dn.AsyncReader if api.is_async else dn.Reader

    async def start(make: Callable[[], Any]) -> None:
        opened = make()
        if api.is_async or hasattr(opened, "consumer"):
            await opened.__aenter__()
        else:
            await asyncio.to_thread(opened.__enter__)

    for make in (
        lambda: api.consumer(bad),
        lambda: api.consumer(dsn, listen_dsn=bad),
        lambda: reader(bad, topics=["t"]),
        lambda: reader(dsn, topics=["t"], listen_dsn=bad),
    ):
        assert leak(await caught(lambda make=make: start(make))) is None
    for call in (schema.migrate, schema.snapshot):
        assert leak(await caught(lambda call=call: asyncio.to_thread(call, bad))) is None
    assert leak(log()) is None


@pytest.mark.parametrize("bad", [bad for bad in BAD_DSNS if "\ud800" not in bad])
def test_the_command_line_does_not_quote_a_dsn(dsn: str, bad: str) -> None:
    for arguments in (["-vv", "--dsn", bad, "status"], ["--dsn", bad, "migrate"]):
        status, _, errors = invoke(*arguments, dsn=dsn)
        assert status in (1, 2)
        assert errors.startswith("error: ")
        assert leak(errors) is None, errors


@pytest.mark.parametrize("bad", [BAD_DSNS[0], BAD_DSNS[3], BAD_DSNS[16]])
def test_nor_does_a_process(dsn: str, bad: str) -> None:
    done = run("-vv", "consume", "t", "--group", "g", "--listen-dsn", bad, dsn=dsn)
    assert done.returncode in (1, 2)
    assert leak(done.stderr) is None, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        [f"postgresql://u:{PASSWORD}@h/db"],
        ["status", f"postgresql://u:{PASSWORD}@h/db"],
        [f"--dns=postgresql://u:{PASSWORD}@h/db", "status"],
        ["status", f"--json=postgresql://u:{PASSWORD}@h/db"],
        ["publish", "t", '{"a":', f'"{PAYLOAD}"}}'],
        ["publish", "t", f'{{"a": {PAYLOAD}}}'],
        ["publish", "t", f'"{PAYLOAD}\\u0000"'],
        ["publish", "t", "1", "--key", f"{KEY}\n"],
        ["publish", "t", "1", "--key", KEY * 200],
        ["publish", "t", "1", "--dedup-key", f"{KEY}\n"],
        ["publish", "t", "1", "--header", f"={HEADER}"],
        ["--help"],
        ["consume", "--help"],
    ],
)
def test_the_command_line_does_not_quote_arguments_it_cannot_use(
    arguments: list[str], dsn: str
) -> None:
    status, out, errors = invoke(*arguments, dsn=make_conninfo(dsn, password=PASSWORD))
    assert (status == 0) is ("--help" in arguments)
    assert leak(out + errors) is None, errors


def publish(conn: Connection, *, times: int = 1) -> list[int]:
    outgoing = dn.NewMessage({"a": PAYLOAD}, KEY, {"h": HEADER}, dedup_key=None)
    return dn.Publisher().publish_many(conn, "t", [outgoing] * times)


BAD_MESSAGES: list[tuple[Any, dict[str, Any]]] = [
    ({"a": PAYLOAD, "b": float("nan")}, {}), ({"a": PAYLOAD + "\0"}, {}), ({"a": PAYLOAD + "\ud800"}, {}),
    ({"a": PAYLOAD, "b": object()}, {}), ({(PAYLOAD,): 1}, {}), (1, {"headers": {HEADER: "\0"}}),
    (1, {"headers": {"h": HEADER, "x": {1, 2}}}), (1, {"headers": [HEADER]}), (1, {"key": KEY + "\0"}),
    (1, {"key": KEY * 200}), (1, {"key": KEY + "\ud800"}), (1, {"dedup_key": KEY + "\n"}),
    (1, {"dedup_key": KEY * 200}), ({"a": PAYLOAD, "b": 10**5000}, {}),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD_MESSAGES)))
async def test_a_message_that_is_refused_is_not_quoted(
    api: Api, dsn: str, log: Any, number: int
) -> None:
    payload, options = BAD_MESSAGES[number]
    async with api.connect(dsn) as mine:
        publisher = api.Publisher()
        assert leak(await caught(lambda: publisher.publish(mine, "t", payload, **options))) is None
        many = [dn.NewMessage(payload, **options)]
        assert leak(await caught(lambda: publisher.publish_many(mine, "t", many))) is None
        if not options:
            admin = api.Admin()
            call = lambda: admin.start_replay(mine, "g", "t", payload=payload)  # noqa: E731
            assert leak(await caught(call)) is None
    assert leak(log()) is None


async def test_reprs(api: Api, dsn: str, conn: Connection) -> None:
    publish(conn)
    secret = make_conninfo(dsn, password=PASSWORD)
    consumer = api.consumer(secret, retry=dn.RetryPolicy(max_attempts=1), until_empty=True)
    seen: list[Any] = [api.Publisher(), api.Admin(), consumer, consumer.options]
    reader = (dn.AsyncReader if api.is_async else dn.Reader)(secret, topics=["t"])
    seen += [
        reader,
        dn.NewMessage(PAYLOAD, KEY, {"h": HEADER}, dedup_key=KEY),
        dn.Ack(),
        dn.Retry(),
    ]

    async def handle(message: Any) -> None:
        seen.extend(
            [message, message._lease, message._lease_manager, message._lease_manager._queries]
        )
        seen.extend(
            [message._lease_manager._queries._settling, message._lease_manager._queries._claiming]
        )
        await message.reject("no")

    await with_timeout(consumer.run(handle))
    assert len(seen) > 10
    letters = dn.Admin().dead_letters(conn, "g")
    assert [letter.reason for letter in letters] == ["no"]
    seen += letters
    with dn.Reader(dsn, topics=["t"], until_empty=True) as read:
        seen += list(read)
    for thing in seen:
        assert leak(repr(thing)) is None, type(thing)
        assert leak(str(thing)) is None, type(thing)


async def test_a_day_s_work_is_logged_and_seen_without_secrets(
    api: Api, dsn: str, conn: Connection, log: Any
) -> None:
    """Handlers that fail, retries, replays; every query of our sessions, and their names."""
    secret = make_conninfo(dsn, password=PASSWORD)
    publish(conn, times=3)
    queries: list[str] = []

    def look() -> None:
        rows = conn.execute(
            "SELECT application_name, query FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        queries.extend(f"{name} {query}" for name, query in rows)

    async def handle(message: Any) -> None:
        look()
        if message.attempt == 1:
            raise ValueError("it has failed")
        if message.attempt == 2:
            await message.retry(0, "again")
        await asyncio.to_thread(look)

    options = {"until_empty": True, "retry": dn.RetryPolicy(max_attempts=5, base=0.01)}
    consumer = api.consumer(secret, **options)
    async with api.connect(secret, autocommit=True) as mine:
        await maybe_await(
            api.Publisher().publish(mine, "t", {"a": PAYLOAD}, key=KEY, headers={"h": HEADER})
        )
        look()
        await with_timeout(consumer.run(handle))
        look()
        await maybe_await(api.Admin().seek(mine, "g", "t", after=0, why="a reason"))
        job = {"payload": {"a": PAYLOAD}, "headers": {"h": HEADER}, "keys": KEY}
        await maybe_await(api.Admin().start_replay(mine, "g", "t", **job))
        look()
    assert len(queries) > 10
    assert any("listener" in query for query in queries)
    assert [found for found in map(leak, queries) if found] == []
    assert leak(log()) is None
    audit = value(conn, "SELECT string_agg(a::text, ' ') FROM durable_notify.audit a")
    # A replay's conditions are what was asked for; they are its audit.
    assert PASSWORD not in audit


async def test_a_row_that_postgresql_quotes_is_not_logged(
    api: Api, dsn: str, conn: Connection, log: Any
) -> None:
    """A user's constraint on our tables: its DETAIL has the row, payload included."""
    conn.execute(
        "ALTER TABLE durable_notify.dead_letter ADD CONSTRAINT no CHECK (message_id < 0) NOT VALID"
    )
    publish(conn)
    stopped: list[str] = []
    consumer = api.consumer(dsn, retry=dn.RetryPolicy(max_attempts=1), until_empty=True)

    def handle(message: Any) -> None:
        message._lease_manager.settle_soon(message._lease, message.id, dn.Reject("no"))
        stopped.append("settled")
        consumer.stop()

    await with_timeout(consumer.run(handle))
    assert stopped
    assert "violates check constraint" in log()
    assert leak(log()) is None


@pytest.mark.server
def test_a_wrong_password_and_a_missing_database() -> None:
    """With a server that asks for passwords."""
    bindir = needed_binaries()
    with own_server(bindir, {"password_encryption": "scram-sha-256"}) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("CREATE ROLE u LOGIN PASSWORD 'another'")
            hba = value(admin, "SHOW hba_file")
            admin.execute("SELECT pg_reload_conf()")
        Path(hba).write_text("local all u scram-sha-256\n" + Path(hba).read_text())
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("SELECT pg_reload_conf()")
        wrong = make_conninfo(server.dsn(), user="u", password=PASSWORD)
        missing = make_conninfo(server.dsn("no-such-database"), password=PASSWORD)
        for dsn, words in ((wrong, "password authentication failed"), (missing, "does not exist")):
            done = run("-vv", "status", dsn=dsn)
            assert done.returncode == 1
            assert words in done.stderr
            assert leak(done.stderr) is None
            with pytest.raises(psycopg.OperationalError, match=words) as error:
                dn.Consumer(dsn, group="g", topics=["t"]).start()
            assert leak(told(error.value)) is None


def test_what_is_kept_of_a_handler_s_error_has_no_password() -> None:
    """A traceback is kept on purpose; connection strings in it are kept without their passwords."""
    for text in (
        f"postgresql://u:{PASSWORD}@h/db", f"amqp://u:{PASSWORD}@h", f"x://u:a@{PASSWORD}@h/db",
        f"host=h password={PASSWORD} user=u", f"password = '{PASSWORD} \\' {PASSWORD}' user=u",
        f"connect(password='{PASSWORD}')", f"sslpassword={PASSWORD}",
    ):  # fmt: skip
        kept = failures.describe(ValueError(f"no connection: {text}!"))
        assert leak(repr(kept)) is None, kept
        assert kept["message"].startswith("no connection: ")
    harmless = "see https://example.org/a@b and user@host: no password was given"
    assert failures.redact(harmless) == harmless


async def test_a_leak_is_noticed(
    dsn: str, conn: Connection, log: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What this file looks for, planted: it is found."""
    bad = BAD_DSNS[0]
    with monkeypatch.context() as patch:
        from durable_notify._sync.database import connection

        for module in (connecting, connection):
            patch.setattr(module, "check_dsn", psycopg.conninfo.conninfo_to_dict)
        assert leak(await caught(lambda: dn.Consumer(bad, group="g", topics=["t"]).start()))
    with monkeypatch.context() as patch:
        from durable_notify._sync.consumer import flusher, leases

        for module in (flusher, leases):  # the loop reports it, or the stop, if that is first
            patch.setattr(module, "safe_message", str)
        with pytest.raises(AssertionError, match="0f-mine"):
            await test_a_row_that_postgresql_quotes_is_not_logged(Api("sync"), dsn, conn, log)
    assert leak(repr(dn.NewMessage(PAYLOAD).payload))
    assert connecting.safe_message(ValueError("x")) == "x"
