"""The SQL that only the dashboard sends. JSON comes as text, with every digit."""

from .._core import sql

__all__ = [
    "BLOCKED", "BROWSE", "DEAD_COUNT", "DEAD_LETTERS", "DEAD_TYPES", "LEASES", "MESSAGE",
    "ONE_GROUP", "RETRIES", "RETRY_COUNT", "STATES",
]  # fmt: skip

#: One group: there may be hundreds, with a thousand topics each.
ONE_GROUP = f"SELECT * FROM ({sql.GROUPS}) AS g WHERE g.name = %s"  # noqa: S608 - of constants
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
#: The last arguments are keyset pagination: what died before the last one of the page before.
DEAD_LETTERS = """
SELECT group_name, topic, message_id, key,
       CASE WHEN COALESCE(pg_column_size(payload), 0) <= 20000 THEN payload::text END AS payload,
       CASE WHEN COALESCE(pg_column_size(data), 0) <= 20000 THEN data END AS data,
       COALESCE(pg_column_size(payload), pg_column_size(data)) AS bytes,
       headers::text AS headers, published_at, attempt, reason, dead_at, error::text AS error
  FROM durable_notify.dead_letters(%s, %s, %s::bigint[], %s, %s, %s, %s, %s, %s, %s)
 ORDER BY dead_at DESC, message_id DESC
"""
#: How many messages a redrive or a discard means.
DEAD_COUNT = """
SELECT count(DISTINCT (topic, message_id)) AS messages
  FROM durable_notify.dead_letters(%s, %s, %s::bigint[], %s, %s, %s, %s)
"""
DEAD_TYPES = """
SELECT COALESCE(error ->> 'type', reason) AS error_type, count(*) AS messages
  FROM durable_notify.dead_letters(%s, %s, max_messages => 100)
 GROUP BY 1 ORDER BY 2 DESC LIMIT 20
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
LEASES = """
SELECT topic, group_name, owner, claimed_at, deadline, messages FROM durable_notify.leases()
 LIMIT 200
"""
