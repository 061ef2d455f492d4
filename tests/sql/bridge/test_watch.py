"""watch(): the changes of a table, as a reader of its topic sees them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.injection import plant
from tests.support.sessions import Session, Sessions

WATCH = "SELECT durable_notify.watch(%s, %s)"
WATCH_SOME = "SELECT durable_notify.watch(%s, %s, %s)"
UNWATCH = "SELECT durable_notify.unwatch(%s, %s)"
CHANGES = "DELETE FROM durable_notify.outbox WHERE topic = %s RETURNING id, key, payload"
BRIDGES = "SELECT kind, source, target, columns, with_old FROM durable_notify.bridges()"


def changes(owner: Session, topic: str = "t") -> list[tuple[str | None, dict[str, Any]]]:
    """What was published since the last call: key and payload, in order."""
    rows = sorted(owner.run(CHANGES, topic))
    return [(key, payload) for _, key, payload in rows]


def told(owner: Session) -> list[tuple[str, str | None, Any, Any]]:
    """The same: operation, key, new and old values."""
    return [
        (change["op"], key, change.get("new"), change.get("old")) for key, change in changes(owner)
    ]


def keys(owner: Session) -> list[str | None]:
    return [key for key, _ in changes(owner)]


@pytest.fixture
def items(owner: Session) -> None:
    """A table of a simple kind, watched."""
    owner.run("CREATE TABLE items (id int PRIMARY KEY, name text, price numeric)")
    owner.run(WATCH, "items", "t")


# What is published


@pytest.mark.usefixtures("items")
def test_each_kind_of_change(owner: Session) -> None:
    owner.run("INSERT INTO items VALUES (1, 'a', 1.50), (2, NULL, NULL)")
    a, b = {"id": 1, "name": "a", "price": 1.5}, {"id": 2, "name": None, "price": None}
    assert changes(owner) == [
        ("1", {"table": "public.items", "op": "insert", "new": a}),
        ("2", {"table": "public.items", "op": "insert", "new": b}),
    ]
    owner.run("UPDATE items SET name = 'b' WHERE id = 1")
    assert changes(owner) == [
        ("1", {"table": "public.items", "op": "update", "new": a | {"name": "b"}, "old": a})
    ]
    owner.run("DELETE FROM items WHERE id = 2")
    assert changes(owner) == [("2", {"table": "public.items", "op": "delete", "old": b})]
    owner.run("TRUNCATE items")
    assert changes(owner) == [(None, {"table": "public.items", "op": "truncate"})]
    owner.run("UPDATE items SET name = 'x'")
    assert changes(owner) == []


@pytest.mark.usefixtures("items")
def test_statements_of_many_kinds(owner: Session) -> None:
    with owner.connection.cursor().copy("COPY items FROM STDIN") as copy:
        copy.write("1\ta\t1\n2\tb\t2\n")
    assert [change[:2] for change in told(owner)] == [("insert", "1"), ("insert", "2")]
    upsert = """
        INSERT INTO items VALUES (2, 'x', 0), (3, 'c', 3)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name"""
    owner.run(upsert)
    assert [change[:2] for change in told(owner)] == [("update", "2"), ("insert", "3")]
    owner.run("INSERT INTO items VALUES (3, 'y', 0) ON CONFLICT DO NOTHING")
    assert told(owner) == []
    if owner.connection.info.server_version >= 150000:
        owner.run("""
            MERGE INTO items USING (VALUES (1, 'm'), (2, NULL), (4, 'n')) AS v (id, name) ON items.id = v.id
             WHEN MATCHED AND v.name IS NULL THEN DELETE
             WHEN MATCHED THEN UPDATE SET name = v.name
             WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.name, 0)""")
        found = {change[:2] for change in told(owner)}
        assert found == {("update", "1"), ("delete", "2"), ("insert", "4")}
    owner.run("WITH gone AS (DELETE FROM items WHERE id = 1 RETURNING *) SELECT * FROM gone")
    assert [change[:2] for change in told(owner)] == [("delete", "1")]


@pytest.mark.usefixtures("items")
def test_rolled_back(owner: Session) -> None:
    owner.begin()
    owner.run("INSERT INTO items VALUES (1)")
    owner.rollback()
    with owner.transaction():
        owner.run("INSERT INTO items VALUES (2)")
        owner.run("SAVEPOINT s")
        owner.run("INSERT INTO items VALUES (3)")
        owner.run("ROLLBACK TO s")
    assert keys(owner) == ["2"]


@pytest.mark.usefixtures("items")
def test_in_the_order_of_the_key(sessions: Sessions, owner: Session) -> None:
    """Of one row, ids follow the order of its changes, from all writers."""
    one, two = sessions.take(2)
    one.run("INSERT INTO items VALUES (1, '0')")
    one.begin()
    one.run("UPDATE items SET name = name || '1'")
    work = two.start("UPDATE items SET name = name || '2'")
    sessions.wait_until_blocked(two, work)
    one.run("UPDATE items SET name = name || '3'")
    one.commit()
    work.result()
    owner.subscribe()
    assert [m.payload["new"]["name"] for m in owner.claim()] == ["0", "01", "013", "0132"]


def test_without_old_values(owner: Session) -> None:
    owner.run("CREATE TABLE items (id int PRIMARY KEY, name text)")
    owner.run("SELECT durable_notify.watch('items', 't', with_old => false)")
    owner.run("INSERT INTO items VALUES (1, 'a')")
    owner.run("UPDATE items SET name = 'b'")
    owner.run("DELETE FROM items")
    b = {"id": 1, "name": "b"}
    assert told(owner)[1:] == [("update", "1", b, None), ("delete", "1", None, b)]


def test_columns_chosen(owner: Session) -> None:
    """Nothing of the others, and no update that is of them alone; the key is there all the same."""
    table = 'CREATE TABLE items (id int PRIMARY KEY, name text, secret text, "Odd, ""Name""" int)'
    owner.run(table)
    owner.run(WATCH_SOME, "items", "t", ["name", 'Odd, "Name"'])
    owner.run("INSERT INTO items VALUES (1, 'a', 'hush', 1)")
    owner.run("UPDATE items SET secret = 'hush hush'")
    owner.run("UPDATE items SET secret = 'hush', name = 'a'")
    owner.run("UPDATE items SET name = 'b'")
    owner.run("UPDATE items SET id = 2")
    a, b = {"name": "a", 'Odd, "Name"': 1}, {"name": "b", 'Odd, "Name"': 1}
    assert told(owner) == [
        ("insert", "1", a, None),
        ("update", "1", b, a),
        ("delete", "1", None, b),
        ("insert", "2", b, None),
    ]


