"""The outbox notices that it was moved to another cluster, and continues after `reanchor`.

Whole moves between clusters: tests/faults/test_new_cluster.py.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

import durable_notify as dn
from durable_notify.embedded import Server
from tests.conftest import Connection
from tests.support.api import AnyReader, Api, maybe_await, read_everything
from tests.support.cli import fails, good, objects, payloads, run
from tests.support.observe import send
from tests.support.postgres import Postgres
from tests.support.sessions import Sessions
from tests.support.wait import with_timeout

ANCHORED = "SELECT durable_notify.log_id()"
COPY = "COPY (SELECT * FROM durable_notify.cluster_identity) TO STDOUT"
FOREIGN = """
    INSERT INTO durable_notify.outbox (xid, topic, payload, id)
    OVERRIDING SYSTEM VALUE VALUES (%s, 't', '1', %s)"""


@pytest.fixture
def sessions(dsn: str) -> Iterator[Sessions]:
    with Sessions(dsn) as every:
        yield every


def restored(conn: Connection) -> None:
    """As a restored dump has it: the same rows, in one transaction of another cluster's."""
    with conn.transaction():
        conn.execute(
            "CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM durable_notify.cluster_identity"
        )
        conn.execute("TRUNCATE durable_notify.cluster_identity")
        conn.execute("INSERT INTO durable_notify.cluster_identity SELECT * FROM kept ORDER BY slot")


def one_by_one(conn: Connection) -> None:
    """As pg_dump --inserts has it."""
    rows = conn.execute(
        "SELECT slot, xid::text, log_id FROM durable_notify.cluster_identity"
    ).fetchall()
    conn.execute("TRUNCATE durable_notify.cluster_identity")
    for row in rows:
        conn.execute("INSERT INTO durable_notify.cluster_identity VALUES (%s, %s::xid, %s)", row)


def schema_only(conn: Connection) -> None:
    conn.execute("TRUNCATE durable_notify.cluster_identity")


def replicated_besides(conn: Connection) -> None:
    conn.execute(
        "INSERT INTO durable_notify.cluster_identity SELECT * FROM durable_notify.cluster_identity"
    )


WAYS = [restored, one_by_one, schema_only, replicated_besides]


def test_the_second_row_has_the_lower_xid(conn: Connection) -> None:
    """So that no two transactions, one after the other, can give both their xmin again."""
    rows = conn.execute(
        "SELECT slot, xid = xmin, xid::text::bigint FROM durable_notify.cluster_identity ORDER BY ctid"
    ).fetchall()
    assert [row[:2] for row in rows] == [(1, True), (2, True)]
    assert rows[0][2] > rows[1][2]


@pytest.mark.parametrize("statement", ["VACUUM FULL", "VACUUM FREEZE", "VACUUM", "ANALYZE"])
def test_maintenance_does_no_harm(conn: Connection, statement: str) -> None:
    conn.execute(f"{statement} durable_notify.cluster_identity".encode())
    conn.execute(ANCHORED)


def test_a_copy_made_from_a_template_continues(
    server: Postgres, dsn: str, conn: Connection
) -> None:
    name = conn.info.dbname
    send(conn, [1])
    conn.close()
    with server.database(name) as copy, psycopg.connect(server.dsn(copy)) as there:
        there.execute(ANCHORED)


@pytest.mark.parametrize("way", WAYS)
def test_everything_that_reads_is_refused(
    dsn: str, conn: Connection, way: Callable[[Connection], None]
) -> None:
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    send(conn, [1, 2])
    way(conn)
    for query in (
        "SELECT * FROM durable_notify.claim('g', '{t}')",
        "SELECT durable_notify.subscribe('h', '{t}')",
        "SELECT redelivered FROM durable_notify.seek('g', 't', 0)",
        "SELECT durable_notify.seek('g', 't', to_now => true)",
        "SELECT durable_notify.start_replay('g', 't')",
        "SELECT * FROM durable_notify.read('t', '3:3:', 0, NULL, NULL, NULL)",
        ANCHORED,
    ):
        told = "from, or replicated by, another cluster|cluster_identity is empty"  # as a dump of the schema is
        with pytest.raises(errors.Error, match=told) as seen:
            conn.execute(query.encode())
        assert seen.value.sqlstate == "DN010"
        assert "durable-notify reanchor" in str(seen.value.diag.message_hint)
    send(conn, [3])  # who publishes need not know
    found = conn.execute("SELECT * FROM durable_notify.reanchor('moved')").fetchall()
    assert found == [("g", "t", 3)]
    assert conn.execute("SELECT * FROM durable_notify.reanchor()").fetchall() == []
    query = "SELECT payload FROM durable_notify.claim('g', '{t}')"
    assert [payload for (payload,) in conn.execute(query.encode())] == [1, 2, 3]
    audit = "SELECT action, topic, messages, why FROM durable_notify.audit"
    assert conn.execute(audit).fetchall() == [("reanchor", "t", 3, "moved")]


