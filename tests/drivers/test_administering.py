"""The Admin and Bridge say and do the same on a connection of any driver."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import psycopg
import pytest

import durable_notify as dn
from tests.drivers.kits import KITS, Kit, Opened
from tests.support.postgres import Postgres

Connection = psycopg.Connection[Any]


@pytest.fixture(scope="module")
def prepared(server: Postgres, template: str) -> Iterator[str]:
    """The name of a database in which there is something to see."""

    def handle(message: dn.Message) -> None:
        message.reject("no ü", "why\\")

    with server.database(template) as name:
        dsn = server.dsn(name)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("CREATE TABLE things (a int, b text, PRIMARY KEY (a, b))")
            connection.execute("DROP ROLE IF EXISTS reader")
            connection.execute("CREATE ROLE reader")
            messages = [
                dn.NewMessage({"n": 1}, key="k", headers={"x": 1.5}),
                b"\x00\xff",
                None,
                [2],
            ]
            dn.Publisher().publish_many(connection, "t", messages)
            dn.Publisher().publish(connection, "later", 1, delay=1000)
        options: Any = {"until_empty": True, "maintenance": False, "poll_interval": None}
        dn.Consumer(dsn, group="g", topics=["t", "p.*"], **options).run(handle)
        yield name
    with psycopg.connect(server.admin_dsn, autocommit=True) as connection:
        connection.execute("DROP ROLE reader")


@pytest.fixture
def dsn(server: Postgres, prepared: str) -> Iterator[str]:
    """A copy of it."""
    with server.database(prepared) as name:
        yield server.dsn(name)


@pytest.fixture
def conn(dsn: str) -> Iterator[Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def usual(server: Postgres, prepared: str) -> Any:
    """What comes of it on psycopg."""

    async def run() -> Any:
        with server.database(prepared) as name:
            async with KITS[0].connect(server.dsn(name)) as opened, opened.transaction():
                return await administer(KITS[0], opened)

    return asyncio.run(run())


POLICY = dn.RetryPolicy(base=0.25, factor=1.5, max_attempts=2)
SINCE = datetime(2021, 1, 1, tzinfo=UTC)
UNTIL = datetime(2099, 1, 1, tzinfo=UTC)


class Call(NamedTuple):
    """A call of a method of the Admin or the Bridge."""

    of: str
    name: str
    args: tuple[Any, ...]
    options: dict[str, Any]


def admin(name: str, *args: Any, **options: Any) -> Call:
    return Call("Admin", name, args, options)


def bridge(name: str, *args: Any, **options: Any) -> Call:
    return Call("Bridge", name, args, options)


#: All methods, with arguments of all types.
CALLS = [
    admin("configure", "g", retry=POLICY, rate_limit=7.5),
    admin("set_notify_policy", "loud", "always"),
    admin("notify_policy", "loud"),
    admin("pause", "g"),
    admin("groups"),
    admin("resume", "g"),
    admin("blocking_publishers", "g"),
    admin("status"),
    admin("status", max_count=None),
    admin("grant", "reader", "consume", ["t", "p.*"], group="g"),
    admin("grant", "reader", "observe"),
    admin("grants"),
    admin("revoke", "reader", "consume", ["t"]),
    admin("revoke", "reader"),
    admin("set_retention", "gone", max_age=86_400.5, when_settled=True),
    admin("set_retention", "kept.>", compact=True, on_lag="lose", max_bytes=2**40),
    admin("retention"),
    admin("delete_retention", "kept.>"),
    admin("retention_blockers"),
    admin("lost_messages", "g"),
    admin("retries", "g", ids=[1, 2], since=SINCE, until=UNTIL, limit=1),
    admin("retry_counts", topic="t"),
    admin("blocked_keys", "g", topic="t", limit=5),
    admin("retry_now", "g", key="k", why="again"),
    admin("drop_retries", "g", error_type="x"),
    admin("dead_letters"),
    admin("dead_letters", "g", ids=[1, 2], since=SINCE, until=UNTIL, limit=1),
    admin("dead_letters", "g", ids=[], key="k", error_type="x"),
    admin("redrive", "g", key="k", since=SINCE, why="ü"),
    admin("discard", "g", everything=True, why="%s"),
    admin("replay", "g", "t", after=0, why="back"),
    admin("seek", "g", "t", since=SINCE, dry_run=True),
    admin("seek", "g", "t", now=True),
    admin("start_replay", "g", "t", since=SINCE, until=UNTIL, keys=["k", "NULL"], headers={"x": 1.5}, payload={"n": 1}, path="$.n ? (@ > 0)", rate_limit=2.5, why="again", dry_run=True),
    admin("start_replay", "g", "t", after=0, upto=2**40, rate_limit=5),
    admin("replay_jobs"),
    admin("cancel_replay", 1),
    admin("audit", "g"),
    admin("audit", limit=2),
    bridge("mirror", "t", "raw channel"),
    bridge("watch", "public.things", "things", columns=["b"], with_old=False),
    bridge("watch", '"things"', "others"),
    bridge("bridges"),
    bridge("unwatch", "things", "things"),
    bridge("unmirror", "t"),
    bridge("create_compat"),
    bridge("drop_compat"),
    admin("rename_group", "g", "h"),
    admin("unsubscribe", "h", ["t"], why="not read"),
    admin("delete_group", "h"),
    admin("reanchor", why="no need"),
]  # fmt: skip


async def administer(kit: Kit, opened: Opened) -> list[Any]:
    """Make all calls; returns what they return."""
    ours = {"Admin": kit.Admin(), "Bridge": kit.Bridge()}
    return [
        (
            call.name,
            comparable(
                await opened.call(getattr(ours[call.of], call.name), *call.args, **call.options)
            ),
        )
        for call in CALLS
    ]


def comparable(found: Any) -> Any:
    """Leave out what differs from one time to the other, but not of which type it is."""
    if dataclasses.is_dataclass(found) and not isinstance(found, type):
        names = [field.name for field in dataclasses.fields(found)]
        return {name: comparable(getattr(found, name)) for name in names}
    if isinstance(found, dict):
        return {name: comparable(one) for name, one in found.items() if name != "traceback"}
    if isinstance(found, (list, tuple)):
        return [comparable(one) for one in found]
    if isinstance(found, datetime):
        assert found.tzinfo is not None
        assert abs(datetime.now(UTC) - found) < timedelta(hours=1) or found.year in {2021, 2099}
        return datetime
    return type(found), found


@pytest.mark.parametrize("autocommit", [False, True], ids=["transaction", "autocommit"])
async def test_all_of_it(kit: Kit, dsn: str, usual: Any, autocommit: bool) -> None:
    async with kit.connect(dsn, autocommit) as opened:
        if autocommit:
            came = await administer(kit, opened)
        else:
            async with opened.transaction():
                came = await administer(kit, opened)
    for one, other in zip(came, usual, strict=True):
        assert one == other


async def test_rolled_back(kit: Kit, dsn: str, conn: Connection) -> None:
    async with kit.connect(dsn) as opened:
        async with opened.transaction(undo=True):
            await opened.call(kit.Admin().pause, "g")
            await opened.call(kit.Admin().set_retention, "t", max_age=5)
    (group,) = dn.Admin().groups(conn)
    assert group.paused_at is None
    assert [policy.pattern for policy in dn.Admin().retention(conn)] == [">"]


async def test_a_call_that_needs_read_committed_begins_that(
    kit: Kit, dsn: str, conn: Connection
) -> None:
    """On a connection in autocommit mode, whatever the session's default is."""
    async with kit.connect(dsn, autocommit=True) as opened:
        await opened.execute("SET default_transaction_isolation = 'serializable'")
        await opened.call(kit.Admin().set_notify_policy, "t", "always")
        with pytest.raises(dn.errors.UnknownGroup):
            await opened.call(kit.Admin().pause, "unknown")
        # The failed one was rolled back: the connection is as good as before.
        assert await opened.call(kit.Admin().notify_policy, "t") == "always"
        # A transaction that the program has begun itself stays open.
        await opened.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        await opened.call(kit.Admin().set_notify_policy, "t", "never")
        assert dn.Admin().notify_policy(conn, "t") == "always"
        await opened.execute("ROLLBACK")
    assert dn.Admin().notify_policy(conn, "t") == "always"


async def test_bad_paths_and_names(kit: Kit, dsn: str) -> None:
    async with kit.connect(dsn) as opened:
        for bad in ("$.n ?", "$["):
            async with opened.transaction(undo=True):
                with pytest.raises(dn.InvalidArgument, match="not an SQL/JSON path"):
                    await opened.call(kit.Admin().start_replay, "g", "t", path=bad, dry_run=True)
        for bad in ("a.b.c.d", '"', "other.public.t"):
            async with opened.transaction(undo=True):
                with pytest.raises(dn.InvalidArgument, match="not the name of a table|no table"):
                    await opened.call(kit.Bridge().watch, bad, "t")
        async with opened.transaction(undo=True):
            with pytest.raises(dn.InvalidArgument, match="into group .g. is running"):
                for _ in range(2):
                    await opened.call(kit.Admin().start_replay, "g", "t", after=0, path="$")
