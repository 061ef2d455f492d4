"""Every finding of the doctor: the fault is made, and seen. A healthy database has none."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from durable_notify import Admin, schema
from durable_notify.diagnostics import doctor
from durable_notify.diagnostics.checks import CHECKS, FIRST
from durable_notify.diagnostics.checks import server as server_checks
from durable_notify.diagnostics.context import CheckContext
from durable_notify.diagnostics.doctor import Finding, Thresholds, diagnose
from durable_notify.diagnostics.findings import KINDS
from durable_notify.embedded import Server
from tests.support.cli import run
from tests.support.clusters import freeze, thaw
from tests.support.pgbouncer import pgbouncer
from tests.support.postgres import Postgres, needed_binaries, own_server
from tests.support.roles import roles
from tests.support.wait import eventually

Connection = psycopg.Connection[tuple[Any, ...]]

#: What the tests' own server has: it need not survive the machine.
OURS = {"fsync-off", "full-page-writes-off"}


def findings(dsn: str, listen_dsn: str | None = None, **limits: Any) -> dict[str, Finding]:
    """What is not well, by name."""
    found = diagnose(dsn, listen_dsn, thresholds=Thresholds(**limits))
    return {f.name: f for f in found if f.level != "ok" and f.name not in OURS}


def subscribe(conn: Connection) -> None:
    conn.execute("SELECT durable_notify.subscribe('g', ARRAY['t'])")


def one(name: str, dsn: str, listen_dsn: str | None = None, **limits: Any) -> Finding:
    """The only finding."""
    found = findings(dsn, listen_dsn, **limits)
    assert set(found) == {name}
    finding = found[name]
    assert finding.level == KINDS[name].level
    assert finding.why
    assert not re.search(r"[{}]", finding.remedy)
    return finding


@pytest.fixture(scope="module")
def healthy() -> Iterator[Server]:
    """A server with settings as they should be; each test takes back what it has set."""
    bindir = needed_binaries()
    with own_server(bindir, {"max_connections": "30", "max_prepared_transactions": "5"}) as server:
        schema.migrate(server.dsn())
        yield server


@pytest.fixture
def setting(healthy: Server) -> Iterator[Callable[[str, str], None]]:
    """Set something in the server's configuration, for a test."""
    with psycopg.connect(healthy.dsn(), autocommit=True) as conn:

        def change(name: str, value: str) -> None:
            conn.execute(f"ALTER SYSTEM SET {name} = {value}".encode())
            conn.execute("SELECT pg_reload_conf()")
            query = "SELECT setting FROM pg_settings WHERE name = %s"
            eventually(lambda: conn.execute(query, [name]).fetchone() == (value,))

        yield change
        conn.execute("ALTER SYSTEM RESET ALL")
        conn.execute("SELECT pg_reload_conf()")


def test_a_healthy_database(healthy: Server) -> None:
    found = diagnose(healthy.dsn())
    assert [f.name for f in found] == list(FIRST | CHECKS), found
    assert {f.level for f in found} == {"ok"}


# connecting


def test_no_connection() -> None:
    finding = one("no-connection", "postgresql://user:verysecret@127.0.0.1:1/x")
    assert "verysecret" not in repr(finding)


def test_a_server_that_does_not_answer(private_server: Server) -> None:
    freeze(private_server)
    try:
        one("no-connection", make_conninfo(private_server.dsn(), connect_timeout=2))
    finally:
        thaw(private_server)


def plant(
    monkeypatch: pytest.MonkeyPatch, check: Callable[[CheckContext], Iterator[Finding]]
) -> None:
    monkeypatch.setitem(CHECKS, "log", (check, "well"))


