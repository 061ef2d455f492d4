"""Operators, functions, types and tables of other owners, named as ours or as PostgreSQL's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.support.injection import plant
from tests.support.roles import Roles, allowed, refused, roles
from tests.support.sessions import Session

Connection = psycopg.Connection[Any]

#: One of each operator, and of each function whose name ours call: they say that they were called.
SHADOWS = """
DO $do$
DECLARE
    one record;
BEGIN
    FOR one IN
        SELECT o.oid, o.oprname AS name, o.oprleft::regtype AS l, o.oprright::regtype AS r, o.oprresult::regtype AS result
          FROM pg_operator o
         WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprcode <> 0
           AND NOT EXISTS (SELECT FROM pg_type t WHERE t.oid IN (o.oprleft, o.oprright, o.oprresult) AND t.typtype = 'p')
    LOOP
        EXECUTE format('CREATE FUNCTION %1$I.op%2$s(%3$s) RETURNS %4$s LANGUAGE plpgsql AS '
                       '$$ BEGIN RAISE EXCEPTION ''hijacked'' USING ERRCODE = ''XX999''; END $$',
                       current_schema, one.oid, concat_ws(', ', nullif(one.l::text, '-'), one.r), one.result);
        EXECUTE format('CREATE OPERATOR %I.%s (%s RIGHTARG = %s, FUNCTION = %1$I.op%5$s)',
                       current_schema, one.name, 'LEFTARG = ' || nullif(one.l::text, '-') || ',', one.r, one.oid);
    END LOOP;
    FOR one IN
        SELECT DISTINCT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments, p.prorettype::regtype AS result
          FROM pg_proc p
         WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND NOT p.proretset
           AND EXISTS (SELECT FROM pg_proc ours
                        WHERE ours.pronamespace = 'durable_notify'::regnamespace AND ours.prosrc LIKE '%' || p.proname || '(%')
           AND NOT EXISTS (SELECT FROM pg_type t
                            WHERE (t.oid = p.prorettype OR t.oid = ANY (p.proargtypes)) AND t.typtype = 'p')
    LOOP
        EXECUTE format('CREATE FUNCTION %I.%I(%s) RETURNS %s LANGUAGE plpgsql AS '
                       '$$ BEGIN RAISE EXCEPTION ''hijacked'' USING ERRCODE = ''XX999''; END $$',
                       current_schema, one.proname, one.arguments, one.result);
    END LOOP;
