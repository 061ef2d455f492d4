"""The findings of the doctor: each kind with its level, why it matters and what to do.

docs/doctor.md has the same texts; a test compares the two. A word in braces is a value of the
finding's ``data``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

__all__ = ["KINDS", "LEVELS", "Finding", "Kind", "finding"]

Level = Literal["ok", "note", "warning", "error"]
#: The worst first.
LEVELS: tuple[Level, ...] = ("error", "warning", "note", "ok")


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """Something that the doctor has found, or a check without a problem.

    Attributes:
        name: its kind, which is stable across releases; if the check found no problem, the check's
            name.
        level: ``ok``; ``note``: nothing is wrong, and it is good to know; ``warning``: it is slow,
            or will go wrong; ``error``: messages are not delivered, or may be lost.
        what: what was seen.
        why: why it matters.
        remedy: what to do.
        data: what was seen, for programs.
    """

    name: str
    level: Level
    what: str
    why: str = ""
    remedy: str = ""
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Kind(NamedTuple):
    """A kind of finding."""

    level: Level
    why: str
    remedy: str


def finding(name: str, what: str, **data: Any) -> Finding:
    """Return a finding of a kind."""
    kind = KINDS[name]
    shown = {key: "..." if value is None else value for key, value in data.items()}
    return Finding(name, kind.level, what, kind.why, kind.remedy.format_map(shown), data)


KINDS: dict[str, Kind] = {
    # connecting
    "no-connection": Kind(
        "error",
        "Nothing can be published, consumed or examined.",
        "Check host, port, user and password of the DSN, and whether PostgreSQL runs there.",
    ),
    "connection-lost": Kind(
        "error",
        "Checks that had not run by then have no result.",
        "Run it again once PostgreSQL answers. If the connection breaks at the same point "
        "again, read the server's log.",
    ),
    "check-too-slow": Kind(
        "note",
        "What they check may be in order or not. A busy server, or one without statistics, answers "
        "slowly.",
        "Run it again when the server is less busy, and after: ANALYZE",
    ),
    "not-looked-at": Kind(
        "note",
        "This role may not see something. It may be in order or not.",
        "Run the doctor as the owner of the schema, with pg_read_all_stats: GRANT "
        "pg_read_all_stats TO {role};",
    ),
    "server-version": Kind(
        "warning",
        "The library is tested on PostgreSQL {oldest} to {newest}, and depends on how these "
        "versions work.",
        "Upgrade the server. If the server is newer, upgrade the library.",
    ),
    "standby": Kind(
        "error",
        "A standby accepts no publishing, no claims and no LISTEN.",
        "Use the DSN of the primary, or list all hosts with target_session_attrs=read-write.",
    ),
    "read-only": Kind(
        "error",
        "Sessions that begin read-only cannot publish or claim.",
        "Reset default_transaction_read_only where it is set: postgresql.conf, ALTER DATABASE, "
        "ALTER ROLE, or the DSN.",
    ),
    # the schema
    "schema-missing": Kind(
        "error",
        "There is no outbox to publish to.",
        "Run: durable-notify migrate",
    ),
    "schema-too-old": Kind(
        "error",
        "This release of the package does not work with an older schema.",
        "Run: durable-notify migrate",
    ),
    "schema-too-new": Kind(
        "error",
        "A newer release has migrated the database. This release does not know its schema.",
        "Run: pip install --upgrade durable-notify",
    ),
    "no-rights": Kind(
        "error",
        "The role can neither publish nor consume.",
        "Ask the owner of the schema for a grant: durable-notify grant {role} --publish TOPIC",
    ),
    "id-cache": Kind(
        "error",
        "Sessions that draw ids ahead break the order of keys: a later message gets a lower id.",
        "ALTER SEQUENCE durable_notify.outbox_id_seq CACHE 1;",
    ),
    "id-not-last": Kind(
        "error",
        "PostgreSQL evaluates defaults in column order. If a later column's default waits for a"
        " lock after the id is drawn, the order of keys breaks.",
        "Do not add columns to the outbox. Drop the column: ALTER TABLE durable_notify.outbox "
        "DROP COLUMN {column};",
    ),
    "id-not-always": Kind(
        "error",
        "An id that a publisher chooses may lie behind what groups have read. They never "
        "receive that message.",
        "ALTER TABLE durable_notify.outbox ALTER COLUMN id SET GENERATED ALWAYS;",
    ),
    "trigger-not-always": Kind(
        "error",
        "If the trigger does not fire, no consumer is woken and invalid rows are accepted.",
        "ALTER TABLE {table} ENABLE ALWAYS TRIGGER outbox_after_insert; if the trigger is missing, "
        "restore it from durable-notify migrate --sql.",
    ),
    "index-invalid": Kind(
        "error",
        "Claims scan the outbox instead of the index, or the outbox accepts the same id twice.",
        "REINDEX INDEX CONCURRENTLY {index}; if the index is missing, restore it from "
        "durable-notify migrate --sql.",
    ),
    "unlogged": Kind(
        "error",
        "PostgreSQL empties unlogged tables after a crash: all messages would be lost.",
        "ALTER TABLE {table} SET LOGGED;",
    ),
    "restored-elsewhere": Kind(
        "error",
        "Transaction ids of another cluster mean nothing here. Groups do not claim until this "
        "is repaired. Nothing is lost.",
        "Once everything has been copied, run: durable-notify reanchor",
    ),
    # listening
    "listener-no-connection": Kind(
        "error",
        "Consumers cannot listen, and poll once a second instead.",
        "Check the DSN for listening, and whether PostgreSQL runs there.",
    ),
    "listener-elsewhere": Kind(
        "error",
        "A notification stays within one database. A consumer that listens there is not woken "
        "by messages published here.",
        "Use a DSN for listening that leads to the same database of the same server.",
    ),
    "listener-deaf": Kind(
        "warning",
        "Wake-ups do not arrive. Consumers poll once a second instead; those with polling "
        "switched off refuse to run.",
        "A pooler in transaction mode does this. Give consumers a direct listen_dsn, and the "
        "doctor --listen-dsn.",
    ),
    "pooler": Kind(
        "note",
        "There is a pooler in between. Publishing and claiming work through it. Listening needs"
        " its session mode, or a direct connection.",
        "If the pooler is in transaction mode, give consumers a direct listen_dsn.",
    ),
    "queue-crowded": Kind(
        "warning",
        "When the queue of notifications is full, commits that ring fail. When it is half full,"
        " consumers disarm their doorbells and poll.",
        "A session that has used LISTEN and stays in a transaction keeps the queue from "
        "shrinking. End the oldest one: SELECT pg_terminate_backend({pid});",
    ),
    "listener-stuck": Kind(
        "warning",
        "A listener that does not read its notifications keeps the queue from shrinking, and "
        "keeps vacuum from removing dead rows.",
        "End it, and make its program read or close: SELECT pg_terminate_backend({pid});",
    ),
    # sessions
    "long-transaction": Kind(
        "warning",
        "While it is open, vacuum removes no rows that died since it began, and maintenance "
        "empties no partition that was needed then. If it publishes, its messages are late, "
        "strict groups wait for it, and no partition is created.",
        "Make its program end it, or: SELECT pg_terminate_backend({pid});",
    ),
    "strict-group-waits": Kind(
        "warning",
        "A strict group delivers nothing newer until this publisher has ended.",
        "Make it end, or: SELECT pg_terminate_backend({pid}); for a prepared transaction COMMIT"
        " PREPARED or ROLLBACK PREPARED.",
    ),
    "prepared-transaction": Kind(
        "warning",
        "A prepared transaction outlives its session and restarts. Vacuum removes no rows that "
        "died since, and strict groups wait for what it published.",
        "In database {database}: COMMIT PREPARED '{gid}'; or ROLLBACK PREPARED '{gid}';",
    ),
    "slot-unused": Kind(
        "warning",
        "A replication slot without a reader keeps WAL until the disk is full, and may hold "
        "back vacuum.",
        "Start its reader, or: SELECT pg_drop_replication_slot('{slot}');",
    ),
    "connections-nearly-used": Kind(
        "warning",
        "Soon no program can connect any more. Consumers that lost their connection cannot "
        "reconnect.",
        "Close idle connections, put a pooler in front of the publishers, or raise "
        "max_connections.",
    ),
    # the server
    "autovacuum-off": Kind(
        "warning",
        "Small tables that every claim changes grow without bound, and claims slow down.",
        "In postgresql.conf: autovacuum = on and track_counts = on.",
    ),
    "autovacuum-off-table": Kind(
        "warning",
        "The table grows without bound, and queries on it slow down.",
        "ALTER TABLE {table} RESET (autovacuum_enabled);",
    ),
    "dead-rows": Kind(
        "warning",
        "Every claim reads past the dead rows of the small tables.",
        "Check what holds vacuum back: long transactions, prepared ones, replication slots. "
        "Then: VACUUM {table};",
    ),
    "fsync-off": Kind(
        "error",
        "A crash of the machine may lose everything, including committed messages.",
        "In postgresql.conf: fsync = on",
    ),
    "full-page-writes-off": Kind(
        "error",
        "A crash of the machine may leave torn pages: a damaged outbox.",
        "In postgresql.conf: full_page_writes = on, unless the file system writes pages whole.",
    ),
    "synchronous-commit-off": Kind(
        "warning",
        "A crash loses messages that were published, and acknowledgements, in the last moments "
        "before it.",
        "SET synchronous_commit = on for publishers and consumers; see where it is off: {where}.",
    ),
    "clocks-differ": Kind(
        "note",
        "Leases and due times use the database's clock and are not affected. Times that a "
        "program computes, such as deliver_at, are wrong by the difference.",
        "Set both clocks by NTP.",
    ),
    "clock-went-back": Kind(
        "warning",
        "The database's clock was set back, or was wrong. Leases and due times last longer by "
        "the difference, and replay by time is inexact.",
        "Set the server's clock by NTP. Late messages are delivered once the clock has caught up.",
    ),
    # groups
    "group-unused": Kind(
        "warning",
        "Messages that a group has not read must be kept. No consumer of this group runs.",
        "Start its consumers. If the group is not needed any more: durable-notify group delete "
        "{group}",
    ),
    "topic-unclaimed": Kind(
        "warning",
        "Messages that the group has not read must be kept, and it never gets them. Its consumers "
        "no longer ask for the topic, or those that do are stopped.",
        "Start a consumer that reads the topic. If the group does not need it any more: "
        "durable-notify group unsubscribe {group} {topic}",
    ),
    "pattern-unclaimed": Kind(
        "warning",
        "The group is not subscribed to these topics, so retention may remove their messages "
        "before the group gets them. Only its consumers, and maintenance, find new topics.",
        "Start a consumer that reads the pattern. If the group does not need it any more: "
        "durable-notify group unsubscribe {group} '{pattern}'",
    ),
    "group-paused": Kind(
        "note",
        "A paused group receives nothing, and the messages it has not read must be kept.",
        "durable-notify group resume {group}",
    ),
    "handler-at-work-for-long": Kind(
        "warning",
        "A handler that does not return keeps its message from all other consumers, and the "
        "next message of its key. Or it is slower than it should be.",
        "Check what {owner} is doing. Give its consumer a handler_timeout, or end the process: "
        "another consumer receives its messages once the lease has expired.",
    ),
    "messages-unsettled": Kind(
        "warning",
        "It fails again and again, or its handler does not return. It is late, and so are the "
        "later messages of its key. It must be kept until it is settled.",
        "See durable-notify retries errors --group {group}, and durable-notify group blocked "
        "{group}. Fix its handler, or: durable-notify retries drop --group {group} --id ID",
    ),
    "dead-letters": Kind(
        "warning",
        "Messages that were given up are kept until you redrive or discard them.",
        "Find the reason with durable-notify dead-letters --group {group}; then run "
        "durable-notify dead-letters redrive, or discard.",
    ),
    # retention
    "no-partition-ahead": Kind(
        "warning",
        "Without a partition created ahead, new messages go to outbox_default. Maintenance "
        "cannot drop these at once.",
        "Run: durable-notify maintain, each minute from a timer, or let consumers do it: "
        "durable-notify grant ROLE --maintain. A long transaction that publishes delays it.",
    ),
    "partition-held": Kind(
        "warning",
        "No group needs the messages of the partition, but an older snapshot, such as a "
        "backup's, may still read them. Until it ends, the disk space is not free.",
        "Make its program end it, or: SELECT pg_terminate_backend({pid}); for a slot: SELECT "
        "pg_drop_replication_slot('...');",
    ),
    "default-partition-used": Kind(
        "note",
        "Messages published while no partition was ready are removed row by row, not dropped.",
        "Run maintenance regularly, so that no more messages go there. Retention removes those "
        "that are there.",
    ),
    "topic-kept-forever": Kind(
        "note",
        "A topic from which nothing is removed grows until the disk is full.",
        "Set how long its messages are kept, read or not: durable-notify retention {topic} --age "
        "30d, or --forever if you mean it",
    ),
    "retention-blocked": Kind(
        "warning",
        "A group that lags keeps messages from being removed. The disk fills until the group "
        "has settled them.",
        "Start its consumers, or more of them. If the group is not needed: durable-notify group"
        " delete {group}, or --on-lag lose of durable-notify retention {topic}",
    ),
    "archive-behind": Kind(
        "warning",
        "Only archived messages are removed. Until then the disk fills.",
        "Archive it: durable-notify maintain --archive DIR",
    ),
    "messages-lost": Kind(
        "note",
        "With --on-lag lose the group never receives them.",
        "See durable-notify lost-messages --group {group}. Run more consumers, or keep topic "
        "{topic} longer.",
    ),
    "maintenance-late": Kind(
        "warning",
        "Until maintenance runs, no message is removed and old bookkeeping is not deleted.",
        "Run: durable-notify maintain, each minute from a timer, or let consumers do it: "
        "durable-notify grant ROLE --maintain",
    ),
    "maintenance-failed": Kind(
        "warning",
        "The step is not done until the cause of its error is fixed.",
        "Fix the error that it reports, then run: durable-notify maintain",
    ),
    "schedule-late": Kind(
        "warning",
        "Its messages are not published until a scheduler runs, or can publish to the topic.",
        "Run: durable-notify schedule run. If it runs, its log says why this one fails. If it is "
        "not wanted: durable-notify schedule delete {schedule}",
    ),
    "check-failed": Kind(
        "warning",
        "A check could not run: what it examines is not as this release knows it.",
        "Check whether the schema was changed by hand: compare it with durable-notify migrate "
        "--sql.",
    ),
}
