CREATE FUNCTION durable_notify.message_states(topic text, message_id bigint) RETURNS TABLE (
    group_name text, state text, reason text, owner text, since timestamptz, until timestamptz, attempt integer,
    error jsonb, published_before boolean
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    published timestamptz;
    xid xid8;
BEGIN
    -- What a message is to each group of its topic. state:
    --   unread:   not delivered yet
    --   leased:   owner holds it since then; its lease ends at until. attempt: which one this is
    --   deferred: it waits until then, for reason: retry, key (an earlier message of its key), delivery
    --             or replay. attempt: the next one
    --   dead:     it is a dead letter, since then, for reason
    --   settled:  or skipped; when, is not kept
    --   unknown:  it was removed, and the group has no trace of it
    -- published_before: it was published before the group subscribed; a group that began with what came
    -- later has skipped it.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._message_states_granted(topic, message_id);
        RETURN;
    END IF;
    SELECT o.xid, o.created_at INTO xid, published FROM durable_notify.outbox o
     WHERE o.topic = message_states.topic AND o.id = message_states.message_id;
    -- Trap: leases have no index by subscription: so all are read once, not for each group.
    RETURN QUERY
    WITH held AS MATERIALIZED (
        SELECT DISTINCT ON (b.subscription_id) b.subscription_id, b.token, b.owner, b.claimed_at,
               COALESCE(h.deadline, b.deadline) AS deadline,
               b.attempts[pg_catalog.array_position(b.ids, message_states.message_id)] AS attempt
          FROM durable_notify.lease b
          LEFT JOIN durable_notify.lease_deadline h ON h.token = b.token
         WHERE message_states.message_id = ANY (b.ids)
           AND NOT EXISTS (SELECT FROM durable_notify.settlement t
                            WHERE t.token = b.token AND t.message_id = message_states.message_id)
         ORDER BY b.subscription_id)
    SELECT g.name,
           CASE WHEN l.token IS NOT NULL THEN 'leased' WHEN d.seq IS NOT NULL THEN 'deferred' WHEN x.seq IS NOT NULL THEN 'dead'
                WHEN xid IS NULL THEN 'unknown'
                WHEN (pg_catalog.pg_visible_in_snapshot(xid, p.s0) AND message_states.message_id <= p.h0
                      OR p.s1 IS NOT NULL AND pg_catalog.pg_visible_in_snapshot(xid, p.s1) AND message_states.message_id <= p.p) THEN 'settled'
                ELSE 'unread' END,
           CASE WHEN l.token IS NOT NULL THEN NULL WHEN d.seq IS NOT NULL THEN d.reason WHEN c.sees THEN x.reason
                ELSE pg_catalog.split_part(x.reason, ':', 1) END,
           l.owner, CASE WHEN l.token IS NOT NULL THEN l.claimed_at WHEN d.seq IS NULL THEN x.dead_at END,
           CASE WHEN l.token IS NOT NULL THEN l.deadline ELSE d.due_at END,
           CASE WHEN l.token IS NOT NULL THEN l.attempt WHEN d.seq IS NOT NULL THEN d.attempt ELSE x.attempt END,
           CASE WHEN l.token IS NULL
                THEN durable_notify._seen_error(CASE WHEN d.seq IS NOT NULL THEN d.error ELSE x.error END, c.sees) END,
           published < s.created_at
      FROM durable_notify.subscription s
      JOIN durable_notify.consumer_group g ON g.id = s.group_id
     CROSS JOIN LATERAL (
           SELECT w.* FROM durable_notify.position w WHERE w.subscription_id = s.id ORDER BY w.seq DESC LIMIT 1) AS p
      LEFT JOIN held l ON l.subscription_id = s.id
      LEFT JOIN LATERAL (
           SELECT w.* FROM durable_notify.deferred w
            WHERE w.subscription_id = s.id AND w.message_id = message_states.message_id
            ORDER BY w.reason = 'retry' DESC, w.due_at DESC LIMIT 1) AS d ON true
      LEFT JOIN LATERAL (
           SELECT w.* FROM durable_notify.dead_letter w
            WHERE w.subscription_id = s.id AND w.message_id = message_states.message_id
            ORDER BY w.seq DESC LIMIT 1) AS x ON true
     CROSS JOIN LATERAL (SELECT durable_notify._sees_content(g.name, message_states.topic) AS sees) AS c
     WHERE s.topic = message_states.topic
     ORDER BY g.name;
END
$function$;

CALL durable_notify._grantable('message_states', '{observe,consume}', $$_require_observe()$$,
    visible => $$_can_observe(f.group_name, topic)$$);
