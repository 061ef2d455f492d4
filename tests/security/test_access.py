"""Granting and revoking, memberships, roles that are gone, and rights that are not the caller's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import durable_notify as dn
from durable_notify import schema
from durable_notify.cli import cli
from durable_notify.cli import errors as problems
from tests.support.cli import own_log
from tests.support.roles import PASSWORD, Roles, allowed, everything, refused, roles

Connection = psycopg.Connection[Any]
PUBLISH = "SELECT durable_notify.publish(%s, '1')"


@pytest.fixture
def made(dsn: str) -> Iterator[Roles]:
    """No roles yet; those that a test makes are dropped."""
    with roles(dsn, {}) as none:
        yield none


class Here:
    """Runs durable-notify in this process: it starts sooner."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def run(self, *arguments: str, dsn: str) -> tuple[int, str, str]:
        """Its status, and what it printed."""
        self._capfd.readouterr()
        status = problems.status_of(
            lambda: cli.main([*arguments, "--dsn", dsn], "durable-notify", standalone_mode=False)
        )
        return status, *self._capfd.readouterr()

    def good(self, *arguments: str, dsn: str) -> str:
        status, out, err = self.run(*arguments, dsn=dsn)
        assert status == 0, (arguments, err)
        return out


@pytest.fixture
def here(capfd: pytest.CaptureFixture[str]) -> Iterator[Here]:
    with own_log():
        yield Here(capfd)


def session(made: Roles, kind: str) -> Connection:
    return psycopg.connect(made.login(kind), autocommit=True)


NOT_GRANTED: list[tuple[Any, str]] = [
    (("no_role_of_this_name", "publish", ["t"], None), "there is no role"),
    (("{}", "dance", ["t"], None), "publish, consume, read, observe, insert or maintain"),
    (("{}", None, ["t"], None), "publish, consume, read, observe, insert or maintain"),
    (("{}", "consume", ["t"], None), "consume needs a group"),
    (("{}", "publish", ["t"], "g"), "consume needs a group"),
    (("{}", "consume", None, "g"), "consume and read need topics"),
    (("{}", "publish", [], None), "consume and read need topics"),
    (("{}", "observe", ["t"], None), "consume and read need topics"),
    (("{}", "insert", ["t"], None), "consume and read need topics"),
    (("{}", "maintain", ["t"], None), "consume and read need topics"),
    (("{}", "publish", ["t", None], None), "invalid topic or pattern"),
    (("{}", "publish", ["ok", "a b"], None), "invalid topic or pattern"),
    (("{}", "publish", ["a.>.b"], None), "invalid topic or pattern"),
    (("{}", "publish", ["a*"], None), "invalid topic or pattern"),
    (("{}", "publish", [""], None), "invalid topic or pattern"),
    (("{}", "publish", ["x" * 256], None), "invalid topic or pattern"),
    (("{}", "consume", ["t"], "a\nb"), "a group's name"),
    (("{}", "consume", ["t"], ""), "a group's name"),
]


def test_what_cannot_be_granted(conn: Connection, made: Roles) -> None:
    name = made.make("role")
    before = everything(conn)
    query = "SELECT durable_notify.grant_access(%s, %s, %s, %s)"
    for (role, *rest), says in NOT_GRANTED:
        with pytest.raises(psycopg.errors.InvalidParameterValue, match=says):
            conn.execute(query, [role.format(name), *rest])
    assert everything(conn) == before
    with session(made, "role") as own:
        refused(own, PUBLISH, "t")


COVERED = [
    ("a.b", "a.b", True), ("a.b", "a.c", False), ("a.*", "a.b", True), ("a.*", "a.*", True),
    ("a.*", "a.>", False), ("a.*", "a.b.c", False), ("a.*", "*", False), ("a.*", ">", False),
    ("a.>", "a.b", True), ("a.>", "a.b.c", True), ("a.>", "a.*.c", True), ("a.>", "a.b.>", True),
    ("a.>", "a.>", True), ("a.>", "a", False), ("a.>", "*.b", False), ("a.>", ">", False),
    (">", ">", True), (">", "a.*", True), (">", "x", True), ("*", ">", False), ("*", "*", True),
    ("*.*", "a.>", False), ("a.*.>", "a.>", False), ("a.*.>", "a.b.>", True), ("a", "A", False),
    ("a.b", "axb", False), ("a+", "aa", False), ("a.*", "a.", False),
]  # fmt: skip


def test_which_patterns_a_grant_covers(conn: Connection, made: Roles) -> None:
    name = made.make("role")
    subscribe = "SELECT durable_notify.subscribe('g', ARRAY[%s])"
    with session(made, "role") as own:
        for granted, asked, covered in COVERED:
            dn.Admin().revoke(conn, name)
            dn.Admin().grant(conn, name, "consume", [granted], group="g")
            (allowed if covered else refused)(own, subscribe, asked)


