"""The SQL that only the dashboard sends. JSON comes as text, with every digit."""

__all__ = [
    "AUDIT", "BLOCKED", "BLOCKING_SESSIONS", "BROWSE", "DEAD_COUNT", "DEAD_IDS", "DEAD_LETTERS",
    "DEAD_TYPES", "LEASES", "LOSSES", "MESSAGE", "REPLAYS", "RETRIES", "RETRY_COUNT",
    "SESSIONS", "STATES",
]  # fmt: skip

BROWSE = """
SELECT id, key, payload::text AS payload, data, headers::text AS headers, published_at, bytes,
       continue_before
  FROM durable_notify.browse(%s, %s::bigint, %s::timestamptz, %s::text, %s::jsonb, %s::text[],
                             %s::jsonb, %s, %s)
"""
#: One message; large payloads too.
MESSAGE = """
SELECT id, key, payload::text AS payload, data, headers::text AS headers, published_at, bytes
  FROM durable_notify.browse(%s, %s::bigint + 1, max_messages => 1, max_scanned => 1,
                             max_bytes => 2147483647)
 WHERE id = %s
"""
STATES = """
SELECT group_name, state, reason, owner, since, until, attempt, error::text AS error,
       published_before
  FROM durable_notify.message_states(%s, %s)
"""
#: The last arguments are keyset pagination, what died before the last one of the page before, and
#: at how many to look. If there may be more than these, the last row has no group.
DEAD_LETTERS = """
SELECT group_name, topic, message_id, key,
       CASE WHEN COALESCE(pg_column_size(payload), 0) <= 20000 THEN payload::text END AS payload,
       CASE WHEN COALESCE(pg_column_size(data), 0) <= 20000 THEN data END AS data,
       COALESCE(pg_column_size(payload), pg_column_size(data)) AS bytes,
       headers::text AS headers, published_at, attempt, reason, dead_at, error::text AS error
  FROM durable_notify.dead_letters(%s, %s, %s::bigint[], %s, %s, %s, %s, %s, %s, %s, %s)
 ORDER BY group_name IS NULL, dead_at DESC, message_id DESC
"""
#: How many messages a redrive or a discard means.
DEAD_COUNT = """
SELECT count(DISTINCT (topic, message_id)) AS messages
  FROM durable_notify.dead_letters(%s, %s, %s::bigint[], %s, %s, %s, %s)
"""
#: Which ones, the oldest first.
DEAD_IDS = """
SELECT message_id FROM durable_notify.dead_letters(%s, %s, %s::bigint[], %s, %s, %s, %s)
 ORDER BY dead_at, message_id
"""
#: Trap: what follows the colon of a reason may quote a payload.
DEAD_TYPES = """
SELECT error ->> 'type' AS error_type,
       CASE WHEN error ->> 'type' IS NULL THEN split_part(reason, ':', 1) END AS reason,
       count(*) AS messages
  FROM durable_notify.dead_letters(%s, %s, max_messages => 100, max_scanned => %s)
 WHERE group_name IS NOT NULL
 GROUP BY 1, 2 ORDER BY 3 DESC LIMIT 20
"""
RETRIES = """
SELECT group_name, topic, message_id, key, attempt, max_attempts, due_at, error::text AS error
  FROM durable_notify.retries(%s, %s, max_messages => %s)
"""
RETRY_COUNT = """
SELECT count(*) AS messages FROM durable_notify.retries(%s, %s, %s::bigint[], %s, %s, %s, %s)
"""
BLOCKED = """
SELECT group_name, topic, key, waiting, since, message_id, state, owner, until, attempt,
       error::text AS error
  FROM durable_notify.blocked_keys(%s, %s, %s) LIMIT 100
"""
#: What consumers and handlers of a group do, those in a transaction first. Trap: to ask who blocks
#: takes all lock partitions for a moment: only for who waits.
SESSIONS = """
SELECT pid, application_name, client_addr::text AS client_addr, state, xact_start, state_change,
       left(query, 500) AS query,
       CASE WHEN wait_event_type = 'Lock' THEN pg_catalog.pg_blocking_pids(pid) END AS waits_for
  FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND application_name = ANY (%s)
 ORDER BY xact_start, pid LIMIT 100
"""
BLOCKING_SESSIONS = """
SELECT pid, application_name, state, xact_start, left(query, 500) AS query
  FROM pg_catalog.pg_stat_activity WHERE pid = ANY (%s)
"""
LEASES = """
SELECT topic, group_name, owner, claimed_at, deadline, messages FROM durable_notify.leases()
 LIMIT 200
"""
#: These are lists by id, the newest first; the first argument is the last id of the page before.
REPLAYS = """
SELECT job_id, group_name, topic, state, total, done, rate_limit, created_at, created_by, why,
       ended_at
  FROM durable_notify.replay_jobs() WHERE job_id < %s ORDER BY job_id DESC LIMIT %s
"""
LOSSES = """
SELECT id, at, group_name, topic, messages, reason
  FROM durable_notify.lost_messages() WHERE id < %s ORDER BY id DESC LIMIT %s
"""
AUDIT = """
SELECT id, at, who, acting_as, application, action, group_name, topic, messages, why
  FROM durable_notify.audit_entries(before_id => %s, max_entries => %s, group_name => %s)
"""
