"""The schema durable_notify_compat: pg_notify() of unchanged programs becomes durable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from durable_notify import schema
from tests.sql.bridge.senders import Sender, each_continues, sent_during
from tests.support.injection import plant
from tests.support.observe import Listener
from tests.support.roles import Roles, roles
from tests.support.sessions import Session

CREATE = "SELECT durable_notify.create_compat()"
DROP = "SELECT durable_notify.drop_compat()"
#: First, so that not even public comes before; or where CREATE TABLE t goes where it went.
PATHS = [
    'durable_notify_compat, pg_catalog, "$user", public',
    '"$user", public, durable_notify_compat, pg_catalog',
]
CALL = "SELECT pg_notify('c', 'x')"
OUTBOX = "SELECT payload FROM durable_notify.outbox ORDER BY id"
Connection = psycopg.Connection[Any]


@pytest.fixture
def cast(dsn: str) -> Iterator[Roles]:
    granted = {
        "application": [("publish", ["c"], None)],
        "stranger": [],
        "reader": [("read", ["c"], None)],
    }
    with roles(dsn, granted) as made:  # type: ignore[arg-type]
        yield made


@contextmanager
def application(
    cast: Roles, kind: str = "application", path: str | None = None
) -> Iterator[Connection]:
    """A session of a role, with the search_path that ALTER ROLE gave it."""
    if path is not None:
        with psycopg.connect(cast.dsn, autocommit=True) as connection:
            alter = sql.SQL("ALTER ROLE {} SET search_path = ").format(
                sql.Identifier(cast.names[kind])
            )
            connection.execute(alter + sql.SQL(path))
    with psycopg.connect(cast.login(kind), autocommit=True) as connection:
        yield connection


# What is caught


@pytest.mark.parametrize("path", PATHS)
def test_one_alter_role(owner: Session, legacy: Listener, cast: Roles, path: str) -> None:
    """Then SELECT pg_notify() is durable, in whatever way it is sent; LISTEN hears what it heard."""
    owner.run(CREATE)
    with application(cast, path=path) as connection:
        connection.execute("SELECT pg_notify('c', 'simple')")
        connection.execute("SELECT pg_notify(%s, %s)", ["c", "bound"])
        for n in range(10):
            connection.execute("SELECT pg_notify(%s, %s)", ["c", f"prepared {n}"], prepare=True)
        with connection.transaction(), connection.cursor(binary=True) as cursor:
            cursor.execute("SELECT pg_notify('c', n::text), n FROM generate_series(1, 2) n")
            assert cursor.description is not None
            assert [column.name for column in cursor.description] == ["pg_notify", "n"]
        with connection.pipeline():
            connection.execute("SELECT pg_notify('c', 'pipelined')")
        connection.execute("DO $$ BEGIN PERFORM pg_notify('c', 'performed'); END $$")
    expected = [
        "simple",
        "bound",
        *(f"prepared {n}" for n in range(10)),
        "1",
        "2",
        "pipelined",
        "performed",
    ]
    assert legacy.payloads() == expected
    assert owner.column(OUTBOX) == expected


def test_a_trigger_of_the_application(owner: Session, legacy: Listener, cast: Roles) -> None:
    """One that is there already, and that has run before."""
    owner.run("CREATE TABLE public.orders (id int)")
    owner.run("""
        CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_notify('c', NEW.id::text); RETURN NEW; END $$""")
    owner.run(
        "CREATE TRIGGER tell AFTER INSERT ON public.orders FOR EACH ROW EXECUTE FUNCTION public.tell()"
    )
    owner.run("GRANT INSERT ON public.orders TO PUBLIC")
    insert = "INSERT INTO orders VALUES (%s)"
    with application(cast, path=PATHS[1]) as connection:
        for n in range(10):
            connection.execute(insert, [n])
        owner.run(CREATE)
        for n in range(10, 20):  # the same session, and the same plans
            connection.execute(insert, [n])
        with connection.transaction(force_rollback=True):
            connection.execute(insert, [99])
        owner.run(DROP)
        connection.execute(insert, [20])
    assert legacy.payloads() == [str(n) for n in range(21)]
    assert owner.column(OUTBOX) == [str(n) for n in range(10, 20)]


def test_what_is_not_caught(owner: Session, legacy: Listener, cast: Roles) -> None:
    """As the documentation says: it notifies as before, and is not durable."""
    owner.run("""
        CREATE FUNCTION public.tell() RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog AS $$
        BEGIN PERFORM pg_notify('c', 'its own search_path'); END $$""")
    owner.run(CREATE)
    with application(cast, path=PATHS[0]) as connection:
        connection.execute("NOTIFY c, 'NOTIFY'")
        connection.execute("SELECT pg_catalog.pg_notify('c', 'by its full name')")
        connection.execute("SELECT public.tell()")
    assert legacy.payloads() == ["NOTIFY", "by its full name", "its own search_path"]
    assert owner.column(OUTBOX) == []


def test_roles_without_it_notify_as_before(owner: Session, legacy: Listener, cast: Roles) -> None:
    owner.run(CREATE)
    for kind in ("application", "stranger"):
        with application(cast, kind) as connection:
            connection.execute(CALL)
    owner.run(CALL)
    assert legacy.payloads() == ["x"] * 3
    assert owner.column(OUTBOX) == []


def test_nothing_else_changes(owner: Session, cast: Roles) -> None:
    """The schema has one function. By the second path new tables go where they went."""
    owner.run(CREATE)
    objects = """
        SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend
         WHERE refclassid = 'pg_namespace'::regclass AND refobjid = 'durable_notify_compat'::regnamespace"""
    assert owner.column(objects) == ["function durable_notify_compat.pg_notify(text,text)"]
    owner.run("GRANT CREATE ON SCHEMA public TO PUBLIC")
    with application(cast, path=PATHS[1]) as connection:
        assert connection.execute("SELECT current_schema()").fetchone() == ("public",)
        connection.execute("CREATE TABLE mine (n int)")
        assert connection.execute(
            "SELECT 'mine'::regclass = 'public.mine'::regclass"
        ).fetchone() == (True,)
    with application(cast, path=PATHS[0]) as connection:
        assert connection.execute("SELECT current_schema()").fetchone() == (
            "durable_notify_compat",
        )
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("CREATE TABLE another (n int)")


# Rights


@pytest.mark.parametrize("kind", ["stranger", "reader"])
def test_a_role_without_rights(owner: Session, legacy: Listener, cast: Roles, kind: str) -> None:
    """Is told what it lacks, and notifies nothing: it would be lost unnoticed."""
    owner.run(CREATE)
    with application(cast, kind, PATHS[0]) as connection:
        with pytest.raises(errors.InsufficientPrivilege, match="may not publish here") as refused:
            connection.execute(CALL)
        grant = f"durable-notify grant {cast.names[kind]} --publish 'c'"
        assert grant in str(refused.value.diag.message_hint)
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("SELECT pg_notify(NULL, NULL)")
    assert legacy.payloads() == []
    assert owner.column(OUTBOX) == []


def test_a_channel_that_was_not_granted(owner: Session, legacy: Listener, cast: Roles) -> None:
    owner.run(CREATE)
    legacy.hear("d")
    with application(cast, path=PATHS[0]) as connection:
        with pytest.raises(errors.InsufficientPrivilege, match="may not publish here"):
            connection.execute("SELECT pg_notify('d', 'x')")
    assert legacy.payloads() == []


def privileges(owner: Session) -> set[tuple[str, str]]:
    query = """
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, a.privilege_type
          FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a
         WHERE n.nspname = 'durable_notify_compat' AND a.grantee <> n.nspowner"""
    return set(owner.run(query))


def test_only_the_owner_can_create_in_it(owner: Session, cast: Roles) -> None:
    """Not even a role that default privileges, or a GRANT, would allow."""
    names = set(cast.names.values())
    for name in names:
        owner.run(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO {name}")
    owner.run(CREATE)
    assert privileges(owner) == {("PUBLIC", "USAGE")}
    owner.run(f"GRANT CREATE ON SCHEMA durable_notify_compat TO {cast.names['stranger']}, PUBLIC")
    owner.run(CREATE)  # again: it is made what it should be
    assert privileges(owner) == {("PUBLIC", "USAGE")}
    for kind in cast.names:
        with application(cast, kind, PATHS[0]) as connection:
            for statement in (
                "CREATE FUNCTION durable_notify_compat.lower(text) RETURNS text LANGUAGE sql AS 'SELECT 1'",
                "CREATE TABLE durable_notify_compat.t ()",
                "ALTER FUNCTION durable_notify_compat.pg_notify(text, text) RENAME TO gone",
                "DROP FUNCTION durable_notify_compat.pg_notify(text, text)",
                "ALTER SCHEMA durable_notify_compat RENAME TO gone",
                CREATE,
                DROP,
            ):
                with pytest.raises(errors.InsufficientPrivilege):
                    connection.execute(statement.encode())


def test_rights_that_are_left_would_be_noticed(owner: Session, cast: Roles) -> None:
    plant(
        owner,
        "create_compat",
        ("'REVOKE ALL ON SCHEMA durable_notify_compat FROM %s'", "'SELECT %L'"),
    )
    with pytest.raises(AssertionError):
        test_only_the_owner_can_create_in_it(owner, cast)


def test_a_schema_of_another_owner(owner: Session, cast: Roles) -> None:
    """What is in it would be called in place of what others mean."""
    name = cast.names["stranger"]
    owner.run(f"CREATE SCHEMA durable_notify_compat AUTHORIZATION {name}")
    with pytest.raises(errors.InvalidParameterValue, match=f"exists and belongs to {name}"):
        owner.run(CREATE)
    assert owner.value("SELECT to_regproc('durable_notify_compat.pg_notify')") is None


def test_it_belongs_to_the_owner_of_our_schema(empty_dsn: str, cast: Roles) -> None:
    """Created by the owner or by a superuser: the owner can remove it."""
    name = cast.names["stranger"]
    with psycopg.connect(empty_dsn, autocommit=True) as admin:
        database = sql.Identifier(admin.info.dbname)
        admin.execute(
            sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, sql.Identifier(name))
        )
        dsn = psycopg.conninfo.make_conninfo(empty_dsn, options=f"-c role={name}")
        schema.migrate(dsn)
        admin.execute(CREATE)
        with psycopg.connect(dsn, autocommit=True) as theirs:
            theirs.execute(CREATE)
            assert theirs.execute(DROP).fetchone() == (True,)
            theirs.execute(CREATE)
        admin.execute(DROP)
        schema.downgrade(dsn, "base")


# Undone


def test_made_and_removed_again(owner: Session) -> None:
    assert owner.value(DROP) is False
    for _ in range(2):
        owner.run(CREATE)
        owner.run(CREATE)
        assert owner.value(DROP) is True
        assert owner.value("SELECT to_regnamespace('durable_notify_compat')") is None
    owner.run(CREATE)
    owner.run("CREATE TABLE durable_notify_compat.kept ()")
    with pytest.raises(errors.DependentObjectsStillExist):
        owner.run(DROP)
    assert owner.value("SELECT to_regproc('durable_notify_compat.pg_notify')") is not None


def test_made_and_removed_under_load(owner: Session, legacy: Listener, cast: Roles) -> None:
    """LISTEN hears everything, once, in order, all the time; while it is there, all is durable."""
    with application(cast, path=PATHS[1]):
        pass
    notify = "SELECT pg_notify('c', %s)"
    running = [Sender(name, lambda: application(cast), notify) for name in "ab"]
    due: list[str] = []
    for _ in range(4):
        each_continues(running)
        owner.run(CREATE)
        due += sent_during(running, lambda: each_continues(running))
        owner.run(DROP)
    each_continues(running)
    for one in running:
        one.stop()
    told = legacy.payloads()
    for one in running:
        mine = [payload for payload in told if payload.startswith(one.name)]
        assert mine == [f"{one.name} {n}" for n in range(1, one.sent + 1)]
        # Called as it was dropped: that is told, and the caller tries again.
        assert {error.sqlstate for error in one.failed} <= {"42883", "XX000", "3F000"}
        assert len(one.failed) <= 8
    published = owner.column(OUTBOX)
    assert set(due) <= set(published) <= set(told)
    assert len(published) == len(set(published)) < len(told)
