CREATE FUNCTION durable_notify.blocked_keys(
    for_group text DEFAULT NULL, for_topic text DEFAULT NULL, max_keys integer DEFAULT 1000
) RETURNS TABLE (
    group_name text, topic text, key text, waiting bigint, since timestamptz, message_id bigint, state text,
    owner text, until timestamptz, attempt integer, error jsonb
)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
BEGIN
    -- The keys of a group (NULL: of all that the caller may see) of which messages wait for an earlier
    -- one, those that wait longest first. It looks at the first max_keys keys of each topic.
    --
    -- key: '' for all messages of a strict group. waiting: how many messages wait, and since when the
    -- first of them does. message_id: what they wait for; state says what that one does:
    --   leased: owner holds it until then, or settles it; past its deadline, until the next claim
    --   retry:  it failed, and its next attempt is due then; attempt: how many there were
    --   ready:  it waits for nothing but a claim
    -- Trap: by a hash join it would read all subscriptions, of which few have keys that wait.
    IF NOT durable_notify._is_owner() THEN
        RETURN QUERY SELECT * FROM durable_notify._blocked_keys_granted(for_group, for_topic, max_keys);
        RETURN;
    END IF;
    PERFORM durable_notify._check_group(for_group);
    IF max_keys IS NULL OR max_keys < 1 THEN
        RAISE EXCEPTION 'max_keys is at least 1, not %', max_keys USING ERRCODE = '22023';
    END IF;
    RETURN QUERY
    WITH parked AS MATERIALIZED (
        SELECT g.name, s.topic, s.id, g.order_by, h.key, h.message_id
          FROM durable_notify._parked_subscriptions() AS p (id)
          JOIN durable_notify.subscription s ON s.id = p.id
          JOIN durable_notify.consumer_group g ON g.id = s.group_id
         CROSS JOIN LATERAL durable_notify._first_parked(s.id, max_keys) AS h
         WHERE (for_group IS NULL OR g.name = for_group) AND (for_topic IS NULL OR s.topic = for_topic)),
    held AS MATERIALIZED (
        SELECT l.subscription_id, m.key, m.id, m.attempt, l.owner, COALESCE(h.deadline, l.deadline) AS deadline
          FROM (SELECT DISTINCT p.id, p.order_by FROM parked p) AS p
          JOIN durable_notify.lease l ON l.subscription_id = p.id
          LEFT JOIN durable_notify.lease_deadline h ON h.token = l.token
         CROSS JOIN LATERAL ROWS FROM (
               pg_catalog.unnest(l.ids), pg_catalog.unnest(l.attempts), pg_catalog.unnest(durable_notify._lease_keys(l, p.order_by)))
               AS m (id, attempt, key)
         WHERE NOT EXISTS (SELECT FROM durable_notify.settlement t WHERE t.token = l.token AND t.message_id = m.id)),
    found AS (
        SELECT p.name, p.topic, p.key, w.waiting - (b.id IS NULL AND d.reason = 'key')::integer AS waiting, w.since,
               COALESCE(b.id, p.message_id) AS message_id,
               CASE WHEN b.id IS NOT NULL THEN 'leased' WHEN d.reason = 'retry' THEN 'retry' ELSE 'ready' END AS state,
               b.owner, CASE WHEN b.id IS NOT NULL THEN b.deadline WHEN d.reason = 'retry' THEN d.due_at END AS until,
               COALESCE(b.attempt, d.attempt) - 1 AS attempt, CASE WHEN b.id IS NULL THEN d.error END AS error
          FROM parked p
         CROSS JOIN LATERAL (
               SELECT x.reason, x.due_at, x.attempt, x.error FROM durable_notify.deferred x
                WHERE x.subscription_id = p.id AND x.message_id = p.message_id AND x.key IS NOT NULL
                ORDER BY x.attempt DESC, x.due_at LIMIT 1) AS d
         CROSS JOIN LATERAL (
               SELECT pg_catalog.count(*) AS waiting, pg_catalog.min(few.due_at) AS since
                 FROM (SELECT x.due_at FROM durable_notify.deferred x
                        WHERE x.subscription_id = p.id AND x.key = p.key AND x.reason = 'key' LIMIT 10000) AS few) AS w
          LEFT JOIN LATERAL (
               SELECT h.* FROM held h WHERE h.subscription_id = p.id AND h.key = p.key ORDER BY h.id LIMIT 1) AS b ON true)
    SELECT f.name, f.topic, f.key, f.waiting, f.since, f.message_id, f.state, f.owner, f.until, f.attempt,
           durable_notify._seen_error(f.error, durable_notify._sees_content(f.name, f.topic))
      FROM found f WHERE f.waiting > 0 ORDER BY f.since, f.name, f.topic, f.key;
END
$function$;

CREATE FUNCTION durable_notify._parked_subscriptions() RETURNS SETOF integer
LANGUAGE plpgsql STABLE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $function$
BEGIN
    -- The subscriptions of which messages hold back their keys: one probe for each, whatever the number
    -- of other subscriptions.
    RETURN QUERY
    WITH RECURSIVE found AS (
        (SELECT d.subscription_id FROM durable_notify.deferred d WHERE d.key IS NOT NULL
          ORDER BY d.subscription_id LIMIT 1)
        UNION ALL
        SELECT n.subscription_id FROM found f
         CROSS JOIN LATERAL (
               SELECT d.subscription_id FROM durable_notify.deferred d
                WHERE d.key IS NOT NULL AND d.subscription_id > f.subscription_id
                ORDER BY d.subscription_id LIMIT 1) AS n)
    SELECT f.subscription_id FROM found f;
END
$function$;

CREATE FUNCTION durable_notify._first_parked(subscription_id integer, max_keys integer) RETURNS TABLE (key text, message_id bigint)
LANGUAGE plpgsql STABLE STRICT
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $function$
#variable_conflict use_column
BEGIN
    -- The first deferred message of each of the first keys that wait; as _parked_heads(), but no more
    -- keys than asked for.
    RETURN QUERY
    WITH RECURSIVE first AS (
        (SELECT d.key, d.message_id, 1 AS number FROM durable_notify.deferred d
          WHERE d.subscription_id = _first_parked.subscription_id AND d.key IS NOT NULL
          ORDER BY d.key, d.message_id LIMIT 1)
        UNION ALL
        SELECT n.key, n.message_id, f.number + 1 FROM first f
         CROSS JOIN LATERAL (
               SELECT d.key, d.message_id FROM durable_notify.deferred d
                WHERE d.subscription_id = _first_parked.subscription_id AND d.key > f.key
                ORDER BY d.key, d.message_id LIMIT 1) AS n
         WHERE f.number < max_keys)
    SELECT f.key, f.message_id FROM first f;
END
$function$;

CALL durable_notify._grantable('blocked_keys', '{observe,consume}', $$_require_observe(for_group)$$,
    visible => $$_can_observe(f.group_name, f.topic)$$);