async def test_consumers_and_readers_end_with_the_remedy(
    api: Api, dsn: str, conn: Connection
) -> None:
    send(conn, [1])
    restored(conn)
    with pytest.raises(dn.errors.ForeignCluster, match="durable-notify reanchor"):
        await with_timeout(api.consumer(dsn, group="g", until_empty=True).run(print))
    with pytest.raises(dn.errors.ForeignCluster, match="durable-notify reanchor"):
        await read_everything(api, dsn)
    async with api.connect(dsn, autocommit=True) as own:
        assert await maybe_await(api.Admin().reanchor(own)) == []
    assert [message.payload for message in await read_everything(api, dsn)] == [1]


async def test_a_token_of_another_outbox_is_refused(api: Api, dsn: str, conn: Connection) -> None:
    send(conn, [1, 2])
    token = (await read_everything(api, dsn))[0].token
    assert [message.payload for message in await read_everything(api, dsn, start=token)] == [2]
    restored(conn)
    conn.execute("SELECT durable_notify.reanchor()")
    with pytest.raises(
        dn.InvalidArgument, match="token belongs to another outbox.*start at a time"
    ):
        async with AnyReader(api, dsn, start=token):
            pass


def test_rows_carried_over_by_replication_are_noticed(sessions: Sessions) -> None:
    """In whichever order: the sequence follows, so that no id is drawn twice."""
    session = sessions.session()
    session.subscribe("g")
    session.run("SET session_replication_role = replica")
    for message_id in (70, 50):
        session.run(FOREIGN, "5", message_id)
    session.run("RESET session_replication_role")
    assert session.publish() == 71
    with pytest.raises(errors.Error, match="another cluster"):
        session.claim(10, "g")
    session.run("SELECT * FROM durable_notify.reanchor()")
    assert [message.id for message in session.claim(10, "g")] == [50, 70, 71]


def test_reanchor_waits_for_publishers(sessions: Sessions) -> None:
    publisher, owner = sessions.take(2)
    owner.subscribe("g")
    schema_only(owner.connection)
    publisher.begin()
    message_id = publisher.publish()
    owner.run("SET lock_timeout = '50ms'")
    with pytest.raises(errors.LockNotAvailable):
        owner.run("SELECT * FROM durable_notify.reanchor()")
    publisher.commit()
    owner.run("SELECT * FROM durable_notify.reanchor()")
    assert [message.id for message in owner.claim(10, "g")] == [message_id]


def test_a_copy_that_is_not_whole_is_refused(conn: Connection) -> None:
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    restored(conn)
    conn.execute("DELETE FROM durable_notify.position")
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="the copy is incomplete") as seen:
        conn.execute("SELECT * FROM durable_notify.reanchor()")
    assert "Copy all tables" in str(seen.value.diag.message_hint)
    with pytest.raises(errors.Error, match="another cluster"):
        conn.execute(ANCHORED)


