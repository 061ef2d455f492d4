"""watch() and unwatch(): who may, what may be watched, what waits for what, what is left."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from durable_notify import schema
from tests.support.injection import plant
from tests.support.observe import Listener
from tests.support.roles import Roles, roles
from tests.support.sessions import Session, Sessions

WATCH = "SELECT durable_notify.watch(%s, %s)"
WATCH_SOME = "SELECT durable_notify.watch(%s, %s, %s)"
UNWATCH = "SELECT durable_notify.unwatch(%s, %s)"
OUTBOX = "SELECT topic, payload ->> 'op' FROM durable_notify.outbox ORDER BY id"
TRIGGERS = (
    "SELECT count(*) FROM pg_trigger WHERE tgfoid = 'durable_notify._watch_trigger()'::regprocedure"
)
LOCKS = """
    SELECT DISTINCT mode FROM pg_locks
     WHERE pid = %s AND relation = 'items'::regclass AND mode NOT IN ('AccessShareLock', 'RowExclusiveLock')"""


@pytest.fixture
def owner(sessions: Sessions) -> Session:
    """The owner of the schema, with a table."""
    session = sessions.session()
    session.run("CREATE TABLE items (id int PRIMARY KEY, a int, b int)")
    return session


def published(owner: Session) -> list[tuple[str, str]]:
    rows = owner.run(OUTBOX)
    owner.run("DELETE FROM durable_notify.outbox")
    return rows


# Watched, watched again, and no more


def test_watched_again_it_is_as_said_last(owner: Session) -> None:
    owner.run(WATCH, "items", "t")
    owner.run(WATCH_SOME, "items", "t", ["a"])
    owner.run("INSERT INTO items VALUES (1, 1, 1)")
    owner.run("UPDATE items SET b = 2")
    owner.run("TRUNCATE items")
    assert published(owner) == [("t", "insert"), ("t", "truncate")]
    owner.run(WATCH, "items", "t")
    owner.run("INSERT INTO items VALUES (1, 1, 1)")
    owner.run("UPDATE items SET b = 2")
    assert published(owner) == [("t", "insert"), ("t", "update")]
    assert owner.value(TRIGGERS) == 2


def test_two_topics(owner: Session) -> None:
    owner.run(WATCH, "items", "t")
    owner.run(WATCH_SOME, "items", "u", ["a"])
    owner.run("INSERT INTO items VALUES (1, 1, 1)")
    owner.run("UPDATE items SET b = 2")
    assert sorted(published(owner)) == [("t", "insert"), ("t", "update"), ("u", "insert")]
    assert owner.value(UNWATCH, "items", "t") is True
    owner.run("UPDATE items SET a = 2")
    assert published(owner) == [("u", "update")]


def test_no_more(owner: Session) -> None:
    owner.run(WATCH, "items", "t")
    assert owner.value(UNWATCH, "items", "another") is False
    assert owner.value(UNWATCH, "items", "t") is True
    assert owner.value(UNWATCH, "items", "t") is False
    assert owner.value(TRIGGERS) == 0
    owner.run("INSERT INTO items VALUES (1)")
    owner.run("TRUNCATE items")
    assert published(owner) == []


def test_another_owners_trigger_stays(owner: Session) -> None:
    name = owner.value("SELECT durable_notify._watch_trigger_name('t')")
    owner.run(
        "CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    owner.run(f"CREATE TRIGGER {name} AFTER INSERT ON items FOR EACH ROW EXECUTE FUNCTION other()")
    assert owner.value(UNWATCH, "items", "t") is False
    assert owner.value("SELECT count(*) FROM pg_trigger WHERE tgname = %s", name) == 1


def test_rolled_back(owner: Session) -> None:
    owner.begin()
    owner.run(WATCH, "items", "t")
    owner.rollback()
    owner.run("INSERT INTO items VALUES (1)")
    assert published(owner) == []
    owner.run(WATCH, "items", "t")
    owner.begin()
    owner.run(UNWATCH, "items", "t")
    owner.rollback()
    owner.run("INSERT INTO items VALUES (2)")
    assert published(owner) == [("t", "insert")]


def test_what_is_watched_wakes_and_is_mirrored(sessions: Sessions, owner: Session) -> None:
    """A message as all others."""
    owner.run(WATCH_SOME, "items", "t", ["a"])
    owner.run("SELECT durable_notify.set_mirror('t', 'c')")
    listener = Listener(sessions, "t", arm=True)
    listener.hear("c")
    owner.run("INSERT INTO items VALUES (1, 2, 3)")
    raw = '{"op": "insert", "new": {"a": 2}, "table": "public.items"}'
    assert sorted(listener.heard()) == [("c", raw), ("durable_notify:t", "1")]


def test_prepared_transactions(owner: Session) -> None:
    """Continue, while no consumer waits."""
    owner.run(WATCH, "items", "t")
    with owner.transaction():
        owner.run("INSERT INTO items VALUES (1)")
        owner.run("PREPARE TRANSACTION 'p'")
    assert published(owner) == []
    owner.run("COMMIT PREPARED 'p'")
    assert published(owner) == [("t", "insert")]


def test_what_logical_replication_applies_is_not_published(owner: Session) -> None:
    """It was published where it comes from."""
    owner.run(WATCH, "items", "t")
    owner.run("SET session_replication_role = replica")
    owner.run("INSERT INTO items VALUES (1)")
    assert published(owner) == []


def test_nothing_is_left_of_it_without_the_schema(dsn: str, owner: Session) -> None:
    owner.run(WATCH, "items", "t")
    schema.downgrade(dsn, "base")
    owner.run("INSERT INTO items VALUES (1)")
    assert owner.value("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'items'::regclass") == 0


# Rights


@pytest.fixture
def cast(dsn: str) -> Iterator[Roles]:
    with roles(dsn, {"writer": [], "other": []}) as made:
        yield made


def test_writers_need_no_rights_here(owner: Session, cast: Roles) -> None:
    """And get none."""
    owner.run(WATCH, "items", "t")
    owner.run(f"GRANT ALL ON items TO {cast.names['writer']}")
    with psycopg.connect(cast.login("writer"), autocommit=True) as writer:
        writer.execute("SET search_path = pg_temp, public")
        writer.execute("INSERT INTO items VALUES (1)")
        writer.execute("UPDATE items SET a = 1")
        writer.execute("DELETE FROM items")
        writer.execute("TRUNCATE items")
        writer.execute("CREATE TEMP TABLE mine (id int)")
        for statement in (
            "SELECT durable_notify.watch('items', 't')",
            "SELECT durable_notify.unwatch('items', 't')",
            "SELECT durable_notify.bridges()",
            "SELECT durable_notify.publish('t', '1')",
            "CREATE TRIGGER forged AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION durable_notify._watch_trigger('t', '', 't')",
            "CREATE TRIGGER forged AFTER INSERT ON items FOR EACH ROW EXECUTE FUNCTION durable_notify._watch_trigger('u', '', 't')",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                writer.execute(statement.encode())
    assert [op for _, op in published(owner)] == ["insert", "update", "delete", "truncate"]


def test_a_trigger_with_the_writers_rights_would_be_noticed(owner: Session, cast: Roles) -> None:
    owner.run("ALTER FUNCTION durable_notify._watch_trigger() SECURITY INVOKER")
    with pytest.raises(errors.InsufficientPrivilege):
        test_writers_need_no_rights_here(owner, cast)


def test_who_may_watch(empty_dsn: str, cast: Roles) -> None:
    """The schema's owner, with the right to make triggers on the table; back takes its ownership."""
    dn, them = (sql.Identifier(cast.names[kind]) for kind in ("writer", "other"))
    with psycopg.connect(empty_dsn, autocommit=True) as admin:
        database = sql.Identifier(admin.info.dbname)
        admin.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, dn))
        admin.execute("CREATE TABLE items (id int PRIMARY KEY)")
        admin.execute(sql.SQL("ALTER TABLE items OWNER TO {}").format(them))
        dsn = make_conninfo(empty_dsn, options=f"-c role={cast.names['writer']}")
        schema.migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as owner:
            with pytest.raises(errors.InsufficientPrivilege, match="items"):
                owner.execute(WATCH, ["items", "t"])
            admin.execute(sql.SQL("GRANT TRIGGER ON items TO {}").format(dn))
            owner.execute(WATCH, ["items", "t"])
            owner.execute(WATCH, ["items", "t"])
            with pytest.raises(errors.InsufficientPrivilege, match="must be owner"):
                owner.execute(UNWATCH, ["items", "t"])
            admin.execute(sql.SQL("INSERT INTO items VALUES (1)"))
            admin.execute(sql.SQL("GRANT {} TO {}").format(them, dn))
            assert owner.execute(UNWATCH, ["items", "t"]).fetchone() == (True,)
            assert owner.execute("SELECT count(*) FROM durable_notify.outbox").fetchone() == (1,)
        schema.downgrade(dsn, "base")
        admin.execute("DROP TABLE items")


