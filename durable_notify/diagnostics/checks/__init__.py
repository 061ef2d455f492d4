"""The doctor's checks: each looks at one thing, and says what is wrong with it."""

from __future__ import annotations

from ..context import Check
from . import groups, listening, log, retention, server, sessions

__all__ = ["CHECKS", "FIRST", "SESSIONS"]

#: Without these the others mean little: they stop where one finds an error. With what is said where
#: all is well.
FIRST: dict[str, tuple[Check, str]] = {
    "server-version": (server.version, "a version of PostgreSQL that is tested"),
    "standby": (server.standby, "a primary, which takes changes"),
    "rights": (log.rights, "the role owns the schema"),
    "schema": (log.schema_version, "the schema is this release's"),
}
CHECKS: dict[str, tuple[Check, str]] = {
    "log": (log.build, "columns, ids, triggers and indexes of the log are as they must be"),
    "unlogged": (log.unlogged, "all tables survive a crash"),
    "cluster": (log.cluster, "the log stands in the cluster it was written in"),
    "pooler": (listening.pooler, "no pooler stands in between"),
    "listening": (listening.hearing, "a ring from another connection arrives"),
    "queue": (listening.queue, "the queue of notifications has room"),
    "stuck": (listening.stuck, "nobody who listens is stuck"),
    "transactions": (sessions.transactions, "no transaction is open for long"),
    "strict": (sessions.strict, "no strict group waits for long"),
    "prepared": (sessions.prepared, "no prepared transaction waits for long"),
    "slots": (sessions.slots, "no replication slot is without a reader"),
    "connections": (sessions.connections, "connections are left"),
    "durability": (server.durability, "what is committed survives a crash"),
    "autovacuum": (server.autovacuum, "autovacuum is on"),
    "dead-rows": (server.dead_rows, "the small tables are small"),
    "clocks": (server.clocks, "the server's clock and this machine's agree"),
    "clock-back": (server.clock_went_back, "nothing is from the future"),
    "groups": (groups.unused, "no group keeps messages that nobody consumes"),
    "paused": (groups.paused, "no group is paused for long"),
    "handlers": (groups.handlers, "no handler is at work for very long"),
    "dead-letters": (groups.dead_letters, "dead letters do not pile up"),
    "partitions": (retention.partitions, "partitions of the log are ready ahead"),
    "held": (retention.held, "no partition is kept for an old snapshot"),
    "kept": (retention.kept_forever, "no large topic is without retention"),
    "blockers": (retention.blockers, "nothing keeps retention from removing more than its alarm"),
    "lost-messages": (retention.lost_messages, "no group lost anything of late"),
    "maintenance": (retention.maintenance, "maintenance is done, and does all it is to do"),
}
#: What these look at is shown whole only to roles with pg_read_all_stats.
SESSIONS = frozenset({"stuck", "transactions"})
