"""`durable-notify bridge` and `durable-notify watch`: outputs, errors, exit statuses."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

import durable_notify as dn
from durable_notify.bridge import AsyncBridge, Bridge
from tests.support.api import Api, maybe_await
from tests.support.cli import drain, fails, good, invoke, run
from tests.support.roles import roles

Connection = psycopg.Connection[Any]


def bridges(dsn: str) -> list[dict[str, Any]]:
    found = json.loads(good("bridge", "list", "--json", dsn=dsn))
    assert isinstance(found, list)
    return found


def test_mirror(dsn: str, conn: Connection) -> None:
    conn.execute('LISTEN "My Channel"')
    done = run("bridge", "mirror", "orders", "My Channel", dsn=dsn)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "topic orders also notifies channel My Channel\n"
    good("publish", "orders", '{"order": 1}', dsn=dsn)
    (told,) = conn.notifies(timeout=20, stop_after=1)
    assert (told.channel, told.payload) == ("My Channel", '{"order": 1}')
    mirror = {"kind": "mirror", "source": "orders", "target": "My Channel"}
    assert bridges(dsn) == [mirror | {"columns": None, "with_old": None}]
    fails(run("bridge", "mirror", "orders", "other", "--remove", dsn=dsn), 1,
          "topic orders is mirrored to channel My Channel, not to other", "Nothing was changed")  # fmt: skip
    assert len(bridges(dsn)) == 1
    removed = good("bridge", "mirror", "orders", "My Channel", "--remove", dsn=dsn)
    assert removed == "topic orders no longer notifies channel My Channel\n"
    done = run("bridge", "mirror", "orders", "--remove", dsn=dsn)
    assert (done.returncode, done.stdout) == (0, "")
    assert "Topic orders is not mirrored." in done.stderr
    assert bridges(dsn) == []


def test_compat(dsn: str, conn: Connection) -> None:
    shown = good("bridge", "compat", dsn=dsn)
    (path,) = (
        line.partition("ALTER ROLE ... ")[2] for line in shown.splitlines() if "ALTER" in line
    )
    assert "durable-notify grant ROLE --publish TOPIC" in shown
    conn.execute(path.rstrip(";").encode())
    conn.execute("SELECT pg_notify('orders', 'x')")
    assert drain(dsn, "orders") == ["x"]
    assert [one["kind"] for one in bridges(dsn)] == ["compat"]
    assert good("bridge", "compat", dsn=dsn) == shown
    removed = good("bridge", "compat", "--remove", dsn=dsn)
    assert removed == "durable_notify_compat is removed: pg_notify() is PostgreSQL's own again\n"
    conn.execute("SELECT pg_notify('orders', 'y')")
    assert drain(dsn, "orders") == []
    done = run("bridge", "compat", "--remove", dsn=dsn)
    assert (done.returncode, done.stdout) == (0, "")
    assert "There is no durable_notify_compat." in done.stderr


def test_watch(dsn: str, conn: Connection) -> None:
    conn.execute('CREATE TABLE "Items" (id int PRIMARY KEY, name text, "a,b" int, secret text)')
    done = run("watch", '"Items"', "--topic", "t", dsn=dsn)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == 'changes of public."Items" go to topic t\n'
    conn.execute("""INSERT INTO "Items" VALUES (1, 'a', 2, 's')""")
    row = {"id": 1, "name": "a", "a,b": 2, "secret": "s"}
    assert drain(dsn) == [{"table": 'public."Items"', "op": "insert", "new": row}]
    good("watch", '"Items"', "--topic", "t", "--columns", 'name, "a,b"', "--no-old", dsn=dsn)
    conn.execute("""UPDATE "Items" SET secret = 'x'""")
    conn.execute("""UPDATE "Items" SET name = 'b'""")
    new = {"name": "b", "a,b": 2}
    assert drain(dsn) == [{"table": 'public."Items"', "op": "update", "new": new}]
    (found,) = bridges(dsn)
    assert found == {
        "kind": "watch", "source": 'public."Items"', "target": "t", "columns": ["name", "a,b"], "with_old": False,
    }  # fmt: skip
    removed = good("watch", 'public."Items"', "--topic", "t", "--remove", dsn=dsn)
    assert removed == 'changes of public."Items" no longer go to topic t\n'
    done = run("watch", '"Items"', "--topic", "t", "--remove", dsn=dsn)
    assert (done.returncode, done.stdout) == (0, "")
    assert '"Items" is not watched for topic t.' in done.stderr


def test_list(dsn: str, conn: Connection) -> None:
    done = run("bridge", "list", dsn=dsn)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "No bridges.\n")
    conn.execute("CREATE TABLE items (id int PRIMARY KEY, name text)")
    good("watch", "items", "--topic", "t", "--columns", "id,name", dsn=dsn)
    good("bridge", "mirror", "t", "c", dsn=dsn)
    good("bridge", "compat", dsn=dsn)
    shown = [line.split() for line in good("bridge", "list", dsn=dsn).splitlines()]
    assert ["watch", "public.items", "t", "id,", "name", "yes"] in shown
    assert ["mirror", "t", "c", "-", "-"] in shown
    assert ["compat", "durable_notify_compat.pg_notify", "durable_notify.notify", "-", "-"] in shown


def test_errors(dsn: str, conn: Connection) -> None:
    conn.execute("CREATE TABLE items (id int)")
    for status, words, says in (
        (2, "bridge mirror", "TOPIC"), (2, "bridge mirror t", "give TOPIC CHANNEL"),
        (2, "bridge mirror t durable_notify:t", "this library's own wake-ups"),
        (2, f"bridge mirror t {'x' * 64}", "the maximum is 63"), (2, f"bridge mirror t {'ü' * 32}", "the maximum is 63"),
        (2, "bridge mirror * c", "topic"), (2, "bridge list nonsense", "too many arguments"),
        (2, "watch items", "--topic"), (2, "watch --topic t", "TABLE"), (2, "watch missing --topic t", "there is no table missing"),
        (2, "watch missing --topic t --remove", "there is no table missing"),
        (2, "watch a.b.c.d --topic t", "not the name of a table"), (2, "watch items --topic *", "topic"),
        (2, "watch items --topic t --columns id,x", "has no column x"),
        (2, "watch items --topic t --columns=", "no columns to watch"),
        (2, "watch items --topic t --remove --no-old", "--remove takes neither"),
        (2, "watch durable_notify.outbox --topic t", "cannot be watched"),
    ):  # fmt: skip
        found, out, err = invoke(*words.split(), dsn=dsn)
        assert (found, out) == (status, ""), words
        assert says in err
        assert err.count("error: ") == 1
    assert bridges(dsn) == []


def test_a_busy_table(dsn: str, conn: Connection) -> None:
    conn.execute("CREATE TABLE items (id int)")
    with psycopg.connect(dsn) as writer:
        writer.execute("INSERT INTO items VALUES (1)")
        done = run("watch", "items", "--topic", "t", dsn=dsn)
        fails(done, 1, "lock timeout", "Run it again in a moment")


def test_without_rights(dsn: str) -> None:
    """Whatever else a role was granted: changes are the owner's; who observes lists bridges."""
    granted = {"other": [("publish", [">"], None), ("observe", None, None)]}
    with roles(dsn, granted) as cast:  # type: ignore[arg-type]
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute("CREATE TABLE items (id int)")
            admin.execute(f"ALTER TABLE items OWNER TO {cast.names['other']}".encode())
        for words in (
            "bridge mirror t c", "bridge mirror t --remove", "bridge compat", "bridge compat --remove",
            "watch items --topic t", "watch items --topic t --remove",
        ):  # fmt: skip
            status, out, err = invoke(*words.split(), dsn=cast.login("other"))
            assert (status, out) == (1, ""), words
            assert "permission denied" in err
            assert "Run it as the owner of the schema durable_notify." in err
        assert invoke("bridge", "list", dsn=cast.login("other"))[0] == 0


