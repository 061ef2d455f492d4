"""The doctor's checks: each checks one thing, and yields what is wrong with it."""

from __future__ import annotations

from ..context import Check
from . import groups, listening, log, retention, server, sessions

__all__ = ["CHECKS", "FIRST", "SESSIONS"]

#: These come first: if one finds an error, the others do not run. Each check has the text for the
#: case that it finds no problem.
FIRST: dict[str, tuple[Check, str]] = {
    "server-version": (server.version, "this version of PostgreSQL is tested"),
    "standby": (server.standby, "the server is a primary, and accepts changes"),
    "rights": (log.rights, "the role owns the schema"),
    "schema": (log.schema_version, "the schema is this release's"),
}
CHECKS: dict[str, tuple[Check, str]] = {
    "log": (log.build, "columns, ids, triggers and indexes of the outbox are right"),
    "unlogged": (log.unlogged, "all tables survive a crash"),
    "cluster": (log.cluster, "the outbox is in the cluster where it was written"),
    "pooler": (listening.pooler, "there is no pooler in between"),
    "listening": (listening.hearing, "a wake-up from another connection arrives"),
    "queue": (listening.queue, "the queue of notifications has room"),
    "stuck": (listening.stuck, "no listener is stuck"),
    "transactions": (sessions.transactions, "no transaction is open for long"),
    "strict": (sessions.strict, "no strict group waits for long"),
    "prepared": (sessions.prepared, "no prepared transaction waits for long"),
    "slots": (sessions.slots, "no replication slot is without a reader"),
    "connections": (sessions.connections, "connections are left"),
    "durability": (server.durability, "committed data survives a crash"),
    "autovacuum": (server.autovacuum, "autovacuum is on"),
    "dead-rows": (server.dead_rows, "the small tables are small"),
    "clocks": (server.clocks, "the server's clock and this machine's agree"),
    "clock-back": (server.clock_went_back, "no stored time is in the future"),
    "groups": (groups.unused, "no group without consumers keeps messages"),
    "patterns": (groups.patterns, "every topic that a group's pattern matches is subscribed"),
    "paused": (groups.paused, "no group is paused for long"),
    "handlers": (groups.handlers, "no handler runs for very long"),
    "unsettled": (groups.unsettled, "what was delivered is settled in time"),
    "dead-letters": (groups.dead_letters, "no group has many dead letters"),
    "partitions": (retention.partitions, "partitions are ready ahead"),
    "held": (retention.held, "no partition is kept for an old snapshot"),
    "kept": (retention.kept_forever, "no large topic is kept for ever"),
    "blockers": (retention.blockers, "no group blocks retention beyond its alarm"),
    "lost-messages": (retention.lost_messages, "no group lost messages recently"),
    "schedules": (retention.schedules, "no schedule is late"),
    "maintenance": (retention.maintenance, "maintenance runs, and all its steps succeed"),
}
#: Only roles with pg_read_all_stats see everything that these check.
SESSIONS = frozenset({"stuck", "transactions"})