@pytest.mark.usefixtures("items")
def test_another_primary_key(owner: Session) -> None:
    """Is another row, so that the messages of a key are of one row."""
    owner.run("INSERT INTO items VALUES (1), (2)")
    changes(owner)
    owner.run("UPDATE items SET id = id + 10")
    assert [change[:2] for change in told(owner)] == [
        ("delete", "1"), ("insert", "11"), ("delete", "2"), ("insert", "12"),
    ]  # fmt: skip


def test_keys(owner: Session) -> None:
    """Whatever the primary key is: what a key cannot have in it is written in another way."""
    for kind, value, key in (
        ("text", "a", "a"), ("text", "", "%"), ("text", "%", "%25"), ("text", "a\nb\tc", "a%0Ab%09c"),
        ("text", "\x85", "%C2%85"), ("text", "ü 注", "ü 注"), ("text", "x" * 1024, "x" * 1024),
        ("int", 5, "5"), ("boolean", True, "true"), ("bytea", b"\x00\xff", "\\x00ff"),
        ("numeric", 12345678901234567890, "12345678901234567890"), ("float8", 0.1, "0.1"),
        ("timestamptz", "2026-01-01 00:00+02", "2025-12-31T22:00:00+00:00"), ("interval", "1 day", "1 day"),
        ("uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("int[]", [1, 2], "[1, 2]"), ("jsonb", '{"a": 1}', '{"a": 1}'),
    ):  # fmt: skip
        owner.run(f"CREATE TABLE keyed (k {kind} PRIMARY KEY)")
        owner.run(WATCH, "keyed", "t")
        owner.run(f"INSERT INTO keyed VALUES (%s::{kind})", value)
        owner.run("DELETE FROM keyed")
        assert keys(owner) == [key, key], (kind, value)
        owner.run("DROP TABLE keyed")


def test_long_keys(owner: Session) -> None:
    """Over 1024 bytes: their hash, the same for the same row."""
    owner.run("CREATE TABLE keyed (k text PRIMARY KEY, v int)")
    owner.run(WATCH, "keyed", "t")
    for value in ("ü" * 512 + "x", "y" * 1025, "\n" * 400):
        owner.run("INSERT INTO keyed VALUES (%s)", value)
        owner.run("UPDATE keyed SET v = 1")
        owner.run("DELETE FROM keyed")
        one, two, three = keys(owner)
        assert one == two == three
        assert one is not None
        assert one.startswith("%md5:")
    owner.run("INSERT INTO keyed VALUES (repeat('a', 1030)), (repeat('a', 1031))")
    assert len(set(keys(owner))) == 2


def test_composite_keys(owner: Session) -> None:
    """A JSON array, in the order of the key; not what the index only includes."""
    owner.run("""
        CREATE TABLE keyed (a int, "B b" text, c int, d int, PRIMARY KEY ("B b", a) INCLUDE (d))""")
    owner.run(WATCH_SOME, "keyed", "t", ["c"])
    owner.run("INSERT INTO keyed VALUES (1, E'x\\n%', 0, 0)")
    owner.run("UPDATE keyed SET c = 1, d = 1")
    assert told(owner) == [
        ("insert", '["x\\n%25", 1]', {"c": 0}, None),
        ("update", '["x\\n%25", 1]', {"c": 1}, {"c": 0}),
    ]
    owner.run("UPDATE keyed SET a = 2")
    assert keys(owner) == ['["x\\n%25", 1]', '["x\\n%25", 2]']


def test_without_a_primary_key(owner: Session) -> None:
    owner.run("CREATE TABLE bare (a int UNIQUE)")
    owner.run(WATCH, "bare", "t")
    owner.run("INSERT INTO bare VALUES (1)")
    owner.run("UPDATE bare SET a = 2")
    owner.run("DELETE FROM bare")
    assert told(owner) == [
        ("insert", None, {"a": 1}, None),
        ("update", None, {"a": 2}, {"a": 1}),
        ("delete", None, None, {"a": 2}),
    ]


SETTINGS = {
    "TimeZone": "Asia/Kolkata", "IntervalStyle": "sql_standard", "bytea_output": "escape", "extra_float_digits": "-5",
    "DateStyle": "SQL, DMY", "search_path": "pg_temp", "standard_conforming_strings": "off",
}  # fmt: skip


def test_the_same_with_every_writer(sessions: Sessions, owner: Session) -> None:
    """A session's settings change neither key nor values: a row has one key."""
    owner.run(
        "CREATE TABLE public.odd (a timestamptz, b interval, c bytea, d float8, PRIMARY KEY (a, b, c, d))"
    )
    owner.run(WATCH, "public.odd", "t")
    insert = """
        INSERT INTO public.odd VALUES
        ('2026-01-01 00:00Z', '1 day -2 hours', decode('0a00ff', 'hex'), 1::float8 / 3)"""
    owner.run(insert)
    owner.run("DELETE FROM public.odd")
    writer = sessions.session()
    for name, value in SETTINGS.items():
        writer.run(f"SET {name} = {value if name == 'search_path' else repr(value)}")
    writer.run(insert)
    writer.run("DELETE FROM public.odd")
    (one, _), (two, _), *theirs = changes(owner)
    assert one == two
    owner.run(insert)
    owner.run("DELETE FROM public.odd")
    assert changes(owner) == theirs
    assert theirs[0][0] == one


def test_a_setting_forgotten_would_be_noticed(sessions: Sessions, owner: Session) -> None:
    owner.run("ALTER FUNCTION durable_notify._watch_trigger() RESET TimeZone")
    with pytest.raises(AssertionError):
        test_the_same_with_every_writer(sessions, owner)


def test_generated_columns(owner: Session) -> None:
    """Stored ones have their values, and a change of theirs is one; virtual ones, never stored, have none."""
    virtual = owner.connection.info.server_version >= 180000
    owner.run(
        "CREATE TABLE items (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED)"
    )
    if virtual:
        owner.run("ALTER TABLE items ADD COLUMN v int GENERATED ALWAYS AS (a * 3) VIRTUAL")
    owner.run(WATCH_SOME, "items", "t", ["twice", "v"] if virtual else ["twice"])
    owner.run("INSERT INTO items VALUES (1, 1)")
    owner.run("UPDATE items SET a = 2")
    more = {"v": None} if virtual else {}
    assert told(owner) == [
        ("insert", "1", {"twice": 2} | more, None),
        ("update", "1", {"twice": 4} | more, {"twice": 2} | more),
    ]


def test_what_other_triggers_change(owner: Session) -> None:
    """Values are as they are stored; an update made by a trigger is one more."""
    owner.run("CREATE TABLE items (id int PRIMARY KEY, name text, n int DEFAULT 0)")
    owner.run("""
        CREATE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN NEW.name = upper(NEW.name); RETURN NEW; END $$""")
    owner.run(
        "CREATE TRIGGER b BEFORE INSERT OR UPDATE ON items FOR EACH ROW EXECUTE FUNCTION before()"
    )
    owner.run(WATCH_SOME, "items", "t", ["name"])
    owner.run("INSERT INTO items VALUES (1, 'a')")
    owner.run("CREATE OR REPLACE FUNCTION before() RETURNS trigger LANGUAGE plpgsql AS $$"
              " BEGIN NEW.name = 'changed'; RETURN NEW; END $$")  # fmt: skip
    owner.run("UPDATE items SET n = 1")
    assert told(owner) == [
        ("insert", "1", {"name": "A"}, None),
        ("update", "1", {"name": "changed"}, {"name": "A"}),
    ]


# Tables that change


@pytest.mark.usefixtures("items")
def test_altered(owner: Session) -> None:
    """All columns: those that there are now."""
    owner.run("ALTER TABLE items DROP COLUMN price, ADD COLUMN added int DEFAULT 7")
    owner.run("ALTER TABLE items RENAME COLUMN name TO label")
    owner.run("ALTER TABLE items RENAME TO things")
    owner.run("CREATE SCHEMA shop")
    owner.run("ALTER TABLE things SET SCHEMA shop")
    owner.run("INSERT INTO shop.things VALUES (1, 'a')")
    new = {"id": 1, "label": "a", "added": 7}
    assert changes(owner) == [("1", {"table": "shop.things", "op": "insert", "new": new})]
    owner.run("ALTER TABLE shop.things DROP CONSTRAINT items_pkey, ADD PRIMARY KEY (label, id)")
    owner.run("ALTER TABLE shop.things ALTER COLUMN id TYPE text")
    owner.run("DELETE FROM shop.things")
    assert told(owner) == [("delete", '["a", "1"]', None, new | {"id": "1"})]
    assert owner.value(UNWATCH, "shop.things", "t") is True


def test_altered_with_columns_chosen(owner: Session) -> None:
    """They stay chosen when they are renamed; one that is dropped is left out, a new one is not in."""
    owner.run("CREATE TABLE items (id int PRIMARY KEY, a int, b int, c int)")
    owner.run(WATCH_SOME, "items", "t", ["a", "b"])
    owner.run("ALTER TABLE items RENAME COLUMN a TO z")
    owner.run("ALTER TABLE items RENAME COLUMN c TO a")
    owner.run("ALTER TABLE items ADD COLUMN e int DEFAULT 0")
    owner.run("INSERT INTO items VALUES (1, 2, 3, 4)")
    owner.run("ALTER TABLE items DROP COLUMN b")
    owner.run("ALTER TABLE items ADD COLUMN b int DEFAULT 9")
    owner.run("UPDATE items SET b = 10, a = 10")
    owner.run("UPDATE items SET z = 3")
    assert told(owner) == [
        ("insert", "1", {"z": 2, "b": 3}, None),
        ("update", "1", {"z": 3}, {"z": 2}),
    ]
    owner.run("ALTER TABLE items DROP COLUMN z")
    owner.run("DELETE FROM items")
    assert told(owner) == [("delete", "1", None, {})]


def dumped_and_restored(owner: Session) -> list[tuple[str, str | None, Any, Any]]:
    """A table of which a column was dropped, made again as a dump has it: its numbers are others."""
    owner.run("CREATE TABLE old (id int PRIMARY KEY, gone int, b int, secret int)")
    owner.run("ALTER TABLE old DROP COLUMN gone")
    owner.run(WATCH_SOME, "old", "t", ["b"])
    definitions = owner.column(
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'old'::regclass"
    )
    owner.run("CREATE TABLE items (id int PRIMARY KEY, b int, secret int)")
    for definition in definitions:
        owner.run(definition.replace("public.old", "public.items"))
    owner.run("INSERT INTO items VALUES (1, 2, 3)")
    return told(owner)


def test_dumped_and_restored(owner: Session) -> None:
    """The columns that were chosen, and no others, though their numbers are others."""
    assert dumped_and_restored(owner) == [("insert", "1", {"b": 2}, None)]
    assert (("watch", "public.items", "t", ["b"], True)) in owner.run(BRIDGES)


def test_columns_by_their_numbers_alone_would_be_noticed(owner: Session) -> None:
    plant(owner, "_watched_columns", ("(chosen ->> 'table')::oid = changed::oid", "true"),
          ("a.attrelid = (chosen ->> 'table')::oid AND", "a.attrelid = changed AND"))  # fmt: skip
    assert dumped_and_restored(owner) == [("insert", "1", {"secret": 3}, None)]


def test_partitions(owner: Session) -> None:
    """Changes of partitions are their table's, whatever their columns' numbers are."""
    owner.run(
        "CREATE TABLE parts (gone int, id int, name text, secret text, PRIMARY KEY (id)) PARTITION BY RANGE (id)"
    )
    owner.run("ALTER TABLE parts DROP COLUMN gone")
    owner.run("CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10)")
    owner.run(WATCH_SOME, "parts", "t", ["name"])
    owner.run("CREATE TABLE high (secret text, name text, x int, id int NOT NULL)")
    owner.run("ALTER TABLE high DROP COLUMN x")
    owner.run("ALTER TABLE parts ATTACH PARTITION high FOR VALUES FROM (10) TO (20)")
    owner.run(
        "CREATE TABLE most PARTITION OF parts FOR VALUES FROM (20) TO (40) PARTITION BY RANGE (id)"
    )
    owner.run("CREATE TABLE more PARTITION OF most FOR VALUES FROM (20) TO (30)")
    owner.run("INSERT INTO parts VALUES (1, 'a', 's'), (11, 'b', 's')")
    owner.run("INSERT INTO high (id, name, secret) VALUES (12, 'c', 's')")
    owner.run("INSERT INTO more VALUES (21, 'd', 's')")
    assert {change["table"] for _, change in changes(owner, "t")} == {"public.parts"}
    owner.run("UPDATE parts SET secret = 'x'")
    assert told(owner) == []
    owner.run("UPDATE parts SET name = 'e' WHERE id = 11")
    owner.run("UPDATE parts SET id = 2 WHERE id = 12")  # into another partition
    assert told(owner) == [
        ("update", "11", {"name": "e"}, {"name": "b"}),
        ("delete", "12", None, {"name": "c"}),
        ("insert", "2", {"name": "c"}, None),
    ]
    owner.run(WATCH_SOME, "parts", "t", ["secret"])
    owner.run("UPDATE parts SET secret = 'y' WHERE id IN (2, 21)")
    old, new = {"secret": "x"}, {"secret": "y"}
    assert sorted(told(owner)) == [("update", "2", new, old), ("update", "21", new, old)]
    owner.run("TRUNCATE parts")
    assert told(owner) == [("truncate", None, None, None)]
    owner.run(WATCH_SOME, "parts", "t", ["name"])
    assert owner.run(BRIDGES) == [("watch", "public.parts", "t", ["name"], True)]
    owner.run("ALTER TABLE parts DETACH PARTITION high")
    owner.run("INSERT INTO high (id) VALUES (13)")
    assert owner.value(UNWATCH, "parts", "t") is True
    owner.run("INSERT INTO parts VALUES (3)")
    assert told(owner) == []


def test_tables_that_inherit(owner: Session) -> None:
    """Have their own rows, and a watch of their own or none; what a foreign key deletes is deleted."""
    owner.run("CREATE TABLE parent (id int PRIMARY KEY)")
    owner.run("CREATE TABLE child (n int REFERENCES parent ON DELETE CASCADE) INHERITS (parent)")
    owner.run(WATCH, "parent", "t")
    owner.run("INSERT INTO parent VALUES (1)")
    owner.run("INSERT INTO child VALUES (2, 1)")
    assert keys(owner) == ["1"]
    owner.run(WATCH, "child", "t")
    owner.run("DELETE FROM ONLY parent")
    found = [(change["table"], change["op"]) for _, change in changes(owner)]
    assert found == [("public.parent", "delete"), ("public.child", "delete")]


def test_names_in_quotes(owner: Session) -> None:
    owner.run('CREATE SCHEMA "My shop"')
    owner.run('CREATE TABLE "My shop"."It\'s ""items""; --" ("Id" int PRIMARY KEY)')
    name = '"My shop"."It\'s ""items""; --"'
    for topic in ("it's", 'say"x"', "\\';--", "%L", "x" * 255):
        owner.run(WATCH, name, topic)
        owner.run(f"INSERT INTO {name} VALUES (1)")
        assert changes(owner, topic) == [("1", {"table": name, "op": "insert", "new": {"Id": 1}})]
        assert owner.run(BRIDGES) == [("watch", name, topic, None, True)]
        assert owner.value(UNWATCH, name, topic) is True
        owner.run(f"DELETE FROM {name}")


def test_a_table_of_the_same_name_elsewhere(owner: Session) -> None:
    owner.run("CREATE SCHEMA shop")
    owner.run("CREATE TABLE items (id int)")
    owner.run("CREATE TABLE shop.items (id int)")
    owner.run("SET search_path = shop, public")
    owner.run(WATCH, "items", "t")
    owner.run("INSERT INTO public.items VALUES (1)")
    owner.run("INSERT INTO shop.items VALUES (2)")
    assert [change["table"] for _, change in changes(owner)] == ["shop.items"]