def test_revoked(conn: Connection, made: Roles) -> None:
    name = made.make(
        "role", ("publish", ["a", "b.*"], None), ("consume", ["a"], "g"), ("insert", None, None)
    )
    insert = "INSERT INTO durable_notify.outbox (topic, payload) VALUES ('z', '1')"
    claim = "SELECT durable_notify.subscribe('g', '{a}')"
    with session(made, "role") as own:
        allowed(own, PUBLISH, "a")
        allowed(own, insert)
        admin = dn.Admin()
        assert admin.revoke(conn, name, "publish", ["a"]) == 1
        refused(own, PUBLISH, "a")
        allowed(own, PUBLISH, "b.c")
        assert admin.revoke(conn, name, "insert") == 1
        refused(own, insert)
        allowed(own, claim)
        assert admin.revoke(conn, name, group="g") == 1
        refused(own, claim)
        assert [(g.role, g.action, g.pattern) for g in admin.grants(conn)] == [
            (name, "publish", "b.*")
        ]
        assert admin.revoke(conn, name) == 1
        refused(own, PUBLISH, "b.c")
        refused(own, "SELECT * FROM durable_notify.schema_version")
        assert admin.grants(conn) == []
        assert admin.revoke(conn, name) == 0
    with pytest.raises(dn.InvalidArgument, match="there is no role"):
        dn.Admin().revoke(conn, "no_role_of_this_name")
    # Nothing is left that would keep it from being dropped.
    conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_only_the_owner_grants(conn: Connection, made: Roles) -> None:
    name = made.make("role", ("observe", None, None), ("consume", [">"], "g"))
    with session(made, "role") as own:
        refused(own, "SELECT durable_notify.grant_access(%s, 'publish', '{>}')", name)
        refused(own, "SELECT durable_notify.revoke_access(%s)", name)
        refused(own, "SELECT durable_notify._apply_grants(%s::regrole)", name)
        refused(
            own,
            "INSERT INTO durable_notify.access (role, action) VALUES (%s::regrole, 'insert')",
            name,
        )
        refused(own, "SELECT durable_notify.rename_group('g', 'h')")
        refused(own, "SELECT durable_notify.delete_group('g')")
        refused(own, "SELECT durable_notify.set_notify_policy('t', 'never')")


def test_members(conn: Connection, made: Roles) -> None:
    """A member of a granted role may what that may, unless it is to SET ROLE first."""
    group = made.make("group", ("publish", ["t"], None))
    inherits, must_set = made.make("inherits"), made.make("must_set")
    conn.execute(
        f"GRANT {group} TO {inherits}, {must_set}; ALTER ROLE {must_set} NOINHERIT".encode()
    )
    if conn.info.server_version >= 160000:
        conn.execute(f"GRANT {group} TO {must_set} WITH INHERIT FALSE".encode())
    with session(made, "inherits") as own:
        allowed(own, PUBLISH, "t")
        refused(own, PUBLISH, "u")
    with session(made, "must_set") as own:
        refused(own, PUBLISH, "t")
        own.execute(f"SET ROLE {group}".encode())
        allowed(own, PUBLISH, "t")
        refused(own, PUBLISH, "u")
        own.execute("RESET ROLE")
        refused(own, PUBLISH, "t")
    # As the role that was set, whatever the session could do besides.
    conn.execute(f"SET ROLE {inherits}".encode())
    allowed(conn, PUBLISH, "t")
    refused(conn, PUBLISH, "u")
    conn.execute("RESET ROLE")
    allowed(conn, PUBLISH, "u")


def test_a_role_that_is_recreated(conn: Connection, made: Roles) -> None:
    """It has nothing of what one of its name was granted, even where it is granted something."""
    name = made.make("role", ("publish", ["t"], None), ("consume", ["t"], "g"))
    conn.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())
    conn.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), PASSWORD))
    with session(made, "role") as own:
        refused(own, PUBLISH, "t")
        dn.Admin().grant(conn, name, "publish", ["u"])
        refused(own, PUBLISH, "t")
        allowed(own, PUBLISH, "u")
        dn.Admin().grant(conn, name, "consume", ["u"], group="other")
        refused(own, "SELECT durable_notify.subscribe('g', '{t}')")
    assert {grant.pattern for grant in dn.Admin().grants(conn)} == {"u"}


def test_a_renamed_group_keeps_its_consumers(conn: Connection, made: Roles) -> None:
    made.make("role", ("consume", ["t"], "g"))
    conn.execute("SELECT durable_notify.subscribe('g', '{t}')")
    dn.Admin().rename_group(conn, "g", "h")
    with session(made, "role") as own:
        allowed(own, "SELECT durable_notify.claim('h', '{t}')")
        refused(own, "SELECT durable_notify.claim('g', '{t}')")