@pytest.mark.parametrize("order_by", ["none", "key", "strict"])
def test_what_was_in_flight_and_what_was_half_read(sessions: Sessions, order_by: str) -> None:
    """Stragglers below the position, an open window, what is leased: each is delivered once."""
    late, publisher, consumer = sessions.take(3)
    consumer.subscribe("g")
    consumer.run("SELECT durable_notify.configure('g', %s)", json.dumps({"order_by": order_by}))
    if order_by != "strict":  # which does not run ahead of it
        late.begin()
        straggler = late.publish(key="a")
    sent = [publisher.publish(key=key) for key in "abcabcabc"]
    delivered = [message.id for message in consumer.claim(4, "g")]
    if order_by != "strict":
        late.commit()
        sent.append(straggler)
    # Foreign: as far as this cluster is concerned, nothing of it has happened yet.
    xids = "UPDATE durable_notify.outbox SET xid = (xid::text::bigint + 1000000)::text::xid8"
    moved = """
        UPDATE durable_notify.position SET s0 = durable_notify.later(s0), s1 = durable_notify.later(s1)"""
    later = """
        CREATE FUNCTION durable_notify.later(s pg_snapshot) RETURNS pg_snapshot LANGUAGE sql AS $$
            SELECT format('%s:%s:%s', pg_snapshot_xmin(s)::text::bigint + 1000000,
                pg_snapshot_xmax(s)::text::bigint + 1000000,
                (SELECT string_agg((x::text::bigint + 1000000)::text, ',' ORDER BY x) FROM pg_snapshot_xip(s) x)
            )::pg_snapshot $$"""
    for statement in (later, xids, moved, "DROP FUNCTION durable_notify.later"):
        consumer.run(statement)
    restored(consumer.connection)
    sent.append(publisher.publish(key="z"))
    consumer.run("SELECT * FROM durable_notify.reanchor()")
    sent.append(publisher.publish(key="z"))
    got = list(delivered)
    consumer.run("SELECT durable_notify.settle(token, ids) FROM durable_notify.lease")
    while batch := consumer.claim(100, "g"):
        got += [message.id for message in batch]
        consumer.run("SELECT durable_notify.settle(token, ids) FROM durable_notify.lease")
    assert sorted(got) == sorted(sent)


def test_a_dump_restored_beside_it(private_server: Server, tmp_path: Path) -> None:
    """Through pg_dump, with the command line: refused, then told what to do, then done."""
    dsn = private_server.dsn()
    consume = ("consume", "t", "--group", "g", "--until-empty")
    good("migrate", dsn=dsn)
    good("publish", "t", "1", dsn=dsn)
    assert payloads(good(*consume, dsn=dsn)) == [1]
    good("publish", "t", "2", dsn=dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("CREATE DATABASE copy TEMPLATE template0")
    copy = psycopg.conninfo.make_conninfo(dsn, dbname="copy")
    dump = [private_server.bindir / "pg_dump", "--no-owner", dsn]
    text = subprocess.run(dump, check=True, capture_output=True).stdout
    restore = [private_server.bindir / "psql", "-qX", "-v", "ON_ERROR_STOP=1", copy]
    subprocess.run(restore, input=text, check=True, capture_output=True)
    fails(run(*consume, dsn=copy), 1, "durable-notify reanchor")
    assert json.loads(good("reanchor", "--json", dsn=copy)) == [
        {"group": "g", "topic": "t", "unread": 1}
    ]
    assert good("reanchor", dsn=copy) == ""
    assert payloads(good(*consume, dsn=copy)) == [2]
    good("publish", "t", "3", dsn=copy)
    assert [one["id"] for one in objects(good(*consume, dsn=copy))] == [3]


def test_ids_follow_those_carried_over(sessions: Sessions) -> None:
    """Logical replication carries rows over, not sequences; one never drawn from stands at 1, too."""
    session = sessions.session()
    session.run("SET session_replication_role = replica")
    session.run(FOREIGN, "5", 1)
    session.run("""
        INSERT INTO durable_notify.audit (id, action, group_name) OVERRIDING SYSTEM VALUE
        VALUES (1, 'pause', 'g'), (2, 'resume', 'g')""")
    session.run("""
        INSERT INTO durable_notify.consumer_group (id, name) OVERRIDING SYSTEM VALUE
        VALUES (1, 'g')""")
    session.run("RESET session_replication_role")
    assert session.publish() == 2
    session.run("SELECT * FROM durable_notify.reanchor()")
    assert session.subscribe("h") == 2
    session.run("SELECT durable_notify.pause('h')")
    assert session.column("SELECT id FROM durable_notify.audit ORDER BY 1") == [1, 2, 3]