def test_whose_rights_count_for_what_a_table_brings(owner: Session, cast: Roles) -> None:
    """As docs/security.md says: row security does not, and a cast to json runs as our owner."""
    other = cast.names["other"]
    owner.run(f"GRANT CREATE ON SCHEMA public TO {other}")
    with psycopg.connect(cast.login("other"), autocommit=True) as theirs:
        theirs.execute("CREATE TYPE odd AS ENUM ('a')")
        theirs.execute("CREATE TABLE secrets (id int PRIMARY KEY, o odd)")
        theirs.execute("ALTER TABLE secrets ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY")
        theirs.execute("CREATE POLICY p ON secrets FOR INSERT WITH CHECK (true)")
        theirs.execute("""
            CREATE FUNCTION as_json(odd) RETURNS json LANGUAGE sql AS
            'SELECT pg_catalog.to_json(current_user::text)'""")
        theirs.execute("CREATE CAST (odd AS json) WITH FUNCTION as_json(odd)")
        owner.run(WATCH, "secrets", "t")
        theirs.execute("INSERT INTO secrets VALUES (1, 'a')")
        assert theirs.execute("SELECT * FROM secrets").fetchall() == []
    new = owner.value("SELECT payload -> 'new' FROM durable_notify.outbox")
    assert new == {"id": 1, "o": owner.value("SELECT current_user::text")}


