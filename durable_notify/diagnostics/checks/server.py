"""The server: its version and role, its settings, its clock."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ..context import CheckContext
from ..findings import Finding, finding


def version(context: CheckContext) -> Iterator[Finding]:
    """A version that is tested."""
    thresholds = context.thresholds
    major = context.connection.info.server_version // 10_000
    if not thresholds.oldest <= major <= thresholds.newest:
        yield finding(
            "server-version",
            f"PostgreSQL {major}",
            version=major, oldest=thresholds.oldest, newest=thresholds.newest,
        )  # fmt: skip


def standby(context: CheckContext) -> Iterator[Finding]:
    """Neither a standby, nor made read-only."""
    recovers, read_only = context.row(
        "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::boolean"
    )
    if recovers:
        yield finding("standby", "the server is a standby")
    elif read_only:
        yield finding("read-only", "default_transaction_read_only is on")


def durability(context: CheckContext) -> Iterator[Finding]:
    """Whether committed data survives a crash."""
    fsync, pages, here = context.row(
        "SELECT current_setting('fsync')::boolean,"
        " current_setting('full_page_writes')::boolean,"
        " current_setting('synchronous_commit')"
    )
    if not fsync:
        yield finding("fsync-off", "fsync is off")
    if not pages:
        yield finding("full-page-writes-off", "full_page_writes is off")
    scopes = ["this session"] if here == "off" else []
    scopes += [scope for (scope,) in context.rows(
        """
        SELECT concat_ws(' ', 'role ' || r.rolname, 'database ' || d.datname)
          FROM pg_db_role_setting s
          LEFT JOIN pg_roles r ON r.oid = s.setrole
          LEFT JOIN pg_database d ON d.oid = s.setdatabase
         WHERE s.setdatabase = 0 OR d.datname = current_database()
         GROUP BY r.rolname, d.datname, s.setconfig
        HAVING 'synchronous_commit=off' = ANY (s.setconfig)
         ORDER BY 1
        """
    )]  # fmt: skip
    if scopes:
        where = ", ".join(scopes)
        yield finding(
            "synchronous-commit-off", f"synchronous_commit is off for {where}", where=where
        )


def autovacuum(context: CheckContext) -> Iterator[Finding]:
    """Whether dead rows are removed."""
    on, counts = context.row(
        "SELECT current_setting('autovacuum')::boolean, current_setting('track_counts')::boolean"
    )
    if not (on and counts):
        off = "autovacuum" if not on else "track_counts"
        yield finding("autovacuum-off", f"{off} is off", setting=off)
    for (table,) in context.rows(
        """
        SELECT c.oid::regclass::text
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         CROSS JOIN LATERAL pg_options_to_table(c.reloptions) o
         WHERE n.nspname = 'durable_notify' AND c.relkind = 'r'
           -- In this order: the others are no booleans.
           AND CASE WHEN o.option_name = 'autovacuum_enabled' THEN NOT o.option_value::boolean END
         ORDER BY 1
        """
    ):
        yield finding("autovacuum-off-table", f"autovacuum is off for {table}", table=table)


def dead_rows(context: CheckContext) -> Iterator[Finding]:
    """The small tables, which change at each claim, stay small."""
    for table, dead, alive in context.rows(
        """
        SELECT s.relid::regclass::text, s.n_dead_tup, s.n_live_tup
          FROM pg_stat_user_tables s
         WHERE s.schemaname = 'durable_notify' AND s.n_dead_tup > %s AND s.n_dead_tup > s.n_live_tup
           AND s.relname NOT LIKE 'outbox%%'
         ORDER BY s.n_dead_tup DESC
        """,
        context.thresholds.dead_rows,
    ):
        what = f"{table} has {dead:,} dead rows, and {alive:,} live ones"
        yield finding("dead-rows", what, table=table, dead=dead, live=alive)


def clocks(context: CheckContext) -> Iterator[Finding]:
    """How much the server's clock and this machine's differ."""
    before = time.time()
    (theirs,) = context.row("SELECT EXTRACT(epoch FROM clock_timestamp())::float8")
    after = time.time()
    difference = theirs - (before + after) / 2
    if abs(difference) > context.thresholds.clock + (after - before) / 2:
        way = "ahead of" if difference > 0 else "behind"
        yield finding(
            "clocks-differ",
            f"the server's clock is {abs(difference):.1f} s {way} this machine's",
            seconds=round(difference, 3),
        )


def clock_went_back(context: CheckContext) -> Iterator[Finding]:
    """Nothing that was written is from the future."""
    rows = context.rows(
        """
        SELECT w.what, max(EXTRACT(epoch FROM w.at - clock_timestamp()))::float8
          FROM (SELECT 'a message of ' || t.topic, newest.created_at
                  FROM (SELECT DISTINCT s.topic FROM durable_notify.subscription s LIMIT 100) t
                 CROSS JOIN LATERAL (
                       SELECT o.created_at FROM durable_notify.outbox o
                        WHERE o.topic = t.topic ORDER BY o.id DESC LIMIT 1) newest
                UNION ALL SELECT 'a lease', l.claimed_at FROM durable_notify.lease l
                UNION ALL SELECT 'an active consumer', a.since FROM durable_notify.active_consumer a
                UNION ALL SELECT 'a group', g.created_at FROM durable_notify.consumer_group g)
               AS w (what, at)
         GROUP BY w.what ORDER BY 2 DESC
        """
    )
    if rows and rows[0][1] > context.thresholds.clock:
        what, seconds = rows[0]
        yield finding(
            "clock-went-back", f"{what} is {seconds:.0f} s in the future", seconds=seconds
        )
