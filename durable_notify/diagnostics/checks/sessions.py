"""Other sessions, and what they block."""

from __future__ import annotations

from collections.abc import Iterator

from ..context import CheckContext
from ..findings import Finding, finding

#: How much of a query to show.
MAX_QUERY = 200


def transactions(context: CheckContext) -> Iterator[Finding]:
    """Transactions of this database that are open for long."""
    for row in context.rows(
        """
        SELECT a.pid, a.datname::text, a.application_name, a.state,
               EXTRACT(epoch FROM clock_timestamp() - a.xact_start)::float8,
               left(a.query, %s),
               EXISTS (SELECT FROM pg_locks l
                         JOIN pg_class c ON c.oid = l.relation
                         JOIN pg_namespace n ON n.oid = c.relnamespace
                        WHERE l.pid = a.pid AND l.mode = 'RowExclusiveLock'
                          AND l.database = a.datid AND n.nspname = 'durable_notify'
                          AND c.relname = 'outbox')
          FROM pg_stat_activity a
         WHERE a.xact_start < clock_timestamp() - make_interval(secs => %s)
           AND (a.backend_xid IS NOT NULL OR a.backend_xmin IS NOT NULL)
           AND (a.datname = current_database() AND a.backend_type = 'client backend'
                OR a.backend_type = 'walsender')
           AND a.pid <> pg_backend_pid()
         ORDER BY a.xact_start
        """,
        MAX_QUERY,
        context.thresholds.transaction,
    ):
        pid, database, application, state, seconds, query, publishes = row
        what = (
            f"process {pid} ({application or 'unnamed'}) in database {database or '-'} is in a "
            f"transaction for {_age(seconds)}{', and publishes' if publishes else ''}, "
            f"{state or 'state unknown'}: {' '.join((query or '').split())}"
        )
        yield finding(
            "long-transaction", what, pid=pid, database=database, application=application,
            state=state, seconds=round(seconds), query=query, publishes=publishes,
        )  # fmt: skip


def strict(context: CheckContext) -> Iterator[Finding]:
    """Publishers that strict groups wait for."""
    for group, pid, gid, database, seconds, query in context.rows(
        """
        SELECT g.name, w.pid, w.prepared, w.database,
               EXTRACT(epoch FROM clock_timestamp() - w.started_at)::float8,
               left(w.query, %s)
          FROM durable_notify.groups() g
         CROSS JOIN LATERAL durable_notify.blocking_publishers(g.name) w
         WHERE g.order_by = 'strict'
           AND w.started_at < clock_timestamp() - make_interval(secs => %s)
        """,
        MAX_QUERY,
        context.thresholds.transaction,
    ):
        who = f"process {pid}" if gid is None else f"prepared transaction {gid!r}"
        what = (
            f"strict group {group} waits for {who} in database {database}, which publishes since "
            f"{_age(seconds)}: {' '.join((query or 'query unknown').split())}"
        )
        yield finding(
            "strict-group-waits", what, group=group, pid=pid, prepared=gid, database=database,
            seconds=round(seconds), query=query,
        )  # fmt: skip


def prepared(context: CheckContext) -> Iterator[Finding]:
    """Transactions that were prepared and neither committed nor rolled back."""
    for gid, database, owner, seconds in context.rows(
        """
        SELECT p.gid, p.database::text, p.owner::text,
               EXTRACT(epoch FROM clock_timestamp() - p.prepared)::float8
          FROM pg_prepared_xacts p
         WHERE p.prepared < clock_timestamp() - make_interval(secs => %s)
         ORDER BY p.prepared
        """,
        context.thresholds.transaction,
    ):
        what = (
            f"transaction {gid!r} of {owner} in database {database} is prepared for {_age(seconds)}"
        )
        yield finding(
            "prepared-transaction", what,
            gid=gid, database=database, owner=owner, seconds=round(seconds),
        )  # fmt: skip


def slots(context: CheckContext) -> Iterator[Finding]:
    """Replication slots without a reader."""
    for slot, kind, status, kept in context.rows(
        """
        SELECT s.slot_name::text, s.slot_type, s.wal_status,
               pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint
          FROM pg_replication_slots s
         WHERE NOT s.active AND NOT s.temporary ORDER BY 1
        """
    ):
        what = f"the {kind} replication slot {slot} has no reader, and keeps {_size(kept or 0)}"
        yield finding("slot-unused", what, slot=slot, type=kind, wal_status=status, bytes=kept)


def connections(context: CheckContext) -> Iterator[Finding]:
    """Connections that are left for roles other than superusers."""
    taken, available = context.row(
        """
        SELECT (SELECT sum(d.numbackends)::integer FROM pg_stat_database d),
               (SELECT sum(CASE s.name WHEN 'max_connections' THEN 1 ELSE -1 END
                                      * s.setting::integer)::integer
                  FROM pg_settings s
                 WHERE s.name IN ('max_connections', 'superuser_reserved_connections',
                                  'reserved_connections'))
        """
    )
    if taken >= context.thresholds.connections * available:
        what = f"{taken} of {available} connections are in use"
        yield finding("connections-nearly-used", what, taken=taken, available=available)


def _age(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def _size(count: float) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{int(count) // 1000} kB"
