CREATE FUNCTION durable_notify._compact(topic text) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET lock_timeout = '1s'
SET search_path = pg_catalog, durable_notify, pg_temp AS $function$
#variable_conflict use_column
DECLARE
    policy durable_notify.topic_retention := durable_notify._retention_for(topic);
    below bigint;
    from_id bigint;
    last bigint;
    looked bigint;
    gone bigint[];
    seen pg_snapshot;
BEGIN
    -- Look at the next 1,000 messages of a compacted topic, and remove each one if a later one of the
    -- same key is among them or was looked at before; returns how many were looked at, 0: no more for
    -- now.
    --
    -- It looks only at messages that every group has settled, below what _advance_watermark() has
    -- recorded: nothing with a lower id commits later. compacted_key keeps the latest message of each
    -- key, so that no message is looked at twice. A message without a key stays.
    IF NOT COALESCE(policy.compact, false) OR NOT durable_notify._lock_removal() THEN
        RETURN 0;
    END IF;
    INSERT INTO durable_notify.maintenance_progress (topic) VALUES (_compact.topic) ON CONFLICT DO NOTHING;
    SELECT p.compacted_below, CASE WHEN policy.archive THEN p.archived_below ELSE 9223372036854775807 END
      INTO STRICT from_id, below
      FROM durable_notify.maintenance_progress p WHERE p.topic = _compact.topic FOR UPDATE;
    -- A new statement, after the lock: it sees what was redelivered before, and nothing is redelivered
    -- until the commit. What has appeared after it, with an id that was drawn long ago, is not looked
    -- at.
    seen := durable_notify._committed_snapshot();
    below := durable_notify._all_settled_watermark(topic, LEAST(below, durable_notify._watermark()));
    SELECT pg_catalog.max(n.id), pg_catalog.count(*) INTO last, looked FROM (
        SELECT o.id FROM durable_notify.outbox o
         WHERE o.topic = _compact.topic AND o.id >= from_id AND o.id < below
           AND pg_catalog.pg_visible_in_snapshot(o.xid, seen) ORDER BY o.id LIMIT 1000) AS n;
    IF last IS NULL THEN
        RETURN 0;
    END IF;
    WITH batch AS MATERIALIZED (
        SELECT o.id, o.key, pg_catalog.max(o.id) OVER (PARTITION BY o.key) AS latest
          FROM durable_notify.outbox o
         WHERE o.topic = _compact.topic AND o.id >= from_id AND o.id <= last AND o.key IS NOT NULL
           AND pg_catalog.pg_visible_in_snapshot(o.xid, seen)
           AND durable_notify.log_id() IS NOT NULL),  -- raises, as in _delete_expired()
    known AS MATERIALIZED (
        SELECT k.key, k.message_id FROM (SELECT DISTINCT b.key FROM batch b) AS n
          JOIN durable_notify.compacted_key k ON k.topic = _compact.topic AND k.key = n.key
         -- Trap: the known latest may have been removed for its age, and must not take existing
         -- messages with it.
         WHERE EXISTS (SELECT FROM durable_notify._message(_compact.topic, k.message_id, k.message_id, k.message_id) AS o
                        WHERE o.key = k.key)),
    recorded AS (
        INSERT INTO durable_notify.compacted_key AS k (topic, key, message_id)
        SELECT _compact.topic, b.key, b.id FROM batch b WHERE b.id = b.latest
        ON CONFLICT ON CONSTRAINT compacted_key_pkey DO UPDATE SET message_id = EXCLUDED.message_id
         WHERE k.message_id < EXCLUDED.message_id)
    SELECT pg_catalog.array_agg(o.id) INTO gone FROM (
        SELECT b.id FROM batch b LEFT JOIN known k ON k.key = b.key WHERE b.id < GREATEST(b.latest, k.message_id)
        UNION
        SELECT k.message_id FROM known k JOIN batch b ON b.key = k.key WHERE k.message_id < b.latest) AS o;
    IF gone IS NOT NULL THEN
        PERFORM durable_notify._delete_messages(topic, gone);
    END IF;
    UPDATE durable_notify.maintenance_progress p SET compacted_below = last + 1 WHERE p.topic = _compact.topic;
    RETURN looked;
EXCEPTION WHEN lock_not_available THEN
    RETURN 0;  -- another time: replays need not wait
END
$function$;

CREATE FUNCTION durable_notify._delete_messages(topic text, ids bigint[]) RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET jit = off AS $function$
#variable_conflict use_column
DECLARE
    removed bigint;
BEGIN
    -- Remove messages in the middle of a topic, and subtract them from what was measured; returns how
    -- many there were.
    WITH gone AS (
        DELETE FROM durable_notify.outbox o WHERE o.topic = _delete_messages.topic AND o.id = ANY (ids)
        RETURNING o.id, pg_catalog.pg_column_size(o.payload) AS bytes),
    less AS (
        UPDATE durable_notify.topic_size e
           SET messages = e.messages - s.messages, bytes = GREATEST(0, e.bytes - s.bytes)
          FROM (SELECT x.upto_id, pg_catalog.count(*) AS messages, pg_catalog.sum(200 + COALESCE(g.bytes, 0)) AS bytes
                  FROM gone g CROSS JOIN LATERAL (
                       SELECT t.upto_id FROM durable_notify.topic_size t
                        WHERE t.topic = _delete_messages.topic AND t.upto_id >= g.id ORDER BY t.upto_id LIMIT 1) AS x
                 GROUP BY x.upto_id) AS s
         WHERE e.topic = _delete_messages.topic AND e.upto_id = s.upto_id)
    SELECT pg_catalog.count(*) INTO removed FROM gone;
    RETURN removed;
END
$function$;
