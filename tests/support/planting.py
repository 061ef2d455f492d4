"""Put a known fault into the SQL, to see that the tests notice."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.schedule import Session

Plant = Callable[[Session], None]

OLDER_SNAPSHOTS_PASSED_OVER = ("4294967295) < 2147483648", "4294967295) < 0")
"""For `older_snapshots`: no one is found that a leaf is kept for."""


def plant(session: Session, function: str, *changes: tuple[str, str]) -> None:
    """Replace pieces of a function's body; each must be there exactly once."""
    query = "SELECT pg_get_functiondef(('durable_notify.' || %s)::regproc)"
    definition = session.value(query, function)
    for old, new in changes:
        assert definition.count(old) == 1, f"{old!r} stands not once in {function}"
        definition = definition.replace(old, new)
    session.run(definition)


def cursor_by_id(session: Session) -> None:
    """Read on with `id > last`: never look for stragglers."""
    plant(session, "_stragglers", ("RETURN QUERY", "RETURN; RETURN QUERY"))


def stragglers_by_list_alone(session: Session) -> None:
    """Take "was running" to mean xip alone, without what is at or past xmax."""
    past = "o.xid >= pg_catalog.pg_snapshot_xmax(seen)"
    plant(session, "_stragglers", (past, f"false AND {past}"))


def snapshot_before_the_lock(session: Session) -> None:
    """Take the claim's snapshot before the group's lock, not under it."""
    lock = "claiming_group := durable_notify._lock_group(group_name);"
    snapshot = "now_snapshot := pg_catalog.pg_current_snapshot();"
    plant(session, "claim", (snapshot, ""), (lock, f"{snapshot} {lock}"))


def position_before_the_lock(session: Session) -> None:
    """Read where the group stands before the group's lock; good for one topic."""
    lock = "claiming_group := durable_notify._lock_group(group_name);"
    early = """PERFORM pg_catalog.set_config('test.place', (
                   SELECT q::text FROM durable_notify.position q
                     JOIN durable_notify.subscription s ON s.id = q.subscription_id
                     JOIN durable_notify.consumer_group g ON g.id = s.group_id
                    WHERE g.name = group_name ORDER BY q.seq DESC LIMIT 1), true);"""
    plant(session, "claim", (lock, early + lock))
    read = """SELECT * INTO STRICT old_pos FROM durable_notify.position p
     WHERE p.subscription_id = subscription.id
     ORDER BY p.seq DESC
     LIMIT 1;"""
    use = "old_pos := pg_catalog.current_setting('test.place')::durable_notify.position;"
    plant(session, "_claim_topic", (read, use))


def fence_by_plain_read(session: Session) -> None:
    """Settle after looking at the lease without locking it."""
    plant(session, "settle", (" FOR KEY SHARE;", ";"))


def takeover_that_waits(session: Session) -> None:
    """Wait for whoever settles, where a claim should pass on."""
    plant(session, "_reclaim_leases", ("FOR UPDATE OF l SKIP LOCKED", "FOR UPDATE OF l"))