# The same from Python


@pytest.mark.parametrize("name", ["sync", "async"])
async def test_in_python(dsn: str, name: str) -> None:
    api = Api(name)
    bridge: Any = AsyncBridge() if api.is_async else Bridge()
    async with api.connect(dsn, autocommit=True) as connection:
        await maybe_await(connection.execute("CREATE TABLE items (id int PRIMARY KEY, name text)"))
        assert await maybe_await(bridge.mirror(connection, "t", "c")) is None
        assert await maybe_await(bridge.mirror(connection, "t", "d")) == "c"
        await maybe_await(bridge.create_compat(connection))
        watched = await maybe_await(
            bridge.watch(connection, "items", "t", columns=["name"], with_old=False)
        )
        assert watched == "public.items"
        assert await maybe_await(bridge.bridges(connection)) == [
            dn.models.BridgeInfo(
                "compat", "durable_notify_compat.pg_notify", "durable_notify.notify", None, None
            ),
            dn.models.BridgeInfo("mirror", "t", "d", None, None),
            dn.models.BridgeInfo("watch", "public.items", "t", ["name"], False),
        ]
        assert await maybe_await(bridge.unmirror(connection, "t")) == "d"
        assert await maybe_await(bridge.unmirror(connection, "t")) is None
        assert await maybe_await(bridge.unwatch(connection, "items", "t")) is True
        assert await maybe_await(bridge.unwatch(connection, "items", "t")) is False
        assert await maybe_await(bridge.drop_compat(connection)) is True
        assert await maybe_await(bridge.drop_compat(connection)) is False
        assert await maybe_await(bridge.bridges(connection)) == []


@pytest.mark.parametrize("name", ["sync", "async"])
async def test_part_of_a_transaction(dsn: str, name: str) -> None:
    api = Api(name)
    bridge: Any = AsyncBridge() if api.is_async else Bridge()
    async with api.connect(dsn) as connection:
        await maybe_await(connection.execute("CREATE TABLE items (id int)"))
        await maybe_await(bridge.mirror(connection, "t", "c"))
        await maybe_await(bridge.create_compat(connection))
        await maybe_await(bridge.watch(connection, "items", "t"))
        assert len(await maybe_await(bridge.bridges(connection))) == 3
        await maybe_await(connection.rollback())
        assert await maybe_await(bridge.bridges(connection)) == []


def test_arguments_refused(conn: Connection) -> None:
    bridge: Any = Bridge()
    conn.execute("CREATE TABLE items (id int)")
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("mirror", ("t", ""), {}), ("mirror", ("t", None), {}), ("mirror", ("t", "a\0"), {}), ("mirror", ("a b", "c"), {}),
        ("unmirror", ("",), {}), ("watch", ("items", "t"), {"columns": "id"}), ("watch", ("items", "t"), {"columns": []}),
        ("watch", ("items", "t"), {"columns": [1]}), ("watch", (None, "t"), {}), ("watch", ("a\0", "t"), {}),
        ("watch", ("", "t"), {}), ("watch", ('"', "t"), {}), ("watch", ("items", "*"), {}), ("unwatch", ("no", "t"), {}),
    ]  # fmt: skip
    for method, arguments, options in calls:
        with pytest.raises(dn.InvalidArgument):
            getattr(bridge, method)(conn, *arguments, **options)
    assert bridge.bridges(conn) == []