END $do$"""
#: What is not exact in PostgreSQL's own operators, which one that is would win against on any path.
EXACT = """
    CREATE FUNCTION hijack(interval, integer) RETURNS interval LANGUAGE plpgsql
        AS $$ BEGIN RAISE EXCEPTION 'hijacked' USING ERRCODE = 'XX999'; END $$;
    CREATE OPERATOR / (LEFTARG = interval, RIGHTARG = integer, FUNCTION = hijack);
    CREATE OPERATOR * (LEFTARG = interval, RIGHTARG = integer, FUNCTION = hijack);"""
TABLES = """
    CREATE TEMP TABLE outbox (topic text, payload jsonb); CREATE TEMP TABLE access (role regrole, action text);
    CREATE TEMP TABLE lease (token bigint); CREATE TEMP TABLE consumer_group (name text);
    CREATE FUNCTION pg_temp.require(text, text[], text, boolean) RETURNS void LANGUAGE sql AS '';
    CREATE FUNCTION pg_temp.granted(text, text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION pg_temp.caller() RETURNS name LANGUAGE sql AS $$ SELECT 'postgres'::name $$;"""

#: Everything that there is to do, by plain SQL; $1 stands for the lease's token, $2 for ids of it.
SCENARIO = """
    SELECT durable_notify.publish('orders.eu', '1', 'k')
    SELECT durable_notify.publish('orders.eu', '1', 'k', delay => '1 ms', ttl => '1 hour', dedup_key => 'd')
    SELECT durable_notify.publish('orders.eu', '1', 'k', dedup_key => 'd')
    SELECT durable_notify.publish_many('orders.eu', '{2,3,4}', '{a,b,c}')
    SELECT durable_notify.publish_many('orders.eu', '{2,3,4}', ttls => '{1 hour,1 hour,1 hour}')
    SELECT durable_notify.subscribe('g', '{orders.eu,orders.*}')
    SELECT durable_notify.discover('g', '{orders.*}')
    SELECT durable_notify.configure('g', '{"exclusive": true, "rate_limit": 1000, "max_in_flight": 1000}')
    SELECT durable_notify.arm('orders.eu'), durable_notify.armed('orders.eu'), durable_notify.disarm('orders.eu')
    SELECT durable_notify._arm_topics('{orders.eu}'), durable_notify.still_running(durable_notify.unnotified_transactions())
    SELECT token, array_agg(id ORDER BY id) FROM durable_notify.claim('g', '{orders.eu}', consumer => 'c') GROUP BY 1
    SELECT durable_notify.extend(ARRAY[$1::int8], '1 minute'), durable_notify.renew_active('g', 'c', '1 minute')
    SELECT durable_notify.next_due('g', '{orders.eu}', 'c')
    SELECT durable_notify.settle($1, acked => $2[1:1], rejected => $2[2:2], retried => $2[3:3])
    SELECT durable_notify.once('g', 1), durable_notify.unacknowledged('g', '{1,2}')
    SELECT durable_notify.release(ARRAY[$1::int8], true), durable_notify.resign_active('g', 'c')
    SELECT durable_notify.configure('g', '{"exclusive": false, "order_by": "strict"}')
    SELECT durable_notify.claim('g', '{orders.eu}', 1), durable_notify.blocking_publishers('g')
    SELECT durable_notify.configure('g', '{"order_by": "none", "on_expiry": "dead_letter"}')
    SELECT durable_notify.blocked_keys(), durable_notify.retries('g'), durable_notify.retry_counts(), durable_notify.retry_now('g', everything => true), durable_notify.drop_retries('g', key => 'k')
    SELECT durable_notify.dead_letters('g'), durable_notify.redrive('g', everything => true)
    SELECT durable_notify.discard('g', 'orders.eu', everything => true)
    SELECT durable_notify.start_replay('g', 'orders.eu', keys => '{k}', rate_limit => 10)
    SELECT durable_notify.advance_replays('g', '{orders.eu}'), durable_notify.replay_jobs()
    SELECT durable_notify.cancel_replay(1), durable_notify.seek('g', 'orders.eu', 1)
    SELECT durable_notify.seek('g', 'orders.eu', since => 'yesterday'), durable_notify.pause('g'), durable_notify.resume('g')
    SELECT durable_notify.status(), durable_notify.groups(), durable_notify.audit_entries('g'), durable_notify.unclaimed_topics()
    SELECT durable_notify.create_webhook('g', '{orders.eu,orders.*}', 'https://x', '{"timeout": 3, "filter": {"key": "k"}, "headers": {"a": "b"}, "header_prefix": "a-", "concurrency": 2, "pause_after": 1}', '{}', '{"max_attempts": 2}')
    SELECT durable_notify.change_webhook('g', '{"topics": ["orders.*"], "secrets": [], "url": "https://y", "timeout": null}'), durable_notify.rotate_webhook_secret('g')
    SELECT durable_notify.note_webhook('g', 'x'), durable_notify.note_webhook('g', 'x', true), durable_notify.note_webhook('g'), durable_notify.webhooks()
    SELECT durable_notify.delete_webhook('g')
    SELECT durable_notify.subscribe('g', '{orders.eu,orders.*}')
    SELECT durable_notify.read_from('orders.eu', 'since', 'yesterday'), durable_notify.latest('orders.eu')
    SELECT durable_notify.browse('orders.eu', path => '{a}', value => '1', for_key => 'k', for_headers => '{}'), durable_notify.message_states('orders.eu', 1)
    SELECT durable_notify.read('orders.eu', '3:3:', 0, NULL, NULL, 0), durable_notify.topics(), durable_notify.log_id(), durable_notify.last_removed('orders.eu')
    SELECT durable_notify.channel('orders.eu'), durable_notify.channel(durable_notify.channel('orders.eu.a.b.c.d.e.f.g.h.i.j.k.l.m.n'))
    SELECT durable_notify.notify_policy('orders.eu'), durable_notify.last_id('orders.eu')"""
BY_HAND = """
    INSERT INTO durable_notify.outbox (topic, key, payload) VALUES ('orders.eu', 'k', '1')
    SELECT durable_notify.set_notify_policy('orders.us', 'always')
    SELECT durable_notify.publish('orders.us', '1')
    SELECT durable_notify.publish('orders.eu', '1', delay => '1 hour', dedup_key => 'e', dedup_window => '1 hour')
    SELECT durable_notify.grant_access('{role}', 'publish', '{{a.*}}'), durable_notify.revoke_access('{role}')
    SELECT durable_notify.rename_group('g', 'h'), durable_notify.prune_dedup(), durable_notify.prune_inbox('tomorrow')
    SELECT durable_notify.unsubscribe('h', '{{orders.*}}')
    SELECT durable_notify.delete_group('h'), durable_notify.reanchor()"""


def play(connection: Connection, scenario: str) -> None:
    """Run a scenario, statement by statement."""
    lease: tuple[Any, ...] = ()
    for query in scenario.strip().split("\n"):
        filled = query.replace("$1", "%(1)s").replace("$2", "(%(2)s::int8[])")
        params = {str(n): v for n, v in enumerate(lease, 1)} if "%(" in filled else None
        with psycopg.ClientCursor(connection) as cursor:
            cursor.execute(filled.encode(), params)
            rows = cursor.fetchall() if cursor.description else []
        if "claim(" in query and "consumer =>" in query:
            ((*lease,),) = rows  # type: ignore[assignment]


@pytest.fixture
def cast(dsn: str, conn: Connection) -> Iterator[Roles]:
    """A role with every grant but --observe, and a schema of its own before PostgreSQL's."""
    kinds: Any = {
        "evil": [
            ("publish", ["orders.*"], None), ("consume", ["orders.*"], "g"), ("read", ["orders.*"], None),
            ("insert", None, None),
        ]
    }  # fmt: skip
    with roles(dsn, kinds) as made:
        name = made.names["evil"]
        conn.execute(f"CREATE SCHEMA evil AUTHORIZATION {name}".encode())
        yield made


@pytest.fixture
def evil(cast: Roles) -> Iterator[Connection]:
    with psycopg.connect(cast.login("evil"), autocommit=True) as connection:
        connection.execute("SET search_path = evil")
        connection.execute(SHADOWS.encode())
        connection.execute(EXACT.encode())
        yield connection


def test_nothing_of_it_is_called_in_the_owners_session(
    dsn: str, conn: Connection, cast: Roles, evil: Connection
) -> None:
    """With the evil schema before PostgreSQL's, and after it as public is. A consumer waits, too."""
    first = "SELECT pg_catalog.min(token), pg_catalog.array_agg(id)"
    calls = SCENARIO.replace("SELECT token, array_agg(id ORDER BY id)", first)
    by_hand = BY_HAND.format(role=cast.names["evil"])
    with psycopg.connect(cast.login("evil"), autocommit=True) as waits:
        waits.execute("SELECT durable_notify.arm('orders.eu')")
        for path in ("evil, pg_catalog", "evil"):
            conn.execute(f"SET search_path = {path}".encode())
            play(conn, calls.replace(" GROUP BY 1", ""))
            play(conn, by_hand)
    # And the test would see it.
    conn.execute("ALTER FUNCTION durable_notify.claim RESET search_path")
    conn.execute("SELECT durable_notify.subscribe('g', '{orders.eu}')")
    conn.execute("SET search_path = evil, pg_catalog")
    with pytest.raises(psycopg.InternalError, match="hijacked"):
        conn.execute("SELECT durable_notify.claim('g', '{orders.eu}')")
    session = Session(dsn)
    plant(session, "_is_message", ("topic OPERATOR(pg_catalog.~)", "topic ~"))
    session.run("SET search_path = evil, pg_catalog")
    with pytest.raises(psycopg.InternalError, match="hijacked"):
        session.run("SELECT durable_notify.publish('orders.eu', '1')")
    session.close()


def test_it_gets_nowhere_in_its_own_session(conn: Connection, evil: Connection) -> None:
    """Its operators say yes to everything. They are not asked, or with its own rights only."""
    conn.execute("SELECT durable_notify.publish('payments', '\"secret\"')")
    conn.execute("SELECT durable_notify.subscribe('h', '{orders.eu}')")
    evil.execute("""
        DO $do$ DECLARE f regprocedure; BEGIN
            FOR f IN SELECT p.oid FROM pg_catalog.pg_proc p
                      WHERE p.pronamespace OPERATOR(pg_catalog.=) 'evil'::pg_catalog.regnamespace
                        AND p.prorettype OPERATOR(pg_catalog.=) 'boolean'::pg_catalog.regtype LOOP
                EXECUTE pg_catalog.regexp_replace(pg_catalog.pg_get_functiondef(f), 'RAISE EXCEPTION[^;]*', 'RETURN true');
            END LOOP;
        END $do$""")
    evil.execute(TABLES)
    for path in ("evil, pg_catalog", "pg_temp, evil, pg_catalog", "evil, pg_catalog, pg_temp"):
        evil.execute(f"SET search_path = {path}".encode())
        for query in (
            "SELECT durable_notify.publish('payments', '1')",
            "SELECT durable_notify.publish_many('payments', '{1}')",
            "SELECT durable_notify.claim('h', '{orders.eu}')",
            "SELECT durable_notify.claim('g', '{payments}')",
            "SELECT durable_notify.subscribe('h', '{orders.eu}')",
            "SELECT durable_notify.subscribe('g', '{payments}')",
            "SELECT durable_notify.read('payments', '3:3:', 0, NULL, NULL, 0)",
            "SELECT durable_notify.latest('payments')",
            "SELECT durable_notify.set_notify_policy('t', 'never')",
            "SELECT payload FROM durable_notify.outbox",
        ):
            refused(evil, query)
        # What an INSERT must be is looked at by the trigger, which runs as it.
        for row in (
            "'a b', NULL, '1', NULL",
            "'t', NULL, NULL, NULL",
            "'t', '', '1', NULL",
            "'t', NULL, '1', '1'",
        ):
            with pytest.raises(psycopg.errors.CheckViolation):
                evil.execute(
                    f"INSERT INTO durable_notify.outbox (topic, key, payload, headers) VALUES ({row})".encode()
                )
        allowed(evil, "INSERT INTO durable_notify.outbox (topic, payload) VALUES ('t', '1')")
        allowed(evil, "SELECT durable_notify.publish('orders.eu', '1')")


SETTINGS = (
    "standard_conforming_strings = off", "array_nulls = off", "transform_null_equals = on",
    "DateStyle = 'German'", "IntervalStyle = 'sql_standard'", "bytea_output = 'escape'",
    "check_function_bodies = off", "plpgsql.extra_errors = 'all'", "xmloption = content",
)  # fmt: skip


def test_settings_of_its_session(conn: Connection, cast: Roles) -> None:
    conn.execute("SELECT durable_notify.subscribe('h', '{orders.eu}')")
    for setting in SETTINGS:
        with psycopg.connect(cast.login("evil"), autocommit=True) as evil:
            evil.execute("SET escape_string_warning = off")
            evil.execute(f"SET {setting}".encode())
            for topic in ("payments", "ordersxeu", "orders.", r"orders\.eu", "orders.eu.x"):
                refused(evil, "SELECT durable_notify.publish(%s, '1')", topic)
            refused(evil, "SELECT durable_notify.claim('h', '{orders.eu}')")
            refused(evil, "SELECT durable_notify.subscribe('g', ARRAY[%s])", ">")
            allowed(evil, "SELECT durable_notify.publish('orders.eu', '1')")