def test_the_connection_is_lost(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def lose(context: CheckContext) -> Iterator[Finding]:
        context.rows("SELECT pg_terminate_backend(pg_backend_pid())")
        yield from ()

    plant(monkeypatch, lose)
    one("connection-lost", dsn)


def test_the_server_hangs_meanwhile(
    private_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(context: CheckContext) -> Iterator[Finding]:
        freeze(private_server)
        context.rows("SELECT")
        yield from ()

    schema.migrate(private_server.dsn())
    plant(monkeypatch, hang)
    monkeypatch.setattr(doctor, "GRACE", 0.3)
    try:
        one("connection-lost", private_server.dsn(), statement=0.2)
    finally:
        thaw(private_server)


def test_what_is_locked_is_not_waited_for(dsn: str, conn: Connection) -> None:
    with conn.transaction():
        conn.execute("LOCK TABLE durable_notify.consumer_group IN ACCESS EXCLUSIVE MODE")
        finding = one("check-too-slow", dsn, statement=0.1)
    assert set(finding.data["checks"]) == {
        "strict",
        "clock-back",
        "groups",
        "patterns",
        "paused",
        "dead-letters",
        "handlers",
        "unsettled",
    }


def test_a_schema_changed_by_hand(dsn: str, conn: Connection) -> None:
    conn.execute("ALTER TABLE durable_notify.cluster_identity RENAME TO anchored")
    assert one("check-failed", dsn).data["check"] == "cluster"


@pytest.mark.parametrize("limits", [{"newest": 13}, {"oldest": 99}])
def test_server_version(dsn: str, limits: dict[str, int]) -> None:
    one("server-version", dsn, **limits)


def test_standby(private_server: Server) -> None:
    private_server.stop()
    (private_server.data / "standby.signal").touch()
    private_server.start()
    one("standby", private_server.dsn())


def test_read_only(dsn: str) -> None:
    one("read-only", make_conninfo(dsn, options="-c default_transaction_read_only=on"))


# the schema


def test_schema_missing(empty_dsn: str) -> None:
    one("schema-missing", empty_dsn)


@pytest.mark.parametrize(
    ("version", "name"), [("0000", "schema-too-old"), ("9999", "schema-too-new")]
)
def test_schema_version(dsn: str, conn: Connection, version: str, name: str) -> None:
    conn.execute("UPDATE durable_notify.schema_version SET version_num = %s", [version])
    conn.execute(
        "CREATE OR REPLACE FUNCTION durable_notify.min_client_version() RETURNS text LANGUAGE sql AS $$ SELECT '9999' $$"
    )
    one(name, dsn)


def test_roles(dsn: str) -> None:
    with roles(dsn) as made:
        assert one("no-rights", made.login("stranger")).data["role"] == made.names["stranger"]
        for kind, action in (
            ("publisher", "publish"),
            ("consumer", "consume"),
            ("observer", "observe"),
        ):
            found = diagnose(made.login(kind))
            said = {f.name: f for f in found}
            assert action in said["rights"].data["allowed"]
            names = {f.name for f in found if f.level != "ok"} - OURS
            assert names == {"not-looked-at"}, (kind, names)
            unseen = set(said["not-looked-at"].data["checks"])
            assert unseen >= {"cluster", "transactions", "stuck"}
            assert ("groups" in unseen) is (kind == "publisher")


LOG_FAULTS = {
    "ALTER SEQUENCE durable_notify.outbox_id_seq CACHE 10": "id-cache",
    "ALTER TABLE durable_notify.outbox ADD COLUMN mine int": "id-not-last",
    "ALTER TABLE durable_notify.outbox ALTER COLUMN id SET GENERATED BY DEFAULT": "id-not-always",
    "ALTER TABLE durable_notify.outbox ENABLE TRIGGER outbox_after_insert": "trigger-not-always",
    "ALTER TABLE durable_notify.outbox DISABLE TRIGGER outbox_after_insert": "trigger-not-always",
    "DROP TRIGGER outbox_after_insert ON durable_notify.outbox": "trigger-not-always",
    "ALTER TABLE durable_notify.outbox_1 DISABLE TRIGGER outbox_after_insert": "trigger-not-always",
    "ALTER TABLE durable_notify.outbox_default ENABLE TRIGGER outbox_after_insert": "trigger-not-always",
    "DROP INDEX durable_notify.outbox_topic_xid_id": "index-invalid",
    "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'durable_notify.outbox_pkey'::regclass": "index-invalid",
    "ALTER TABLE durable_notify.lease SET UNLOGGED": "unlogged",
    "UPDATE durable_notify.cluster_identity SET xid = '3'": "restored-elsewhere",
}  # fmt: skip


@pytest.mark.parametrize("fault", LOG_FAULTS, ids=range(len(LOG_FAULTS)))
def test_log_built_properly(dsn: str, conn: Connection, fault: str) -> None:
    conn.execute(fault.encode())
    one(LOG_FAULTS[fault], dsn)


def test_what_is_to_be_run_puts_it_right(dsn: str, conn: Connection) -> None:
    altered = [fault for fault in LOG_FAULTS if fault.startswith(("ALTER SEQUENCE", "ALTER TABLE"))]
    assert altered
    for fault in altered:
        conn.execute(fault.encode())
        (statement,) = re.findall(r"ALTER [^;]*(?:;|$)", one(LOG_FAULTS[fault], dsn).remedy)
        conn.execute(statement.encode())
        assert not findings(dsn), fault


# listening


@pytest.mark.server
def test_a_pooler_and_a_deaf_listener(dsn: str) -> None:
    with pgbouncer(dsn) as pooled:
        assert set(findings(pooled, hearing=0.3)) == {"pooler", "listener-deaf"}
        one("pooler", pooled, dsn)


def test_no_connection_to_listen_on(dsn: str) -> None:
    one("listener-no-connection", dsn, "postgresql://postgres@127.0.0.1:1/x")


def test_listening_elsewhere(dsn: str, server: Postgres) -> None:
    with server.database() as other:
        one("listener-elsewhere", dsn, server.dsn(other))


def fill(conn: Connection, count: int) -> None:
    query = "SELECT pg_notify('c', repeat('x', 7900) || i) FROM generate_series(1, %s) i"
    conn.execute(query, [count])


def test_the_queue_is_crowded(healthy: Server) -> None:
    with psycopg.connect(healthy.dsn(), autocommit=True) as conn:
        assert "queue-crowded" not in findings(healthy.dsn(), queue=0)
        with psycopg.connect(healthy.dsn(), autocommit=True) as listener:
            listener.execute("LISTEN c")
            with listener.transaction():
                listener.execute("SELECT")
                fill(conn, 5)
                finding = one("queue-crowded", healthy.dsn(), queue=0)
                assert finding.data["pid"] == listener.info.backend_pid


def test_a_listener_is_stuck(dsn: str, conn: Connection) -> None:
    with psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute("LISTEN c")
        pid = listener.info.backend_pid
        fill(conn, 500)

        def stuck() -> bool:
            query = "SELECT wait_event FROM pg_stat_activity WHERE pid = %s"
            return conn.execute(query, [pid]).fetchone() == ("ClientWrite",)

        eventually(stuck)
        assert one("listener-stuck", dsn).data["pid"] == pid


# other sessions


def test_a_long_transaction(dsn: str, conn: Connection) -> None:
    with psycopg.connect(dsn, application_name="report") as other:
        other.execute("SELECT")
        assert not findings(dsn, transaction=0)  # it holds nothing back
        other.rollback()
        other.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        other.execute("SELECT 'a report'")
        finding = one("long-transaction", dsn, transaction=0)
        assert finding.data["pid"] == other.info.backend_pid
        assert finding.data["publishes"] is False
        for word in (str(other.info.backend_pid), other.info.dbname, "report", "SELECT 'a report'"):
            assert word in finding.what
        assert not findings(dsn)
        other.execute("SELECT durable_notify.publish('t', '1')")
        assert one("long-transaction", dsn, transaction=0).data["publishes"] is True


def test_who_a_strict_group_waits_for(dsn: str, conn: Connection) -> None:
    subscribe(conn)
    Admin().configure(conn, "g", order_by="strict")
    with psycopg.connect(dsn) as other:
        other.execute("SELECT durable_notify.publish('t', '1')")
        found = findings(dsn, transaction=0)
        assert set(found) == {"long-transaction", "strict-group-waits"}
        finding = found["strict-group-waits"]
        assert (finding.data["group"], finding.data["pid"]) == ("g", other.info.backend_pid)
        assert not findings(dsn)


def test_a_prepared_transaction(healthy: Server) -> None:
    with psycopg.connect(healthy.dsn(), autocommit=True) as conn:
        conn.execute("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'forgotten'")
        try:
            finding = one("prepared-transaction", healthy.dsn(), transaction=0)
        finally:
            conn.execute("ROLLBACK PREPARED 'forgotten'")
        assert "ROLLBACK PREPARED 'forgotten';" in finding.remedy


def test_a_slot_without_a_reader(healthy: Server) -> None:
    with psycopg.connect(healthy.dsn(), autocommit=True) as conn:
        conn.execute("SELECT pg_create_physical_replication_slot('away', true)")
        try:
            assert one("slot-unused", healthy.dsn()).data["slot"] == "away"
        finally:
            conn.execute("SELECT pg_drop_replication_slot('away')")


def test_connections_are_nearly_used(healthy: Server) -> None:
    with ExitStack() as stack:
        for _ in range(25):
            stack.enter_context(psycopg.connect(healthy.dsn()))
        one("connections-nearly-used", healthy.dsn())


# the server


@pytest.mark.parametrize("name", ["fsync", "full_page_writes"])
def test_durability(healthy: Server, setting: Callable[[str, str], None], name: str) -> None:
    setting(name, "off")
    kind = f"{name.replace('_', '-')}-off"
    assert kind in OURS  # "fsync-off", "full-page-writes-off"
    assert {f.name for f in diagnose(healthy.dsn()) if f.level != "ok"} == {kind}


def test_synchronous_commit(dsn: str, conn: Connection) -> None:
    off = make_conninfo(dsn, options="-c synchronous_commit=off")
    assert one("synchronous-commit-off", off).data["where"] == "this session"
    name = conn.info.dbname
    conn.execute(f"ALTER DATABASE {name} SET synchronous_commit = off".encode())
    assert f"database {name}" in one("synchronous-commit-off", dsn).data["where"]


@pytest.mark.parametrize("name", ["autovacuum", "track_counts"])
def test_autovacuum(healthy: Server, setting: Callable[[str, str], None], name: str) -> None:
    setting(name, "off")
    assert one("autovacuum-off", healthy.dsn()).data["setting"] == name


def test_autovacuum_of_a_table(dsn: str, conn: Connection) -> None:
    conn.execute("ALTER TABLE durable_notify.position SET (autovacuum_enabled = false)")
    finding = one("autovacuum-off-table", dsn)
    conn.execute(finding.remedy.encode())
    assert not findings(dsn)


def test_dead_rows(dsn: str, conn: Connection) -> None:
    subscribe(conn)
    with psycopg.connect(dsn) as other:  # at its end it tells what it has done
        other.execute("""
            INSERT INTO durable_notify.group_pattern
            SELECT g.id, 'x' || i FROM durable_notify.consumer_group g, generate_series(1, 200) i""")
        other.execute("DELETE FROM durable_notify.group_pattern")
    eventually(lambda: "dead-rows" in findings(dsn, dead_rows=100))
    assert one("dead-rows", dsn, dead_rows=100).data["table"] == "durable_notify.group_pattern"
    assert not findings(dsn)


@pytest.mark.parametrize("seconds", [-60, 60])
def test_clocks_differ(dsn: str, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    real = server_checks.time.time
    monkeypatch.setattr(server_checks, "time", SimpleNamespace(time=lambda: real() + seconds))
    assert round(one("clocks-differ", dsn).data["seconds"]) == -seconds


@pytest.mark.parametrize("fault", [
    "INSERT INTO durable_notify.outbox (topic, payload, created_at) VALUES ('t', '1', now() + interval '1 hour')",
    "UPDATE durable_notify.consumer_group SET created_at = now() + interval '1 hour'",
    "INSERT INTO durable_notify.lease (subscription_id, claimed_at, deadline, ids, attempts, order_by) VALUES (1, now() + interval '1 hour', now(), '{}', '{}', 'key')",
])  # fmt: skip
def test_the_clock_went_back(dsn: str, conn: Connection, fault: str) -> None:
    subscribe(conn)
    assert not findings(dsn)
    conn.execute(fault.encode())
    assert round(one("clock-went-back", dsn).data["seconds"] / 3600) == 1


# all of them


def test_every_finding_has_a_test() -> None:
    folder = Path(__file__).parent
    tests = [*folder.glob("test_doctor*.py"), folder.parent / "sql/groups/test_unsubscribe.py"]
    text = "".join(test.read_text(encoding="utf-8") for test in tests)
    assert [name for name in KINDS if f'"{name}"' not in text] == []


def test_command(dsn: str, conn: Connection, healthy: Server) -> None:
    done = run("doctor", dsn=healthy.dsn())
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(
        r"^ok +listening: a wake-up from another connection arrives$", done.stdout, re.MULTILINE
    )
    done = run("doctor", "--json", dsn=healthy.dsn())
    assert {finding["level"] for finding in json.loads(done.stdout)} == {"ok"}
    conn.execute("ALTER SEQUENCE durable_notify.outbox_id_seq CACHE 10")
    done = run("doctor", dsn=dsn)
    assert done.returncode == 1
    assert re.search(
        r"^error +id-cache: .*\n +Sessions that .*\n +ALTER SEQUENCE ", done.stdout, re.MULTILINE
    )
    done = run("doctor", "--json", dsn="postgresql://x@127.0.0.1:1/x")
    assert (done.returncode, json.loads(done.stdout)[0]["name"]) == (1, "no-connection")
    assert run("doctor", "--listen-dsn", "nonsense", dsn=dsn).returncode == 2
