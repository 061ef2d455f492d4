"""All SQL that the library sends, by area, under the name of the function that it calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import LiteralString

__all__: list[str] = []

# JSON is read as text: one value that Python cannot decode must not stop the driver from reading
# the rest.

# Publishing

PUBLISH = "SELECT durable_notify.publish(%s::text, %s::jsonb, %s::text, %s::jsonb, %s::bytea)"
PUBLISH_WITH_OPTIONS = (
    "SELECT durable_notify.publish(%s::text, %s::jsonb, %s::text, %s::jsonb, %s::bytea,"
    " %s::timestamptz, %s::interval, %s::timestamptz, %s::interval, %s::text, %s::interval)"
)
PUBLISH_MANY = (
    "SELECT durable_notify.publish_many("
    "%s::text, %s::text[]::jsonb[], %s::text[], %s::text[]::jsonb[], %s::bytea[])"
)
PUBLISH_MANY_TIMED = (
    "SELECT durable_notify.publish_many("
    "%s::text, %s::text[]::jsonb[], %s::text[], %s::text[]::jsonb[], %s::bytea[],"
    " %s::timestamptz[], %s::interval[], %s::timestamptz[], %s::interval[])"
)
#: Calls publish() for each message, in order and in one statement.
PUBLISH_EACH = (
    "SELECT durable_notify.publish(%s::text, m.payload::jsonb, m.key, m.headers::jsonb, m.data,"
    " m.deliver_at, m.delay, m.expires_at, m.ttl, m.dedup_key, m.dedup_window)"
    " FROM ROWS FROM (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::text[]),"
    " pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::bytea[]),"
    " pg_catalog.unnest(%s::timestamptz[]), pg_catalog.unnest(%s::interval[]),"
    " pg_catalog.unnest(%s::timestamptz[]), pg_catalog.unnest(%s::interval[]),"
    " pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::interval[]))"
    " AS m (payload, key, headers, data, deliver_at, delay, expires_at, ttl, dedup_key,"
    " dedup_window)"
)

# Wake-ups: on the listening session, whose statements have their values as literals ({})

ARM_TOPICS = "SELECT durable_notify._arm_topics({})"
DISARM_TOPICS = "SELECT durable_notify._disarm_topics({})"
UNLOCK_ALL = "SELECT pg_catalog.pg_advisory_unlock_all()"
STILL_RUNNING = "SELECT pg_catalog.unnest(durable_notify.still_running({}::xid8[]))"
NOTIFY = "SELECT pg_catalog.pg_notify(%s, %s)"
LISTENING_CHANNELS = "SELECT c.name FROM pg_catalog.pg_listening_channels() AS c (name)"
#: The session is idle most of the time, and arming has to see what is committed after it.
LISTENER_SETTINGS = (
    "SELECT pg_catalog.set_config('idle_session_timeout', '0', false),"
    " pg_catalog.set_config('default_transaction_isolation', 'read committed', false)"
)

_CHANNEL: LiteralString = (
    "CASE WHEN t.topic = '' OR pg_catalog.right(t.topic, 2) = '.>' THEN 'durable_notify'"
    " ELSE durable_notify.channel(t.topic) END"
)
#: The channels of topics; "" stands for all topics, and "orders.>" for those whose names begin so.
CHANNELS_OF_TOPICS = f"SELECT t.topic, {_CHANNEL} FROM pg_catalog.unnest({{}}::text[]) AS t (topic)"  # noqa: S608 - of constants, as those below
#: The topics whose channels this session does not listen to.
MISSED_TOPICS = (
    "SELECT t.topic FROM pg_catalog.unnest({}::text[]) AS t (topic) WHERE "  # noqa: S608
    + _CHANNEL
    + " <> ALL (ARRAY(SELECT pg_catalog.pg_listening_channels()))"
)
#: The channels on which another session would ring for topics.
RING_CHANNELS: LiteralString = f"SELECT {_CHANNEL} FROM pg_catalog.unnest(%s::text[]) AS t (topic)"  # noqa: S608
#: The channels that this session listens to, whether it lacks the lock of a doorbell that it has
#: armed, and whether the queue of notifications is too full to arm doorbells.
LISTENER_CHECK = (
    "SELECT c.name, b.lost, pg_catalog.pg_notification_queue_usage() > 0.5"
    " FROM pg_catalog.pg_listening_channels() AS c (name),"
    " (SELECT (SELECT pg_catalog.count(DISTINCT pg_catalog.hashtext(t.topic))"
    " FROM pg_catalog.unnest({}::text[]) AS t (topic)) <>"
    " (SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks l"
    " WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'advisory'"
    " AND l.classid = 1685024362 AND l.mode = 'ShareLock')) AS b (lost)"
)

# Consuming

IS_OWNER = "SELECT durable_notify._is_owner()"
SUBSCRIBE = "SELECT durable_notify.subscribe(%s, %s::text[], %s, %s::timestamptz)"
CONFIGURE = "SELECT durable_notify.configure(%s, %s::jsonb)"
GROUP_OPTIONS = (
    "SELECT g.order_by, g.exclusive, g.max_attempts,"
    " EXTRACT(epoch FROM g.retry_base)::float8, g.retry_factor,"
    " EXTRACT(epoch FROM g.retry_max)::float8, g.retry_delays, g.on_expiry, g.park_limit,"
    " g.max_in_flight, g.rate_limit FROM durable_notify.groups(%s) AS g"
)
NEVER_PUBLISHED = "SELECT durable_notify.never_published(%s, %s::text[])"
DISCOVER = "SELECT durable_notify.discover(%s, %s::text[])"
CLAIM = (
    "SELECT token, id, topic, key, payload::text, data, headers::text, published_at, attempt,"
    " order_key"
    " FROM durable_notify.claim("
    "%s, %s::text[], %s, pg_catalog.make_interval(secs => %s), %s, %s, true)"
)
NEXT_DUE = "SELECT durable_notify.next_due(%s, %s::text[], %s)"
ADVANCE_REPLAYS = "SELECT durable_notify.advance_replays(%s, %s::text[])"
RENEW_ACTIVE = "SELECT durable_notify.renew_active(%s, %s, pg_catalog.make_interval(secs => %s))"
RESIGN_ACTIVE = "SELECT durable_notify.resign_active(%s, %s)"

# Settling

ACK = "SELECT durable_notify.settle(%s, %s::bigint[]), pg_catalog.pg_current_xact_id()::text"
SETTLE = (
    "SELECT durable_notify.settle(%s, %s::bigint[], %s::bigint[], %s::bigint[],"
    " (SELECT pg_catalog.array_agg(pg_catalog.make_interval(secs => d) ORDER BY n)"
    " FROM pg_catalog.unnest(%s::float8[]) WITH ORDINALITY AS t (d, n)),"
    " %s::text[]::jsonb[], %s::text[], %s::text[]::jsonb[]),"
    " pg_catalog.pg_current_xact_id()::text"
)
EXTEND = "SELECT durable_notify.extend(%s::bigint[], pg_catalog.make_interval(secs => %s))"
RELEASE = "SELECT durable_notify.release(%s::bigint[], %s)"
UNACKNOWLEDGED = "SELECT message_id, is_dead FROM durable_notify.unacknowledged(%s, %s::bigint[])"
ENDED_TRANSACTIONS = (
    "SELECT t.name FROM pg_catalog.unnest(%s::text[]) AS t (name)"
    " WHERE pg_catalog.pg_xact_status(t.name::pg_catalog.xid8) IS DISTINCT FROM 'in progress'"
)
ONCE = "SELECT durable_notify.once(%s, %s)"

# Reading without a group

LOG_ID = "SELECT durable_notify.log_id()::text"
TOPICS = "SELECT topic FROM durable_notify.topics()"
SOME_TOPICS = "SELECT topic FROM durable_notify.topics() LIMIT 10000"
READ = (
    "SELECT window_s0::text, window_h0, window_s1::text, window_h1, expired, id, key,"
    " payload::text, data, headers::text, published_at"
    " FROM durable_notify.read(%s, %s::pg_snapshot, %s, %s::pg_snapshot, %s, %s, %s)"
)
READ_FROM = "SELECT s0::text, h0 FROM durable_notify.read_from(%s, %s, %s::timestamptz)"
LAST_REMOVED = (
    "SELECT removed_id, removed_xid::text, pg_catalog.pg_current_snapshot()::text"
    " FROM durable_notify.last_removed(%s)"
)
LATEST = (
    "SELECT s0::text, h0, id, key, payload::text, data, headers::text, published_at"
    " FROM durable_notify.latest(%s)"
)

# Groups

STATUS = (
    "SELECT topic, group_name, last_id, unread, oldest_unread, deferred, leases, leased, dead,"
    " is_exact, delivered_id, expired, asleep, retrying, parked, oldest_unsettled"
    " FROM durable_notify.status(%s::integer)"
)
STATUS_OF_MOST = (
    f"SELECT * FROM ({STATUS} ORDER BY COALESCE(unread + deferred + leased, 0) DESC,"  # noqa: S608
    " COALESCE(dead, 0) DESC, topic, group_name LIMIT %s) AS most ORDER BY topic, group_name"
)
GROUPS = (
    "SELECT name, order_by, exclusive, max_attempts, EXTRACT(epoch FROM retry_base)::float8,"
    " retry_factor, EXTRACT(epoch FROM retry_max)::float8, retry_delays, on_expiry, park_limit,"
    " max_in_flight, rate_limit, paused_at, created_at, topics, patterns, active, active_until"
    " FROM durable_notify.groups(%s) ORDER BY name"
)
PAUSE = "SELECT durable_notify.pause(%s)"
RESUME = "SELECT durable_notify.resume(%s)"
RENAME_GROUP = "SELECT durable_notify.rename_group(%s, %s)"
DELETE_GROUP = "SELECT durable_notify.delete_group(%s)"
UNSUBSCRIBE = "SELECT durable_notify.unsubscribe(%s, %s::text[], %s)"
BLOCKING_PUBLISHERS = (
    "SELECT pid, database, prepared, started_at, query_started_at, state, query"
    " FROM durable_notify.blocking_publishers(%s)"
)
NOTIFY_POLICY = "SELECT durable_notify.notify_policy(%s)"
SET_NOTIFY_POLICY = "SELECT durable_notify.set_notify_policy(%s, %s)"
AUDIT_ENTRIES = (
    "SELECT id, at, who, acting_as, application, action, group_name, topic, messages, why,"
    " details::text FROM durable_notify.audit_entries(%s, NULL, %s)"
)
REANCHOR = "SELECT group_name, topic, unread FROM durable_notify.reanchor(%s)"

# Replay

SEEK = (
    "SELECT redelivered, skipped FROM durable_notify.seek("
    "%s, %s, %s::bigint, %s::timestamptz, %s, %s, %s, %s, %s)"
)
START_REPLAY = (
    "SELECT job_id, total FROM durable_notify.start_replay("
    "%s, %s, %s::bigint, %s::bigint, %s::timestamptz, %s::timestamptz, %s::text[], %s::jsonb,"
    " %s::jsonb, %s::jsonpath, %s::float8, %s, %s)"
)
REPLAY_JOBS = (
    "SELECT job_id, group_name, topic, state, total, done, last_id, rate_limit, created_at,"
    " created_by, why, ended_at FROM durable_notify.replay_jobs() ORDER BY job_id DESC LIMIT %s"
)
CANCEL_REPLAY = "SELECT durable_notify.cancel_replay(%s)"

# Dead letters

_FILTER = "%s::text, %s::text, %s::bigint[], %s::text, %s::text, %s::timestamptz, %s::timestamptz"
DEAD_LETTERS = (
    "SELECT group_name, topic, message_id, key, payload::text, data, headers::text,"  # noqa: S608
    " published_at, attempt, reason, dead_at, error::text"
    f" FROM durable_notify.dead_letters({_FILTER})"
    " ORDER BY group_name, topic, message_id LIMIT %s"
)
REDRIVE = f"SELECT durable_notify.redrive({_FILTER}, %s, %s)"
DISCARD = f"SELECT durable_notify.discard({_FILTER}, %s, %s)"

# Retries

RETRIES = (
    "SELECT group_name, topic, message_id, key, payload::text, data, headers::text,"  # noqa: S608
    " published_at, attempt, max_attempts, due_at, error::text"
    f" FROM durable_notify.retries({_FILTER}, %s)"
)
RETRY_COUNTS = (
    "SELECT group_name, topic, error_type, messages, max_attempt, next_due, last_due, example"
    " FROM durable_notify.retry_counts(%s, %s)"
)
RETRY_NOW = f"SELECT durable_notify.retry_now({_FILTER}, %s, %s)"
BLOCKED_KEYS = (
    "SELECT group_name, topic, key, waiting, since, message_id, state, owner, until, attempt,"
    " error::text FROM durable_notify.blocked_keys(%s, %s, %s)"
)
DROP_RETRIES = f"SELECT durable_notify.drop_retries({_FILTER}, %s, %s)"

# Access

GRANT_ACCESS = "SELECT durable_notify.grant_access(%s, %s, %s::text[], %s)"
REVOKE_ACCESS = "SELECT durable_notify.revoke_access(%s, %s, %s::text[], %s)"
ACCESS = (
    "SELECT r.rolname, a.action, NULLIF(a.pattern, ''), NULLIF(a.group_name, ''), a.granted_at,"
    " a.granted_by FROM durable_notify.access a JOIN pg_catalog.pg_roles r ON r.oid = a.role"
    " ORDER BY 1, 2, 3, 4"
)

# Retention

SET_RETENTION = (
    "SELECT durable_notify.set_retention(%s, %s::interval, %s::bigint, %s, %s, %s::bigint, %s, %s,"
    " %s::interval, %s)"
)
DELETE_RETENTION = "SELECT durable_notify.delete_retention(%s)"
RETENTION = (
    "SELECT pattern, EXTRACT(epoch FROM max_age)::float8, max_bytes, when_settled, on_lag,"
    " alarm_bytes, compact, archive, set_at, set_by, EXTRACT(epoch FROM min_age)::float8"
    " FROM durable_notify.retention()"
)
SET_RECORD_AGE = "SELECT durable_notify.set_record_age(%s, %s::interval)"
RECORD_AGES = "SELECT kind, EXTRACT(epoch FROM age)::float8 FROM durable_notify.record_ages()"
RETENTION_BLOCKERS = (
    "SELECT topic, group_name, from_id, upto_id, published_at, bytes, alarm"
    " FROM durable_notify.retention_blockers()"
)
TOPIC_STORAGE = (
    "SELECT topic, groups, messages, bytes, oldest, pattern FROM durable_notify.topic_storage()"
)
LOST_MESSAGES = (
    "SELECT id, at, group_name, topic, first_id, last_id, messages, reason"
    " FROM durable_notify.lost_messages(%s) LIMIT %s"
)

# Schedules

NOW = "SELECT pg_catalog.clock_timestamp()"
SET_SCHEDULE = (
    "SELECT durable_notify.set_schedule(%s::text, %s::text, %s::jsonb, %s::text, %s::interval,"
    " %s::text, %s::timestamptz, %s::text, %s::jsonb, %s::text, %s, %s::text)"
)
SCHEDULES = (
    "SELECT name, topic, payload::text, key, headers::text, cron, every, time_zone, missed,"
    " max_missed, program, next_at, last_at, last_id, paused_at, seconds"
    " FROM durable_notify.schedules()"
)
PUBLISH_TICKS = (
    "SELECT durable_notify.publish_ticks(%s::text, %s::timestamptz, %s::timestamptz[],"
    " %s::timestamptz)"
)
PAUSE_SCHEDULE = "SELECT durable_notify.pause_schedule(%s::text)"
RESUME_SCHEDULE = "SELECT durable_notify.resume_schedule(%s::text, %s::timestamptz)"
DELETE_SCHEDULE = "SELECT durable_notify.delete_schedule(%s::text)"
RUN_SCHEDULE = "SELECT durable_notify.run_schedule(%s::text)"

# Operator events

SET_OPERATOR_EVENTS = "SELECT durable_notify.set_operator_events(%s::text, %s::text, %s)"
OPERATOR_EVENTS = "SELECT kind, group_name, set_at, set_by FROM durable_notify.operator_events()"

# Erasure

ERASE_BATCH = (
    "SELECT topic, upto_id, places::text FROM durable_notify.erase_batch("
    "%s, %s::text[], %s::text, %s::bigint, %s, %s::text)"
)

# Maintenance

MAY_MAINTAIN = (
    "SELECT pg_catalog.has_function_privilege('durable_notify.maintain_due(interval)', 'EXECUTE')"
)
MAINTAIN_DUE = "SELECT durable_notify.maintain_due(pg_catalog.make_interval(secs => %s))"
MAINTAIN_BEGIN = "SELECT durable_notify.maintain_begin(%s, pg_catalog.make_interval(secs => %s))"
MAINTAIN_STEPS = "SELECT step, topic FROM durable_notify.maintain_steps()"
MAINTAIN_STEP = (
    "SELECT durable_notify.maintain_step(%s, %s, %s,"
    " pg_catalog.make_interval(secs => %s::float8), pg_catalog.make_interval(secs => %s::float8))"
)
MAINTAIN_ALARMS = "SELECT group_name, bytes, topic FROM durable_notify.maintain_alarms()"
MAINTAIN_END = "SELECT durable_notify.maintain_end(%s, %s::jsonb)"
ARCHIVED_TOPICS = (
    "SELECT r.topic FROM durable_notify._topics() AS r (topic)"
    " WHERE (durable_notify._retention_for(r.topic)).archive"
)
PLAN_ARCHIVE = "SELECT from_id, below FROM durable_notify.plan_archive(%s)"
ARCHIVE_PAGE = (
    "SELECT id, topic, key, payload::text, data, headers::text, created_at, deliver_at, expires_at"
    " FROM durable_notify.outbox WHERE topic = %s AND id >= %s AND id < %s ORDER BY id LIMIT %s"
)
STILL_ARCHIVING = "SELECT durable_notify.still_archiving(%s, %s, %s, %s)"
ADVANCE_ARCHIVE = "SELECT durable_notify.advance_archive(%s, %s, %s, %s)"

# Bridges

SET_MIRROR = "SELECT durable_notify.set_mirror(%s, %s)"
CREATE_COMPAT = "SELECT durable_notify.create_compat()"
DROP_COMPAT = "SELECT durable_notify.drop_compat()"
WATCH = "SELECT durable_notify.watch(%s::regclass, %s, %s::text[], %s)"
UNWATCH = "SELECT durable_notify.unwatch(%s::regclass, %s)"
BRIDGES = "SELECT kind, source, target, columns, with_old FROM durable_notify.bridges()"
FULL_NAME_OF_TABLE = (
    "SELECT pg_catalog.concat_ws('.', pg_catalog.quote_ident(n.nspname),"
    " pg_catalog.quote_ident(c.relname)) FROM pg_catalog.pg_class c"
    " JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE c.oid = pg_catalog.to_regclass(%s)"
)

# Capturing a channel

CAPTURE_SETTINGS = (
    "SELECT pg_catalog.set_config('idle_session_timeout', '0', false),"
    " pg_catalog.set_config('tcp_keepalives_idle', %s, false),"
    " pg_catalog.set_config('tcp_keepalives_interval', %s, false),"
    " pg_catalog.set_config('tcp_keepalives_count', '3', false)"
)
THIS_SESSION = (
    "SELECT pid, backend_start::text FROM pg_catalog.pg_stat_activity"
    " WHERE pid = pg_catalog.pg_backend_pid()"
)
TRY_CAPTURE_LOCK = "SELECT pg_catalog.pg_try_advisory_lock(%s, pg_catalog.hashtext(%s))"
#: Ends the session that has the lock, if it is an older one of this very capture, or has been
#: silent for so many of the heartbeats that it has in its name. Trap: a dead peer's session stays
#: for hours.
END_DEAD_CAPTURE = """
    SELECT pg_catalog.pg_terminate_backend(a.pid)
      FROM pg_catalog.pg_locks l
      JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
     WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objsubid = 2 AND l.granted
       AND l.objid = (pg_catalog.hashtext(%s)::bigint & 4294967295)::oid
       AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d
                          WHERE d.datname = pg_catalog.current_database())
       AND (a.pid = %s AND a.backend_start::text = %s
            OR a.state_change < pg_catalog.clock_timestamp() - %s * pg_catalog.make_interval(
               secs => pg_catalog.substring(a.application_name, ' capture ([0-9.]+)$')::float8))"""
SNAPSHOT = "SELECT pg_catalog.pg_current_snapshot()::text, pg_catalog.clock_timestamp()"
CAPTURE_BEGIN = "SELECT heard_until, by_notify FROM durable_notify.capture_begin(%s, %s, %s)"
ALREADY_PUBLISHED = (
    "SELECT ord, ids FROM durable_notify.already_published("
    "%s, %s, %s::pg_snapshot, %s::bigint[], %s::text[], %s::int[])"
)
CAPTURE = "SELECT durable_notify.capture(%s, %s, %s, %s, %s::text[], %s::int[], %s)"
CAPTURE_PROGRESS = "SELECT durable_notify.capture_progress(%s, %s, %s, %s, %s, %s)"

# Webhooks

CREATE_WEBHOOK = (
    "SELECT durable_notify.create_webhook("
    "%s, %s::text[], %s, %s::jsonb, %s::text[], %s::jsonb, %s, %s::timestamptz)"
)
CHANGE_WEBHOOK = "SELECT durable_notify.change_webhook(%s, %s::jsonb)"
ROTATE_WEBHOOK = (
    "SELECT durable_notify.rotate_webhook_secret(%s, pg_catalog.make_interval(secs => %s))"
)
DELETE_WEBHOOK = "SELECT durable_notify.delete_webhook(%s)"
NOTE_WEBHOOK = "SELECT durable_notify.note_webhook(%s, %s, %s)"
WEBHOOKS = (
    "SELECT name, url, topics, options::text, secrets, salt::text, secret_version,"
    " old_secret_until, failing_since, failure, paused_at, created_at, changed_at, exclusive"
    " FROM durable_notify.webhooks(%s)"
)

# Testing

PUBLISHED = (
    "SELECT id, key, payload::text, data, headers::text, created_at, deliver_at,"
    " NULLIF(expires_at, 'infinity')"  # which psycopg does not read
    " FROM durable_notify.outbox WHERE topic = %s ORDER BY id"
)
PUBLISHED_TOPICS = (
    "SELECT topic, pg_catalog.count(*) FROM durable_notify.outbox GROUP BY topic ORDER BY topic"
    " LIMIT 100"
)
#: A TRUNCATE of all tables has emptied schema_version, too.
RESET = (
    "WITH restored AS (INSERT INTO durable_notify.schema_version (version_num) SELECT %s::text"
    " WHERE NOT EXISTS (SELECT FROM durable_notify.schema_version))"
    " SELECT durable_notify.empty_all()"
)
#: The columns by which something becomes due, expires or is found by its time.
_TIMES: dict[LiteralString, tuple[LiteralString, ...]] = {
    "active_consumer": ("since", "deadline"),
    "audit": ("at",),
    "dead_letter": ("published_at", "dead_at"),
    "dedup": ("until",),
    "deferred": ("due_at",),
    "lease": ("claimed_at", "deadline"),
    "lease_deadline": ("deadline",),
    "maintenance": ("done_at", "beat_at"),
    "outbox": ("created_at", "deliver_at", "expires_at"),
    "processed_message": ("created_at",),
    "rate_bucket": ("at",),
    "replay_job": ("since", "until", "stepped_at"),
    "schedule": ("next_at", "last_at"),
    "stretch_time": ("latest",),
    "webhook": ("old_secret_until", "failing_since"),
}
#: An open transaction of the test may have settled a lease, and would be waited for for ever.
_UNLESS_LOCKED: LiteralString = (
    " WHERE t.token IN (SELECT l.token FROM durable_notify.lease l FOR UPDATE SKIP LOCKED)"
)
_MOVED: LiteralString = ", ".join(
    f"{table} AS (UPDATE durable_notify.{table} AS t SET "  # noqa: S608
    + ", ".join(f"{column} = t.{column} - past.length" for column in columns)
    + f" FROM past{_UNLESS_LOCKED if table == 'lease' else ''})"
    for table, columns in _TIMES.items()
)
#: Moves all of these into the past, and wakes consumers that wait for a time.
TRAVEL: LiteralString = (
    "WITH past AS (SELECT pg_catalog.make_interval(secs => %s::float8) AS length), "  # noqa: S608
    + _MOVED
    + " SELECT pg_catalog.count(durable_notify._ring(s.topic, '0'))"
    " FROM (SELECT DISTINCT topic FROM durable_notify.subscription) AS s"
)