# What it waits for


def test_it_waits_for_writers_but_not_for_long(sessions: Sessions, owner: Session) -> None:
    """Three seconds: others queue behind it meanwhile."""
    writer, reader = sessions.take(2)
    writer.begin()
    writer.run("INSERT INTO items VALUES (1)")
    for statement, topic in ((WATCH, "t"), (UNWATCH, "t")):
        began = time.monotonic()
        with pytest.raises(errors.LockNotAvailable):
            owner.run(statement, "items", topic)
        assert 2 < time.monotonic() - began < 15
        writer.commit()
        owner.run(statement, "items", topic)
        writer.begin()
        writer.run("UPDATE items SET a = 1")
    assert owner.value("SHOW lock_timeout") == "0"
    assert published(owner) == [("t", "update")]  # committed before the trigger was dropped
    assert reader.value("SELECT count(*) FROM items") == 1


def test_a_wait_without_end_would_be_noticed(sessions: Sessions, owner: Session) -> None:
    owner.run("ALTER FUNCTION durable_notify.watch RESET lock_timeout")
    owner.run("SET statement_timeout = '6s'")
    with pytest.raises(errors.QueryCanceled):
        test_it_waits_for_writers_but_not_for_long(sessions, owner)


def test_readers_continue_while_it_is_created(sessions: Sessions, owner: Session) -> None:
    """Watched for the first time, or again: only writers wait for the commit."""
    reader = sessions.session()
    reader.run("SET lock_timeout = '2s'")
    for columns in (None, ["a"]):
        owner.begin()
        owner.run(WATCH_SOME, "items", "t", columns)
        assert owner.column(LOCKS, owner.pid) == ["ShareRowExclusiveLock"]
        assert reader.run("TABLE items") == []
        owner.commit()


AS_IT_IS = "SELECT durable_notify.watch(%s, %s, %s, %s)"


