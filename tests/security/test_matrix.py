"""Each kind of role with each function and table of the schema: what it may do, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from tests.security.decisions import MAY, findings, may_call
from tests.support.roles import KINDS, Roles, allowed, everything, refused

Connection = psycopg.Connection[Any]
Leases = dict[str, tuple[int, int]]


@pytest.fixture(params=["logs in", "sets the role"])
def sessions(request: pytest.FixtureRequest, cast: Roles) -> Iterator[dict[str, Connection]]:
    """A session of each role."""
    way = cast.login if request.param == "logs in" else cast.set_role
    with ExitStack() as stack:
        yield {
            kind: stack.enter_context(psycopg.connect(way(kind), autocommit=True)) for kind in KINDS
        }


def signatures(conn: Connection) -> list[tuple[str, str]]:
    """Each function, and a call of it with nothing but NULLs."""
    # From a row: a STRICT function of constants is not even called.
    query = """
        SELECT p.proname,
               CASE p.prokind WHEN 'p' THEN format('CALL durable_notify.%I(%s)', p.proname, t.bare)
               ELSE format('SELECT durable_notify.%I(%s) FROM (SELECT %s OFFSET 0) a',
                           p.proname, t.names, COALESCE(t.nulls, '1')) END
          FROM pg_proc p CROSS JOIN LATERAL (
               SELECT string_agg('a.a' || u.place, ', ' ORDER BY u.place) AS names,
                      string_agg(format('NULL::%s', u.type::regtype), ', ' ORDER BY u.place) AS bare,
                      string_agg(format('NULL::%s AS a%s', u.type::regtype, u.place), ', ' ORDER BY u.place) AS nulls
                 FROM unnest(p.proargtypes) WITH ORDINALITY AS u (type, place)) AS t
         WHERE p.pronamespace = 'durable_notify'::regnamespace"""
    return conn.execute(query).fetchall()


def test_the_catalog_is_as_decided(conn: Connection) -> None:
    assert findings(conn) == []


PLANTED = (
    "CREATE FUNCTION durable_notify.planted() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "GRANT EXECUTE ON FUNCTION durable_notify.claim TO PUBLIC",
    "GRANT USAGE ON SCHEMA durable_notify TO PUBLIC",
    "GRANT SELECT ON durable_notify.audit TO PUBLIC",
    "GRANT INSERT (topic) ON durable_notify.outbox TO PUBLIC",
    "ALTER FUNCTION durable_notify._claim_granted RESET search_path",
    "ALTER FUNCTION durable_notify.claim SECURITY DEFINER",
    "ALTER FUNCTION durable_notify.arm RESET search_path",
)


def test_a_planted_fault_is_found(conn: Connection) -> None:
    for fault in PLANTED:
        with conn.transaction(force_rollback=True):
            conn.execute(fault.encode())
            assert findings(conn) != [], fault
    assert findings(conn) == []


def test_every_function(
    conn: Connection, sessions: dict[str, Connection], furnished: Leases
) -> None:
    """A role without the right is refused; with it, NULLs fail without an effect."""
    before = everything(conn)
    privilege = (
        "SELECT has_function_privilege(%s, p.oid, 'EXECUTE') FROM pg_proc p WHERE proname = %s"
    )
    roles = {
        kind: session.execute("SELECT current_user").fetchone()
        for kind, session in sessions.items()
    }
    for name, call in signatures(conn):
        for kind, session in sessions.items():
            may = kind in may_call(name)
            role = roles[kind]
            assert role is not None
            row = conn.execute(privilege.encode(), [role[0], name]).fetchone()
            assert row == (may,), (name, kind)
            if not may:
                refused(session, call)
    assert everything(conn) == before


# What each may do, and what lies just beyond it. {token}, {id}: a message held in group g.

PUBLISHER = (
    "SELECT durable_notify.publish('orders.eu', '1', 'k', '{{}}')",
    "SELECT durable_notify.publish('orders.new', '1', deliver_at => now() + '1 hour', dedup_key => 'd')",
    "SELECT durable_notify.publish('orders.eu', NULL, data => '1')",
    "SELECT durable_notify.publish_many('orders.eu', '{{1,2}}', '{{a,b}}')",
    "SELECT durable_notify.publish_many('orders.eu', '{{1}}', ttls => '{{1 hour}}')",
    "SELECT durable_notify.channel('payments'), durable_notify.notify_policy('payments')",
    "SELECT durable_notify.notify('orders.eu', 'x'), durable_notify.notify('orders.eu', NULL)",
    "SELECT durable_notify.topic_of_channel('payments'), durable_notify._percent_encode('a', 'b')",
    "SELECT durable_notify.capture_begin('orders.eu', 'c', 'w')",
    "SELECT durable_notify.capture('orders.eu', 'c', 'w', 1, '{{a}}', '{{1}}')",
    "SELECT durable_notify.capture_progress('orders.eu', 'c', 'w', now(), now(), 'gone')",
    "SELECT durable_notify.already_published('orders.eu', 'c', '3:3:', NULL, '{{a}}', '{{1}}')",
    "SELECT durable_notify.set_schedule('s', 'orders.eu', '1', NULL, '1 hour', 'UTC', '2000-01-01')",
    "SELECT durable_notify.publish_ticks('s', '2000-01-01', '{{2000-01-01}}', '2100-01-01')",
    "SELECT durable_notify.run_schedule('s'), durable_notify.pause_schedule('s')",
    "SELECT durable_notify.resume_schedule('s', '2100-01-01'), durable_notify.schedules()",
    "SELECT durable_notify.delete_schedule('s')",
)
MADE = "FROM durable_notify.create_webhook('g', '{{orders.eu}}', 'https://x')"
CONSUMER = (
    "SELECT durable_notify.subscribe('g', '{{orders.eu,orders.*}}')",
    "SELECT durable_notify.discover('g', '{{orders.*}}')",
    "SELECT durable_notify.configure('g', '{{\"max_attempts\": 3}}')",
    "SELECT durable_notify.pause('g'), durable_notify.resume('g')",
    "SELECT durable_notify.claim('g', '{{orders.eu,orders.us}}')",
    "SELECT durable_notify._topic_mark('orders.eu'), durable_notify._doorbell_class()",
    "SELECT durable_notify.settle({token}, acked => '{{{id}}}')",
    "SELECT durable_notify.settle({token}, retried => '{{{id}}}')",
    "SELECT durable_notify.settle({token}, rejected => '{{{id}}}')",
    "SELECT durable_notify.once('g', {id})",
    "SELECT durable_notify.unacknowledged('g', '{{{id}}}')",
    "SELECT durable_notify.extend('{{{token}}}', '1 minute')",
    "SELECT durable_notify.release('{{{token}}}')",
    "SELECT durable_notify.next_due('g', '{{orders.eu}}')",
    "SELECT durable_notify.renew_active('g', 'c', '1 minute'), durable_notify.resign_active('g', 'c')",
    "SELECT durable_notify.blocking_publishers('g')",
    "SELECT durable_notify.never_published('g', '{{orders.eu}}')",
    "SELECT redelivered FROM durable_notify.seek('g', 'orders.eu', 0)",
    "SELECT durable_notify.seek('g', 'orders.eu', to_now => true)",
    "SELECT durable_notify.start_replay('g', 'orders.us')",
    "SELECT durable_notify.advance_replays('g', '{{orders.eu}}')",
    "SELECT durable_notify.cancel_replay(1)",
    "SELECT durable_notify.redrive('g', everything => true)",
    "SELECT durable_notify.discard('g', 'orders.eu', everything => true)",
    "SELECT durable_notify.dead_letters('g')",
    "SELECT durable_notify.retries('g'), durable_notify.retry_counts('g')",
    "SELECT durable_notify.blocked_keys('g'), durable_notify.message_states('orders.eu', {id})",
    "SELECT durable_notify.retry_now('g', everything => true)",
    "SELECT durable_notify.drop_retries('g', 'orders.eu', everything => true)",
    f"SELECT durable_notify.change_webhook('g', '{{{{\"timeout\": 3}}}}'), durable_notify.webhooks('g') {MADE}",
    f"SELECT durable_notify.rotate_webhook_secret('g'), durable_notify.note_webhook('g', 'x') {MADE}",
    "SELECT durable_notify.unsubscribe('g', '{{orders.us}}')",
    "SELECT durable_notify.arm('orders.eu'), durable_notify.armed('orders.eu'), durable_notify.disarm('orders.eu')",
    "SELECT durable_notify._arm_topics('{{orders.eu}}'), durable_notify._disarm_topics('{{orders.eu}}')",
    "SELECT durable_notify._try_doorbell('orders.>'), durable_notify._release_doorbell('orders.>')",
    "SELECT durable_notify.still_running(durable_notify.unnotified_transactions())",
    f"SELECT durable_notify.delete_webhook('g') {MADE}",
)
READER = (
    "SELECT durable_notify.read_from('orders.eu', 'now')",
    "SELECT durable_notify.read('orders.eu', '3:3:', 0, NULL, NULL, 0)",
    "SELECT durable_notify.latest('orders.eu'), durable_notify.log_id(), durable_notify.last_removed('orders.eu')",
    "SELECT durable_notify.browse('orders.eu', max_messages => 1)",
    "SELECT durable_notify.topics(), durable_notify._open_writers('{{}}')",
)
BEYOND = {
    "publisher": (
        "SELECT durable_notify.publish('{topic}', '1')",
        "SELECT durable_notify.notify('{topic}', 'x')",
        "SELECT durable_notify.capture_begin('{topic}', 'c', 'w')",
        "SELECT durable_notify.capture('{topic}', 'c', 'w', 1, '{{a}}', '{{1}}')",
        "SELECT durable_notify.capture_progress('{topic}', 'c', 'w', now())",
        "SELECT durable_notify.already_published('{topic}', 'c', '3:3:', NULL, '{{a}}', '{{1}}')",
        "SELECT durable_notify.publish('{topic}', '1', delay => '1 hour', dedup_key => 'd')",
        "SELECT durable_notify.set_schedule('s', '{topic}', '1', NULL, '1 hour', 'UTC', '2000-01-01')",
        "SELECT durable_notify.publish_many('{topic}', '{{1}}')",
        "SELECT durable_notify._publish_many_granted('{topic}', '{{1}}', NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    ),
    "consumer": (
        "SELECT durable_notify.subscribe('g', '{{orders.eu,{topic}}}')",
        "SELECT durable_notify.discover('g', '{{{topic}}}')",
        "SELECT durable_notify.claim('g', '{{orders.eu,{topic}}}')",
        "SELECT durable_notify._claim_granted('g', '{{{topic}}}', 1, '1 s', NULL, NULL, false)",
        "SELECT durable_notify.next_due('g', '{{{topic}}}')",
        "SELECT durable_notify.seek('g', '{topic}', 0)",
        "SELECT durable_notify.start_replay('g', '{topic}')",
        "SELECT durable_notify.advance_replays('g', '{{{topic}}}')",
        "SELECT durable_notify.redrive('g', '{topic}', everything => true)",
        "SELECT durable_notify.discard('g', '{topic}', everything => true)",
        "SELECT durable_notify.retry_now('g', '{topic}', everything => true)",
        "SELECT durable_notify.drop_retries('g', '{topic}', everything => true)",
        "SELECT durable_notify.unsubscribe('g', '{{{topic}}}')",
        "SELECT durable_notify.create_webhook('g', '{{orders.eu,{topic}}}', 'https://x')",
    ),
    "reader": (
        "SELECT durable_notify.browse('{topic}')",
        "SELECT durable_notify.read_from('{topic}', 'now')",
        "SELECT durable_notify.read('{topic}', '3:3:', 0, NULL, NULL, 0)",
        "SELECT durable_notify.latest('{topic}')",
        "SELECT durable_notify.last_removed('{topic}')",
    ),
}
OTHER_GROUP = (
    "SELECT durable_notify.subscribe('{group}', '{{orders.eu}}')",
    "SELECT durable_notify.discover('{group}', '{{orders.*}}')",
    "SELECT durable_notify.configure('{group}', '{{}}')",
    "SELECT durable_notify.pause('{group}')",
    "SELECT durable_notify.resume('{group}')",
    "SELECT durable_notify.claim('{group}', '{{orders.eu}}')",
    "SELECT durable_notify.once('{group}', 1)",
    "SELECT durable_notify.unacknowledged('{group}', '{{1}}')",
    "SELECT durable_notify.next_due('{group}', '{{orders.eu}}')",
    "SELECT durable_notify.renew_active('{group}', 'c', '1 minute')",
    "SELECT durable_notify.resign_active('{group}', 'c')",
    "SELECT durable_notify.blocking_publishers('{group}')",
    "SELECT durable_notify.seek('{group}', 'orders.eu', 0)",
    "SELECT durable_notify.start_replay('{group}', 'orders.eu')",
    "SELECT durable_notify.advance_replays('{group}', '{{orders.eu}}')",
    "SELECT durable_notify.redrive('{group}', everything => true)",
    "SELECT durable_notify.discard('{group}', everything => true)",
    "SELECT durable_notify.retry_now('{group}', everything => true)",
    "SELECT durable_notify.drop_retries('{group}', everything => true)",
    "SELECT durable_notify.retries('{group}')",
    "SELECT durable_notify.retry_counts('{group}')",
    "SELECT durable_notify.blocked_keys('{group}')",
    "SELECT durable_notify.unsubscribe('{group}', '{{orders.eu}}')",
    "SELECT durable_notify.dead_letters('{group}')",
    "SELECT durable_notify.audit_entries('{group}')",
    "SELECT durable_notify.create_webhook('{group}', '{{orders.eu}}', 'https://x')",
    "SELECT durable_notify.change_webhook('{group}', '{{}}')",
    "SELECT durable_notify.rotate_webhook_secret('{group}')",
    "SELECT durable_notify.delete_webhook('{group}')",
    "SELECT durable_notify.note_webhook('{group}', 'x', true)",
    "SELECT durable_notify.webhooks('{group}')",
)


def test_what_has_grant_works(sessions: dict[str, Connection], furnished: Leases) -> None:
    token, message = furnished["g orders.eu"]
    for kind, calls in (("publisher", PUBLISHER), ("consumer", CONSUMER), ("reader", READER)):
        for call in calls:
            allowed(sessions[kind], call.format(token=token, id=message))
    called = " ".join((*PUBLISHER, *CONSUMER, *READER))
    for name, kinds in MAY.items():
        if kinds & {"publisher", "consumer", "reader"} and "observer" not in kinds:
            assert f"durable_notify.{name}(" in called, f"{name} is not tried"


def test_nothing_beyond_it(
    conn: Connection, sessions: dict[str, Connection], furnished: Leases
) -> None:
    """What does not exist is refused with the same words as what is not granted."""
    before = everything(conn)
    for kind, calls in BEYOND.items():
        for call in calls:
            errors = [
                refused(sessions[kind], call.format(topic=topic))
                for topic in ("payments", "missing", "orders", "orders.eu.x", "*.eu", ">")
            ]
            assert len({str(error.diag.message_primary) for error in errors}) == 1, call
            assert "durable-notify grant" in str(errors[0].diag.message_hint)
    for call in OTHER_GROUP:
        errors = [
            refused(sessions["consumer"], call.format(group=group))
            for group in ("h", "missing", "G", "")
        ]
        assert len({str(error.diag.message_primary) for error in errors}) == 1, call
    # Group h reads payments, too, which is not granted: all of its dead letters are not.
    refused(sessions["other"], "SELECT durable_notify.redrive('h', everything => true)")
    refused(sessions["other"], "SELECT durable_notify.claim('h', '{payments}')")
    assert everything(conn) == before


def test_leases_of_others(
    conn: Connection, sessions: dict[str, Connection], furnished: Leases
) -> None:
    """They look like leases that have ended."""
    before = everything(conn)
    token, message = furnished["g orders.eu"]
    for kind, (foreign, held) in (
        ("consumer", furnished["h orders.eu"]), ("consumer", furnished["h payments"]),
        ("other", (token, message)), ("other", furnished["h payments"]),
    ):  # fmt: skip
        session = sessions[kind]
        errors = []
        for lease in (foreign, 4711):
            for outcome in ("acked", "retried", "rejected"):
                with pytest.raises(psycopg.Error) as caught:
                    session.execute(
                        f"SELECT durable_notify.settle(%s, {outcome} => ARRAY[%s]::bigint[])".encode(),
                        [lease, held],
                    )
                errors.append(
                    (
                        caught.value.sqlstate,
                        str(caught.value).replace(str(lease), "N").split("\n")[0],
                    )
                )
        assert len(set(errors)) == 1
        assert errors[0][0] == "DN001"
        for function in ("extend(%s, '1 hour')", "release(%s)"):
            query = f"SELECT durable_notify.{function}".encode()
            assert session.execute(query, [[foreign, 4711]]).fetchall() == []
    jobs = "SELECT j.job_id FROM durable_notify.replay_jobs() j WHERE j.group_name = 'h'"
    for (job,) in conn.execute(jobs).fetchall():
        assert allowed(sessions["consumer"], "SELECT durable_notify.cancel_replay(%s)", job) == [
            (False,)
        ]
    assert everything(conn) == before


def test_what_each_sees(sessions: dict[str, Connection], furnished: Leases) -> None:
    columns = {
        "status": "group_name, topic", "groups": "name, NULL", "replay_jobs": "group_name, topic",
        "dead_letters": "group_name, topic", "audit_entries": "group_name, topic",
    }  # fmt: skip
    for function, what in columns.items():
        query = f"SELECT DISTINCT {what} FROM durable_notify.{function}()"
        seen = {
            kind: set(allowed(sessions[kind], query)) for kind in ("consumer", "other", "observer")
        }
        assert {group for group, _ in seen["consumer"]} == {"g"}, function
        assert {group for group, _ in seen["other"]} == {"h"}, function
        assert {group for group, _ in seen["observer"]} >= {"g", "h"}, function
        assert "payments" not in {topic for _, topic in seen["other"] | seen["consumer"]}, function
        for kind in ("publisher", "reader", "inserter", "stranger"):
            refused(sessions[kind], query)
    topics = "SELECT topic FROM durable_notify.topics()"
    assert allowed(sessions["reader"], topics) == [("orders.eu",)]


STATEMENTS = {
    "SELECT": "SELECT * FROM {0}",
    "a column": "SELECT {1} FROM {0}",
    "INSERT": "INSERT INTO {0} DEFAULT VALUES",
    "UPDATE": "UPDATE {0} SET {1} = {1}",
    "DELETE": "DELETE FROM {0}",
    "TRUNCATE": "TRUNCATE {0}",
    "LOCK": "LOCK TABLE {0} IN ACCESS SHARE MODE",
}


def test_every_table(conn: Connection, sessions: dict[str, Connection], furnished: Leases) -> None:
    before = everything(conn)
    query = """
        SELECT c.oid::regclass::text, c.relkind::text,
               ARRAY(SELECT quote_ident(a.attname) FROM pg_attribute a
                      WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
          FROM pg_class c
         WHERE c.relnamespace = 'durable_notify'::regnamespace AND c.relkind NOT IN ('i', 'I', 't')"""
    for table, kind_of_table, columns in conn.execute(query).fetchall():
        for kind, session in sessions.items():
            for name, statement in STATEMENTS.items():
                for column in columns if name == "a column" else columns[:1]:
                    if (
                        table.endswith("schema_version")
                        and kind != "stranger"
                        and name in ("SELECT", "a column", "LOCK")
                    ):
                        continue  # every client checks it
                    if (
                        kind == "inserter"
                        and table.endswith("outbox")
                        and (name in ("INSERT", "LOCK") or column == "id")
                    ):
                        continue
                    if name == "UPDATE" and (kind_of_table == "S" or column == "id"):
                        continue
                    if kind_of_table == "S" and name in ("INSERT", "DELETE", "TRUNCATE", "LOCK"):
                        continue
                    refused(session, statement.format(table, column))
            if kind_of_table == "S":
                for call in ("nextval", "currval", "setval"):
                    more = ", 1" if call == "setval" else ""
                    refused(session, f"SELECT {call}('{table}'{more})")
    assert everything(conn) == before


def test_inserting(sessions: dict[str, Connection], conn: Connection) -> None:
    """INSERT statements of one's own, and what the trigger is for."""
    inserter = sessions["inserter"]
    insert = "INSERT INTO durable_notify.outbox (topic, payload) VALUES (%s, '1') RETURNING id"
    allowed(inserter, insert, "payments")
    for value in ("xid", "id", "created_at"):
        refused(
            inserter,
            f"INSERT INTO durable_notify.outbox (topic, payload, {value}) VALUES ('t', '1', DEFAULT)",
        )
    for bad in ("a b", "", "*", "x" * 256):
        with pytest.raises(psycopg.errors.CheckViolation):
            inserter.execute(insert.encode(), [bad])


def test_a_function_that_asks_for_nothing_is_found(
    conn: Connection, sessions: dict[str, Connection], furnished: Leases
) -> None:
    conn.execute("""
        CREATE OR REPLACE FUNCTION durable_notify._require(
            action text, topics text[] DEFAULT NULL, group_name text DEFAULT NULL, any_group boolean DEFAULT false
        ) RETURNS void LANGUAGE sql AS ''""")
    with pytest.raises(AssertionError, match="was not refused"):
        test_nothing_beyond_it(conn, sessions, furnished)
    with pytest.raises(AssertionError, match="was not refused"):
        refused(sessions["consumer"], OTHER_GROUP[5].format(group="h"))
