"""What the doctor can find: each kind with its level, why it matters and what to do.

The texts are docs/doctor.md's, too; a test compares the two. A word in braces is a value of the
finding's ``data``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

__all__ = ["KINDS", "LEVELS", "Finding", "Kind", "finding"]

Level = Literal["ok", "note", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "error")


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """What the doctor has seen.

    Attributes:
        name: its kind, which does not change from release to release; where all is well, the
            check's name.
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
        "What was not examined by then is not known.",
        "Run it again once PostgreSQL answers; if it ends there again, look into its log.",
    ),
    "not-looked-at": Kind(
        "note",
        "What this role may not see, or could not be seen in time, may be well or not.",
        "Run the doctor as the owner of the schema, with pg_read_all_stats: "
        "GRANT pg_read_all_stats TO {role};",
    ),
    "server-version": Kind(
        "warning",
        "The library is tested on PostgreSQL {oldest} to {newest}, and relies on how these work.",
        "Upgrade the server, or the library where the server is newer.",
    ),
    "standby": Kind(
        "error",
        "A standby takes no publishing, no claims and no LISTEN.",
        "Give the primary, or all hosts with target_session_attrs=read-write.",
    ),
    "read-only": Kind(
        "error",
        "Sessions cannot publish or claim where they begin read-only.",
        "Take default_transaction_read_only back where it is set: postgresql.conf, ALTER DATABASE, "
        "ALTER ROLE, or the DSN.",
    ),
    # the schema
    "schema-missing": Kind(
        "error", "There is nothing to publish to.", "Run: durable-notify migrate"
    ),
    "schema-too-old": Kind(
        "error",
        "This release of the package does not work with an older schema.",
        "Run: durable-notify migrate",
    ),
    "schema-too-new": Kind(
        "error",
        "A newer release has migrated the database; this one does not know its schema.",
        "Run: pip install --upgrade durable-notify",
    ),
    "no-rights": Kind(
        "error",
        "The role can neither publish nor consume.",
        "Let the owner of the schema grant it something: "
        "durable-notify grant {role} --publish TOPIC",
    ),
    "id-cache": Kind(
        "error",
        "Sessions that draw ids ahead break the order of keys: a later message has a lower id.",
        "ALTER SEQUENCE durable_notify.outbox_id_seq CACHE 1;",
    ),
    "id-not-last": Kind(
        "error",
        "Defaults are evaluated in column order: an id drawn before another column's default has "
        "waited for a lock breaks the order of keys.",
        "Do not add columns to the log. Take the column away: ALTER TABLE durable_notify.outbox "
        "DROP COLUMN {column};",
    ),
    "id-not-always": Kind(
        "error",
        "An id that a publisher chooses may lie behind what groups have read, and is lost to them.",
        "ALTER TABLE durable_notify.outbox ALTER COLUMN id SET GENERATED ALWAYS;",
    ),
    "trigger-not-always": Kind(
        "error",
        "Where the trigger does not fire, nobody is woken and bad rows are let in.",
        "ALTER TABLE {table} ENABLE ALWAYS TRIGGER outbox_after_insert; where there is none, "
        "restore it from durable-notify migrate --sql.",
    ),
    "index-invalid": Kind(
        "error",
        "Claims scan the log instead of the index, or the log takes the same id twice.",
        "REINDEX INDEX CONCURRENTLY {index}; where there is none, restore it from "
        "durable-notify migrate --sql.",
    ),
    "unlogged": Kind(
        "error",
        "PostgreSQL empties unlogged tables after a crash: all messages would be gone.",
        "ALTER TABLE {table} SET LOGGED;",
    ),
    "restored-elsewhere": Kind(
        "error",
        "Transaction ids of another cluster mean nothing here: groups do not claim until it is put "
        "right. Nothing is lost.",
        "Once everything has been copied: durable-notify reanchor",
    ),
    # listening
    "listener-no-connection": Kind(
        "error",
        "Consumers cannot listen, and look for messages once a second instead.",
        "Check the DSN for listening, and whether PostgreSQL runs there.",
    ),
    "listener-elsewhere": Kind(
        "error",
        "Rings stay within one database: nobody who listens there is woken by what is published "
        "here.",
        "Give a DSN for listening that leads to the same database of the same server.",
    ),
    "listener-deaf": Kind(
        "warning",
        "Wake-ups do not arrive: consumers look for messages once a second instead, and those "
        "with polling switched off refuse to run.",
        "A pooler in transaction mode does this. Give consumers a direct listen_dsn, and the "
        "doctor --listen-dsn.",
    ),
    "pooler": Kind(
        "note",
        "A pooler stands in between. Publishing and claiming work through it; listening needs its "
        "session mode, or a direct connection.",
        "Give consumers a direct listen_dsn where the pooler is in transaction mode.",
    ),
    "queue-crowded": Kind(
        "warning",
        "When the queue of notifications is full, commits that ring fail. Half full, consumers "
        "stop asking for rings and poll.",
        "A session that has used LISTEN and sits in a transaction keeps it from shrinking: end the "
        "oldest of them, as in SELECT pg_terminate_backend({pid});",
    ),
    "listener-stuck": Kind(
        "warning",
        "A listener that does not read what is sent to it keeps the queue of notifications from "
        "shrinking, and vacuum from removing dead rows.",
        "End it, and have its program read or close: SELECT pg_terminate_backend({pid});",
    ),
    # sessions
    "long-transaction": Kind(
        "warning",
        "Vacuum removes nothing that died since it began, and no partition is emptied that was "
        "wanted then. If it publishes, strict groups wait for it, what it published comes late, "
        "and no partition is made.",
        "Have its program end it, or: SELECT pg_terminate_backend({pid});",
    ),
    "strict-group-waits": Kind(
        "warning",
        "A strict group hands out nothing newer until this publisher has ended.",
        "Have it end, or: SELECT pg_terminate_backend({pid}); for a prepared one COMMIT PREPARED "
        "or ROLLBACK PREPARED.",
    ),
    "prepared-transaction": Kind(
        "warning",
        "A prepared transaction outlives its session and restarts: vacuum removes nothing that "
        "died since, and strict groups wait for what it published.",
        "In database {database}: COMMIT PREPARED '{gid}'; or ROLLBACK PREPARED '{gid}';",
    ),
    "slot-unused": Kind(
        "warning",
        "A replication slot that nobody reads keeps WAL until the disk is full, and may hold back "
        "vacuum.",
        "Start what reads it, or: SELECT pg_drop_replication_slot('{slot}');",
    ),
    "connections-nearly-used": Kind(
        "warning",
        "Soon nobody can connect any more, consumers that lost their connection included.",
        "Close what is idle, put a pooler in front of the publishers, or raise max_connections.",
    ),
    # the server
    "autovacuum-off": Kind(
        "warning",
        "Small tables that change at each claim grow without bound, and claims slow down.",
        "In postgresql.conf: autovacuum = on and track_counts = on.",
    ),
    "autovacuum-off-table": Kind(
        "warning",
        "The table grows without bound, and what reads it slows down.",
        "ALTER TABLE {table} RESET (autovacuum_enabled);",
    ),
    "dead-rows": Kind(
        "warning",
        "Each claim walks over the dead rows of the small tables.",
        "See what holds vacuum back: long transactions, prepared ones, replication slots. Then: "
        "VACUUM {table};",
    ),
    "fsync-off": Kind(
        "error",
        "A crash of the machine may lose everything, committed messages included.",
        "In postgresql.conf: fsync = on",
    ),
    "full-page-writes-off": Kind(
        "error",
        "A crash of the machine may leave torn pages: a damaged log.",
        "In postgresql.conf: full_page_writes = on, unless the file system writes pages whole.",
    ),
    "synchronous-commit-off": Kind(
        "warning",
        "A crash loses what was published, and acknowledged, in the last moments before it.",
        "SET synchronous_commit = on for publishers and consumers; see where it is off: {where}.",
    ),
    "clocks-differ": Kind(
        "note",
        "Leases and due times are of the database's clock and do not suffer. Times that a program "
        "computes, as in deliver_at, are off by as much.",
        "Set both clocks by NTP.",
    ),
    "clock-went-back": Kind(
        "warning",
        "The database's clock was set back, or stood wrong: leases and due times last longer by as "
        "much, and replay by time is off.",
        "Set the server's clock by NTP. What is late comes once the clock has caught up.",
    ),
    # groups
    "group-unused": Kind(
        "warning",
        "What a group has not read must be kept. Nobody consumes in it.",
        "Start its consumers, or where nobody needs it any more: durable-notify group delete "
        "{group}",
    ),
    "group-paused": Kind(
        "note",
        "A paused group is handed nothing, and what it has not read must be kept.",
        "durable-notify group resume {group}",
    ),
    "handler-at-work-for-long": Kind(
        "warning",
        "A handler that does not return keeps its message from all others, and the next of its "
        "key, or it is slower than it should be.",
        "See what {owner} is at. Give its consumer a handler_timeout, or end the process: what it "
        "holds goes to another once the lease has run out.",
    ),
    "dead-letters": Kind(
        "warning",
        "Messages that were given up are kept, and wait for somebody to look at them.",
        "See why with durable-notify dead-letters --group {group}; then durable-notify "
        "dead-letters redrive, or discard.",
    ),
    # retention
    "no-partition-ahead": Kind(
        "warning",
        "Without a partition made ahead new messages go to outbox_default, of which nothing can be "
        "dropped at once.",
        "Run: durable-notify maintain. Have consumers of the schema's owner do so, or cron. A "
        "transaction that publishes for long puts it off.",
    ),
    "partition-held": Kind(
        "warning",
        "No group wants what is in the partition, but a snapshot from before, a backup's say, may "
        "still be read with. Until it has gone the disk space does not come back.",
        "Have its program end it, or: SELECT pg_terminate_backend({pid}); a slot: SELECT "
        "pg_drop_replication_slot('...');",
    ),
    "default-partition-used": Kind(
        "note",
        "What was published while no partition was ready is removed row by row, not dropped.",
        "Have maintenance done regularly, so that no more goes there. What is there goes by "
        "retention.",
    ),
    "topic-kept-forever": Kind(
        "note",
        "A topic without retention grows until the disk is full.",
        "Say how long it is kept: durable-notify retention {topic} --age 30d",
    ),
    "retention-blocked": Kind(
        "warning",
        "A group that lags keeps messages from going; the disk fills until it has settled them.",
        "Start its consumers, or more of them. Where nobody needs them: durable-notify group "
        "delete {group}, or --on-lag lose of durable-notify retention {topic}",
    ),
    "archive-behind": Kind(
        "warning",
        "Only what is archived goes; until then the disk fills.",
        "Archive it: durable-notify maintain --archive DIR",
    ),
    "messages-lost": Kind(
        "note",
        "With --on-lag lose the group is never handed them.",
        "See durable-notify lost-messages --group {group}. Have more consumers, or keep topic "
        "{topic} longer.",
    ),
    "maintenance-late": Kind(
        "warning",
        "Nothing is removed, and what is over is not cleared away, until somebody maintains.",
        "Run: durable-notify maintain. Have consumers of the schema's owner do so, or cron.",
    ),
    "maintenance-failed": Kind(
        "warning",
        "What the step is to do is left undone, until what keeps it from it is gone.",
        "Put right what it says, then run: durable-notify maintain",
    ),
    "check-failed": Kind(
        "warning",
        "A check could not be carried out: what it looks at is not as this release knows it.",
        "See whether the schema was changed by hand: compare it with durable-notify migrate --sql.",
    ),
}