@pytest.mark.parametrize(
    ("topic", "columns", "with_old"), [("t", None, True), ("ü'\\x", ["ß\\", "a"], False)]
)
@pytest.mark.parametrize("table", ["items", "parts"])
def test_it_waits_for_no_writer_if_nothing_changes(
    sessions: Sessions, owner: Session, table: str, topic: str, columns: list[str], with_old: bool
) -> None:
    owner.run('ALTER TABLE items ADD COLUMN "ß\\" int')
    owner.run("CREATE TABLE parts (LIKE items) PARTITION BY RANGE (id)")
    owner.run("CREATE TABLE part PARTITION OF parts DEFAULT")
    owner.run(AS_IT_IS, table, topic, columns, with_old)
    writer = sessions.session()
    writer.begin()
    writer.run(f"INSERT INTO {table} VALUES (1)")
    owner.run("SET statement_timeout = '2s'")  # the lock's is 3 seconds
    owner.run(AS_IT_IS, table, topic, columns, with_old)
    for other in ((columns, not with_old), (["id"], with_old)):
        with pytest.raises(errors.QueryCanceled):
            owner.run(AS_IT_IS, table, topic, *other)
    writer.commit()
    owner.run("RESET statement_timeout")


@pytest.mark.parametrize(("table", "place"), [("items", "items"), ("parts", "part")])
def test_what_was_disabled_is_watched_again(owner: Session, table: str, place: str) -> None:
    owner.run("CREATE TABLE parts (LIKE items) PARTITION BY RANGE (id)")
    owner.run("CREATE TABLE part PARTITION OF parts DEFAULT")
    owner.run(WATCH, table, "t")
    owner.run(f"ALTER TABLE {place} DISABLE TRIGGER USER")
    owner.run(f"INSERT INTO {table} VALUES (1)")
    assert published(owner) == []
    owner.run(WATCH, table, "t")
    owner.run(f"INSERT INTO {table} VALUES (2)")
    assert published(owner) == [("t", "insert")]


# What cannot be watched


def test_what_cannot_be_watched(owner: Session) -> None:
    owner.run("CREATE VIEW a_view AS SELECT 1 AS a")
    owner.run("CREATE MATERIALIZED VIEW kept AS SELECT 1 AS a")
    owner.run("CREATE TEMP TABLE passing (a int)")
    owner.run("CREATE SEQUENCE numbers")
    owner.run("CREATE FOREIGN DATA WRAPPER nothing")
    owner.run("CREATE SERVER nowhere FOREIGN DATA WRAPPER nothing")
    owner.run("CREATE FOREIGN TABLE far (a int) SERVER nowhere")
    ours = owner.column(
        "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'durable_notify'::regnamespace AND relkind = 'r'"
    )
    others = ["pg_catalog.pg_class", "information_schema.sql_features", "a_view", "kept", "passing"]
    for table in (*ours, *others, "numbers", "far", "items_pkey", None):
        with pytest.raises(errors.InvalidParameterValue, match="cannot be watched") as refused:
            owner.run("SELECT durable_notify.watch(%s::regclass, 't')", table)
        assert "Watch a table of your own" in str(refused.value.diag.message_hint)
    with pytest.raises(errors.UndefinedTable):
        owner.run(WATCH, "missing", "t")
    assert owner.value(TRIGGERS) == 0


def test_columns_that_cannot_be_watched(owner: Session) -> None:
    owner.run("ALTER TABLE items ADD COLUMN gone int")
    owner.run("ALTER TABLE items DROP COLUMN gone")
    for columns, says in (
        (["x"], "public.items has no column x"), (["a", "A", "x y"], 'has no column "A", "x y"'),
        (["gone"], "no column gone"), (["ctid"], "no column ctid"), (["........pg.dropped.4........"], "no column"),
        ([], "no columns to watch"), ([None], "has no column NULL"), (["a; DROP TABLE items"], "no column"),
    ):  # fmt: skip
        with pytest.raises(errors.InvalidParameterValue, match=says):
            owner.run("SELECT durable_notify.watch(%s, %s, %s::text[])", "items", "t", columns)
    assert owner.value(TRIGGERS) == 0


def test_topics_that_cannot_be(owner: Session) -> None:
    topics: list[Any] = ["", "a b", "a*", ">", "x" * 256, "x\n", None]
    for topic in topics:
        with pytest.raises(errors.InvalidParameterValue, match="invalid topic name"):
            owner.run(WATCH, "items", topic)
    assert owner.value(TRIGGERS) == 0


def test_a_name_not_quoted_would_be_noticed(owner: Session) -> None:
    plant(owner, "watch", ("INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION durable_notify._watch_trigger(%L,",
                           "INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION durable_notify._watch_trigger(''%s'',"))  # fmt: skip
    owner.run(WATCH, "items", "plain")
    with pytest.raises(errors.SyntaxError):
        owner.run(WATCH, "items", "it's")