def test_the_audit_says_whose_rights_counted(conn: Connection, made: Roles) -> None:
    name = made.make("role", ("consume", ["t"], "g"))
    conn.execute("SELECT durable_notify.subscribe('g', '{t}'), durable_notify.pause('g')")
    with session(made, "role") as own:
        dn.Admin().resume(own, "g")
    conn.execute(f"SET ROLE {name}".encode())
    dn.Admin().pause(conn, "g")
    conn.execute("RESET ROLE")
    by_role, by_set_role, by_owner = (
        (entry.action, entry.who, entry.acting_as)
        for entry in sorted(dn.Admin().audit(conn), key=lambda e: (e.action, e.acting_as == e.who))
    )
    (owner,) = conn.execute("SELECT current_user::text").fetchone() or ("",)
    assert {by_role, by_set_role, by_owner} == {
        ("resume", name, name), ("pause", owner, name), ("pause", owner, owner),
    }  # fmt: skip


def test_acknowledging_at_each_isolation_level(conn: Connection, made: Roles) -> None:
    """Two handlers at once, each in a transaction of its own; the look at the lease disturbs neither."""
    made.make("role", ("consume", ["t"], "g"), ("publish", ["t"], None))
    with session(made, "role") as one, session(made, "role") as two:
        one.execute("SELECT durable_notify.subscribe('g', '{t}')")
        for isolation in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
            for _ in range(2):
                one.execute(PUBLISH.encode(), ["t"])
            claim = "SELECT token, id FROM durable_notify.claim('g', '{t}', 1)"
            leases = [one.execute(claim.encode()).fetchone() for _ in range(2)]
            for own, lease in zip((one, two), leases, strict=True):
                own.execute(f"BEGIN ISOLATION LEVEL {isolation}".encode())
                assert lease is not None
                own.execute("SELECT durable_notify.settle(%s, ARRAY[%s::bigint])", lease)
            one.execute("COMMIT")
            two.execute("COMMIT")
    assert conn.execute("SELECT count(*) FROM durable_notify.lease").fetchall() == [(0,)]


def test_an_owner_that_is_no_superuser(empty_dsn: str, here: Here) -> None:
    """It may do everything, and grants; no step needs a superuser."""
    with roles(empty_dsn, {}) as made, psycopg.connect(empty_dsn, autocommit=True) as conn:
        owner, consumer = made.make("owner"), made.make("consumer")
        conn.execute(f"GRANT CREATE ON DATABASE {conn.info.dbname} TO {owner}".encode())
        schema.migrate(made.login("owner"))
        dsn = make_conninfo(made.login("owner"))
        for command in (
            ("publish", "t", "1"), ("consume", "t", "--group", "g", "--until-empty"), ("status",),
            ("read", "t", "--until-empty"), ("replay", "--group", "g", "--topic", "t", "--after", "0"),
            ("group", "list"), ("dead-letters",), ("audit",), ("grants",), ("wakeups", "t", "always"),
            ("grant", consumer, "--consume", "t", "--group", "g", "--publish", "u"),
        ):  # fmt: skip
            here.good(*command, dsn=dsn)
        theirs = made.login("consumer")
        assert '"payload": 1' in here.good(
            "consume", "t", "--group", "g", "--until-empty", dsn=theirs
        )
        here.good("publish", "u", "2", dsn=theirs)
        with psycopg.connect(theirs, autocommit=True) as own:
            refused(own, PUBLISH, "t")
        conn.execute(f"DROP SCHEMA durable_notify CASCADE; DROP OWNED BY {owner}".encode())


# Rights that are not the caller's own: PostgreSQL runs some code as its author, in others' sessions.


@pytest.fixture
def author(conn: Connection, made: Roles) -> str:
    """A role with a publish grant, a consume grant, and a schema of its own."""
    name = made.make("author", ("publish", ["t"], None), ("consume", ["t"], "g"))
    conn.execute(f"CREATE SCHEMA AUTHORIZATION {name}".encode())
    conn.execute("SELECT durable_notify.subscribe('h', '{t}')")
    conn.execute(PUBLISH.encode(), ["t"])
    return name


ATTEMPTS = (
    "durable_notify.publish('u', '1')",
    "durable_notify._publish_granted('u', '1', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "(SELECT count(*) FROM durable_notify.claim('h', '{t}'))",
    "(SELECT count(*) FROM durable_notify._claim_granted('h', '{t}', 1, '1 s', NULL, NULL, false))",
)


def test_a_view_that_a_superuser_refreshes(conn: Connection, made: Roles, author: str) -> None:
    made.make("stranger", ("publish", ["u"], None), ("consume", ["t"], "h"))
    before = everything(conn)
    with session(made, "author") as own:
        for number, attempt in enumerate(ATTEMPTS):
            view = f"{author}.trap{number}"
            query = f"CREATE MATERIALIZED VIEW {view} AS SELECT {attempt} AS n WITH NO DATA"
            own.execute(query.encode())
            refused(conn, f"REFRESH MATERIALIZED VIEW {view}")
    assert everything(conn) == before


def indexed(own: Connection, author: str, attempt: str) -> None:
    """A table whose indexed expression calls something; in its author's own session it does not."""
    own.execute(
        f"""
        CREATE FUNCTION {author}.trap(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
        BEGIN
            IF session_user <> '{author}' THEN
                PERFORM {attempt};
            END IF;
            RETURN n;
        END $$;
        CREATE TABLE {author}.bait AS SELECT n FROM generate_series(1, 100) n;
        CREATE INDEX ON {author}.bait ({author}.trap(n));""".encode()
    )


def test_an_expression_that_a_superuser_analyses(
    conn: Connection, made: Roles, author: str
) -> None:
    """As autovacuum does by itself."""
    made.make("stranger", ("publish", ["u"], None), ("consume", ["t"], "h"))
    before = everything(conn)
    with session(made, "author") as own:
        for attempt in ATTEMPTS:
            indexed(own, author, attempt)
            refused(conn, f"ANALYZE {author}.bait")
            own.execute(f"DROP TABLE {author}.bait; DROP FUNCTION {author}.trap".encode())
    assert everything(conn) == before


def test_counting_the_superuser_in_is_caught(conn: Connection, made: Roles, author: str) -> None:
    (definition,) = conn.execute(
        "SELECT pg_get_functiondef('durable_notify._has_grant'::regproc)"
    ).fetchone() or ("",)
    planted, changes = re.subn(r"NOT pg_catalog.has_table_privilege\([^)]*\)", "true", definition)
    assert changes == 1
    conn.execute(planted.encode())
    made.make("stranger", ("publish", ["u"], None))  # a superuser counts as a member of any role
    with session(made, "author") as own:
        indexed(own, author, ATTEMPTS[0])
    allowed(conn, f"ANALYZE {author}.bait")  # what must not be


# On the command line


def test_command_line(dsn: str, conn: Connection, made: Roles, here: Here) -> None:
    name = made.make("role")
    theirs = made.login("role")
    for command, wanted in (
        (("publish", "orders.eu", "1"), ("--publish", "orders.*")),
        (("consume", "orders.eu", "--group", "g", "--until-empty"), ("--consume", "orders.*", "--group", "g")),
        (("read", "orders.*", "--until-empty"), ("--read", "orders.*")),
        (("group", "list"), ()),
        (("dead-letters", "--group", "g"), ()),
        (("audit",), ()),
        (("replay", "--group", "g", "--topic", "orders.eu", "--after", "0"), ()),
        (("seek", "--group", "g", "--topic", "orders.eu", "--now", "--yes"), ()),
        (("replay-job", "start", "--group", "g", "--topic", "orders.eu"), ()),
        (("replay-job", "list"), ()),
        (("group", "configure", "g", "--max-attempts", "3"), ()),
        (("group", "pause", "g"), ()),
        (("status",), ()),
    ):  # fmt: skip
        if wanted:
            status, _, err = here.run(*command, dsn=theirs)
            assert (status, "permission denied" in err) == (1, True)
            assert f"durable-notify grant {name} {wanted[0]}" in err
            here.good("grant", name, *wanted, dsn=dsn)
        here.good(*command, dsn=theirs)
    for command in (
        ("publish", "payments", "1"), ("read", "payments", "--until-empty"),
        ("consume", "payments", "--group", "g"), ("consume", "orders.eu", "--group", "h"),
        ("group", "delete", "g", "--yes"), ("wakeups", "t", "never"), ("grants",),
        ("grant", name, "--observe"),
    ):  # fmt: skip
        status, _, err = here.run(*command, dsn=theirs)
        assert (status, "permission denied" in err) == (1, True), command
    assert here.good("grants", "--json", dsn=dsn).count(name) == 3
    assert "3 grants taken back" in here.good("revoke", name, "--all", dsn=dsn)
    assert here.run("publish", "orders.eu", "1", dsn=theirs)[0] == 1
    for wrong in (
        ("grant", name), ("grant", name, "--consume", "t"), ("revoke", name),
        ("grant", name, "--group", "g", "--publish", "t"), ("grant", name, "--publish", "a b"),
        ("grant", name + "x", "--observe"), ("revoke", name, "--all", "--observe"),
    ):  # fmt: skip
        assert here.run(*wrong, dsn=dsn)[0] == 2, wrong
    assert here.good("grants", "--json", dsn=dsn).strip() == "[]"
